"""
What the gate adds to the container engine, as differences within one run.

    python -m bench.containers [--rounds 10] [--calls 300] [--json]

Needs a Docker engine (``DOCKER_HOST`` or the usual socket), or root and ``dockerd``: then one is
started for the run.  Compares, with the same server in the same walls:

- cold: create + start + readiness + first answer straight on the engine, against the first request
  of a user nobody saw before to its answer through the gate, over TLS;
- stopped: start + readiness + first answer, against the first call after the gate stopped it;
- running: one call straight to the server, against the same through the gate, in a container and
  as a local process.

The gate also gives each new user a network; what that takes is told by itself.
"""

# ruff: noqa: PLC0415, TID251
# What it measures is imported when the engine is there; waiting for ports blocks nobody.

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[1]
PORT: Final = 8000
INITIALIZE: Final = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}
CONFIG: Final = """
[gate]
listen = tls:tcp:<port>:interface=127.0.0.1
state_dir = <dir>/state
[auth:keys]
type = static
keys_file = keys
[limits]
per_key = off
per_address = off
[docker]
url = {url}
gate_id = {gate_id}
on_stop = stop
files_dir = <dir>/files
[server:box]
image = {image}
command = /app/boxed_mcp.py {{port}}
transport = http
cpus = 1
[server:local]
command = {python} {program} {{port}}
transport = http
memory = 0
"""


