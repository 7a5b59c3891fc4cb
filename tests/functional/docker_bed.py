"""A Docker runtime for tests: over a real engine, with everything of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import unittest
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import docker.errors
from twisted.internet import reactor  # noqa: TID251  # a functional test
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mcpgate.model import Container, InstanceKey, Isolation, Launch, Owner, Secret, ServerSpec
from mcpgate.model import Transport as Kind
from mcpgate.runtime.docker.build import DockerSettings, make_docker_runtime
from mcpgate.runtime.docker.runtime import DockerRuntime
from mcpgate.telemetry.meters import Meters
from mcpgate.testing.runtime_contract import BRIEF
from mcpgate.timing.deferreds import deferred
from tests.functional.docker_engine import client, require_engine, require_python
from tests.functional.gate_process import PATIENT_S

T = TypeVar("T")

ECHO = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""
HTTP = """
import http.server, sys
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(405)
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", int(sys.argv[1])), Quiet).serve_forever()
"""
CRASH = """
import sys
print("boom", file=sys.stderr)
sys.exit(3)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    time.sleep(60)
"""
PROGRAMS = {"echo": ECHO, "http": HTTP, "crash": CRASH, "stubborn": STUBBORN}


TWO_PORTS = """
import http.server, threading
def serve(port):
    http.server.HTTPServer(("0.0.0.0", port), http.server.SimpleHTTPRequestHandler).serve_forever()
threading.Thread(target=serve, args=(8001,), daemon=True).start()
serve(8000)
"""


def inspected(beside: Any, gate_id: str, *, all: bool = False) -> list[dict[str, Any]]:
    """Give the containers of a gate, inspected; one that is removed meanwhile is none of them."""
    boxes = []
    for one in beside.containers(all=all, filters={"label": f"mcpgate.gate={gate_id}"}):
        with contextlib.suppress(docker.errors.NotFound):
            boxes.append(beside.inspect_container(one["Id"]))
    return boxes


def remove_all(beside: Any, gate_id: str) -> None:
    """Remove what is left of a gate: its last wishes may be under way in the engine."""
    filters = {"label": f"mcpgate.gate={gate_id}"}
    for one in beside.containers(all=True, filters=filters):
        try:
            beside.remove_container(one["Id"], force=True, v=True)
        except docker.errors.NotFound:
            pass
        except docker.errors.APIError as error:
            if "already in progress" not in str(error):
                raise
    for one in beside.networks(filters=filters):
        with contextlib.suppress(docker.errors.NotFound):
            beside.remove_network(one["Id"])


class Outside:
    """
    Machines of the rest of the world: containers on a network that is none of the gate's.

    Each listens on ports 8000 and 8001.

    :param subnet: of 256 addresses.
    """

    def __init__(self, case: unittest.TestCase, beside: Any, image: str, subnet: str) -> None:
        import docker.types

        self.beside, self.image = beside, image
        self.ids: list[str] = []
        pool = docker.types.IPAMPool(subnet=subnet)
        self.network = "mcpgate-outside-" + secrets.token_hex(4)
        beside.create_network(
            self.network, driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool])
        )
        case.addCleanup(self.close)

    def machine(self, *command: str, **environment: str) -> str:
        """Start one; give its address."""
        made = self.beside.create_container(
            self.image,
            list(command) or ["-I", "-c", TWO_PORTS],
            environment=environment,
            host_config=self.beside.create_host_config(network_mode=self.network),
        )["Id"]
        self.ids.append(made)
        self.beside.start(made)
        networks = self.beside.inspect_container(made)["NetworkSettings"]["Networks"]
        return str(networks[self.network]["IPAddress"])

    def close(self) -> None:
        """Remove all."""
        for one in self.ids:
            self.beside.remove_container(one, force=True)
        self.beside.remove_network(self.network)


class DockerBed:
    """
    A runtime, and a view of what it does from beside it.

    :param url: of the engine; None: the shared one.
    :param more: further settings.
    """

    def __init__(self, test: TestCase, url: str | None = None, **more: Any) -> None:
        self.url = url or require_engine()
        self.image = require_python(self.url)
        self.beside = client(self.url)
        self.state_dir = tempfile.mkdtemp(prefix="mcpgate-test-")
        self.gate_id = "test" + secrets.token_hex(4)
        self.specs: dict[str, ServerSpec] = {}
        self.meters = Meters()
        self.more = more
        self.table: dict[str, Sequence[str]] = {}
        self.runtimes: list[DockerRuntime] = []
        self.count = 0
        self.runtime = self.make()
        test.addCleanup(self.close)

    def make(self, **more: Any) -> DockerRuntime:
        """Make a runtime; a second one is the gate's next life."""
        made = make_docker_runtime(
            reactor,
            DockerSettings(
                url=self.url,
                gate_id=self.gate_id,
                files_dir=os.path.join(self.state_dir, "files"),
                **{"keep": False, **self.more, **more},
            ),
            state_dir=self.state_dir,
            hash_key=b"of the test",
            find=self.specs.get,
            meters=self.meters,
            wall=lambda: __import__("time").time(),
            resolve=self.resolve,
        )
        self.runtimes.append(made)
        return made

    def resolve(self, name: str) -> Sequence[str]:
        """Give the addresses of a name; blocks."""
        if name not in self.table:
            raise OSError("no such name")
        return self.table[name]

    def spec(self, kind: str, program: str = "", *args: str, **fields: Any) -> ServerSpec:
        """Make the entry of a server that runs a Python program."""
        transport = Kind.HTTP if kind == "http" else Kind.STDIO
        box = {"image": self.image, **fields.pop("container", {})}
        if kind == "missing":
            box["image"] = "127.0.0.1:1/no-such-thing:1"
        values: dict[str, Any] = {
            "name": kind,
            "transport": transport,
            "runtime": "docker",
            "command": ("-I", "-c", program or PROGRAMS.get(kind, ""), "{port}", *args),
            "container": Container(**box),
            "lifetime": BRIEF,
        }
        made = ServerSpec(**(values | fields))
        self.specs[made.name] = made
        return made

    def launch(self, spec: ServerSpec, who: str = "a", **values: str) -> Launch:
        """Make a launch nobody had before."""
        self.count += 1
        return Launch(
            instance_id=f"{self.gate_id}i{self.count}",
            key=InstanceKey(spec.name, Owner(Isolation.PER_KEY, who * 32)),
            values={name: Secret(value) for name, value in values.items()},
        )

    def containers(self, *, all: bool = False) -> list[dict[str, Any]]:
        """Give the containers of this gate, as the engine lists them."""
        label = f"mcpgate.gate={self.gate_id}"
        found: list[dict[str, Any]] = self.beside.containers(all=all, filters={"label": label})
        return found

    def wait(self, waited: Deferred[T]) -> Deferred[T]:
        """See `RuntimeFixture.wait`."""
        return waited

    def alive(self) -> int:
        """See `RuntimeFixture.alive`."""
        return len(self.containers())

    @deferred
    async def until(self, condition: Callable[[], object], timeout_s: float = PATIENT_S) -> None:
        """Wait until a condition holds."""
        for _ in range(int(timeout_s / 0.05)):
            if condition():
                return
            await deferLater(reactor, 0.05)
        raise AssertionError("it did not come about in time")

    @deferred
    async def close(self) -> None:
        """Leave nothing behind."""
        for runtime in self.runtimes:
            await runtime.shutdown()
        remove_all(self.beside, self.gate_id)
        self.beside.close()
        shutil.rmtree(self.state_dir, ignore_errors=True)