class Session:
    """One MCP session on one connection that stays open."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, **fields: str) -> None:
        self.connection, self.path = connection, path
        self.fields = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **fields,
        }

    def post(self, message: dict[str, Any]) -> Any:
        """Send a message; give the answer."""
        body = json.dumps({"jsonrpc": "2.0", **message})
        self.connection.request("POST", self.path, body=body, headers=self.fields)
        response = self.connection.getresponse()
        text = response.read()
        session = response.headers.get("Mcp-Session-Id")
        if session:
            self.fields["Mcp-Session-Id"] = session
        if response.status >= 300:
            raise SystemExit(f"{self.path} answers {response.status}: {text!r}")
        return json.loads(text) if text else None

    def initialize(self) -> None:
        """Shake hands."""
        told = self.post({"id": 0, "method": "initialize", "params": INITIALIZE})
        if "result" not in told:
            raise SystemExit(f"{self.path} answers {told}")

    def call(self) -> None:
        """Call a tool that does nothing."""
        told = self.post({"id": 1, "method": "tools/call", "params": {"name": "count"}})
        if "result" not in told:
            raise SystemExit(f"{self.path} answers {told}")


class Direct:
    """Containers made by the engine alone, with what the gate would ask for."""

    def __init__(self, client: Any, image: str, network: str) -> None:
        from mcpgate.model import (
            Container,
            InstanceKey,
            Isolation,
            Owner,
            Restraint,
            ServerSpec,
            Transport,
        )
        from mcpgate.runtime.docker import container

        self.client, self.network = client, network
        spec = ServerSpec(
            name="box",
            transport=Transport.HTTP,
            runtime="docker",
            command=("/app/boxed_mcp.py", "{port}"),
            container=Container(image=image, port=PORT),
            restraint=Restraint(cpus=1.0),
        )
        told = client.inspect_image(image)
        self.body = container.create_parameters(
            spec,
            InstanceKey("box", Owner(Isolation.PER_KEY, "0" * 32)),
            gate_id="bench",
            image_id=told["Id"],
            image_user=told["Config"]["User"],
            values=container.template_values(spec, {}),
            place=container.Place(network=network),
            hash_key=b"bench",
        )
        self.made: list[str] = []

    def create(self) -> str:
        """Create one."""
        made = str(self.client.create_container_from_config(self.body, None)["Id"])
        self.made.append(made)
        return made

    def start(self, made: str) -> Session:
        """Start one and wait until it listens; give a session."""
        self.client.start(made)
        told = self.client.inspect_container(made)["NetworkSettings"]["Networks"]
        address = told[self.network]["IPAddress"]
        while True:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex((address, PORT)) == 0:
                    return Session(http.client.HTTPConnection(address, PORT), "/mcp")
            time.sleep(0.002)

    def close(self) -> None:
        """Remove all."""
        for made in self.made:
            self.client.remove_container(made, force=True)


class Clock:
    """Collects times of a few kinds."""

    def __init__(self) -> None:
        self.times_s: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def of(self, kind: str) -> Any:
        """Take the time of a block."""
        begun = time.perf_counter()
        yield
        self.times_s.setdefault(kind, []).append(time.perf_counter() - begun)

    def median_ms(self, kind: str) -> float:
        """Give the median, milliseconds."""
        return statistics.median(self.times_s[kind]) * 1000


def gate_session(gate: Any, key: str, server: str) -> Session:
    """Open a connection to the gate, its handshake done."""
    connection = gate.connection()
    connection.connect()
    return Session(connection, f"/{server}/mcp", Authorization=f"Bearer {key}")


def measure_starts(clock: Clock, gate: Any, direct: Direct, keys: Sequence[str]) -> None:
    """Cold and stopped, straight and through the gate, in turn."""
    for key in keys:
        with clock.of("cold, engine alone"):
            made = direct.create()
            direct.start(made).initialize()
        session = gate_session(gate, key, "box")
        with clock.of("cold, through the gate"):
            session.initialize()
        session.call()
        stop(gate)
        direct.client.stop(made, timeout=1)
        with clock.of("stopped, engine alone"):
            direct.start(made).initialize()
        direct.client.remove_container(made, force=True)
        direct.made.remove(made)
        with clock.of("stopped, through the gate"):
            session.call()
        stop(gate)


def stop(gate: Any) -> None:
    """Stop every container of the gate."""
    done = gate.command("stop", "box", "--all")
    if done.returncode != 0:
        raise SystemExit(f"mcpgate stop: {done.stderr or done.stdout}")


def measure_calls(clock: Clock, gate: Any, direct: Direct, key: str, calls: int) -> None:
    """A call to what runs, straight and through the gate, in a container and as a process."""
    port = free_port()
    program = str(REPOSITORY / "tests/functional/servers/boxed_mcp.py")
    process = subprocess.Popen([sys.executable, program, str(port)])
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.01)
        sessions = {
            "call, container, straight": direct.start(direct.create()),
            "call, container, gate": gate_session(gate, key, "box"),
            "call, process, straight": Session(http.client.HTTPConnection("127.0.0.1", port), "/"),
            "call, process, gate": gate_session(gate, key, "local"),
        }
        for session in sessions.values():
            session.initialize()
        for number in range(calls):
            for kind, session in sessions.items():
                with clock.of(kind) if number > calls // 10 else contextlib.nullcontext():
                    session.call()
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Give a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(clock: Clock) -> None:
    """Print what was found."""
    for kind in clock.times_s:
        print(f"{kind:28} {clock.median_ms(kind):9.2f} ms")
    cold = clock.median_ms("cold, through the gate") - clock.median_ms("cold, engine alone")
    network = clock.median_ms("network, engine alone")
    stopped = clock.median_ms("stopped, through the gate") / clock.median_ms(
        "stopped, engine alone"
    )
    added = {
        kind: clock.median_ms(f"call, {kind}, gate") - clock.median_ms(f"call, {kind}, straight")
        for kind in ("container", "process")
    }
    print(f"cold: the gate adds {cold:.0f} ms, {network:.0f} of them for the user's network")
    print(f"stopped: gate / engine = {stopped:.2f}")
    print(
        f"running: the gate adds {added['container']:.2f} ms to a container, "
        f"{added['process']:.2f} ms to a process; ratio {added['container'] / added['process']:.2f}"
    )


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print medians in milliseconds")
    args = parser.parse_args()
    os.environ["MCPGATE_DOCKER"] = "1"
    sys.path.insert(0, str(REPOSITORY))
    import docker.types

    from tests.functional.docker_engine import client, require_engine, require_python
    from tests.functional.gate_process import GateProcess

    url = require_engine()
    image = require_python(url)
    beside = client(url)
    case, clock = unittest.TestCase(), Clock()
    gate_id = f"bench{os.getpid()}"
    pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.216.0.0/28")])
    networks = []
    for number in range(5):
        config = docker.types.IPAMConfig(
            pool_configs=[docker.types.IPAMPool(subnet=f"10.216.1.{16 * number}/28")]
        )
        with clock.of("network, engine alone"):
            networks.append(
                beside.create_network(f"{gate_id}-{number}", ipam=config, internal=True)["Id"]
            )
    network = beside.create_network(gate_id, ipam=pool, internal=True)["Id"]
    networks.append(network)
    direct = Direct(beside, image, gate_id)
    try:
        gate = GateProcess(
            case,
            CONFIG.format(
                url=url,
                gate_id=gate_id,
                image=image,
                python=sys.executable,
                program=REPOSITORY / "tests/functional/servers/boxed_mcp.py",
            ),
        )
        *keys, last = gate.add_keys(args.rounds + 1)
        gate.start()
        measure_starts(clock, gate, direct, keys)
        measure_calls(clock, gate, direct, last, args.calls)
        if args.json:
            print(json.dumps({kind: clock.median_ms(kind) for kind in clock.times_s}))
        else:
            report(clock)
    finally:
        case.doCleanups()
        direct.close()
        label = {"label": f"mcpgate.gate={gate_id}"}
        for box in beside.containers(all=True, filters=label):
            beside.remove_container(box["Id"], force=True)
        for one in [*(each["Id"] for each in beside.networks(filters=label)), *networks]:
            beside.remove_network(one)
        beside.close()


if __name__ == "__main__":
    main()
