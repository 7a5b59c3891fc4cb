"""A whole gate over a real engine: every user a container."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional.docker_bed import Outside, inspected, remove_all
from tests.functional.docker_engine import client, require_engine, require_python
from tests.functional.gate_process import AT_ONCE_S, PATIENT_S, GateProcess, rest, wait_for
from tests.functional.mcp_client import Client

CONFIG = """\
[gate]
listen = tls:tcp:<port>:interface=127.0.0.1
state_dir = <dir>/state
sweep = 1s
start_parallel = 8
[auth:keys]
type = static
keys_file = keys
[limits]
per_key = 1000/s
burst = 2000
per_address = off
[admin]
listen = tcp:<port2>
user = admin
password = not-for-anybody
[docker]
url = <engine>
gate_id = <gate>
files_dir = <dir>/files
<docker>
[server:web]
image = <image>
command = /app/boxed_mcp.py {port}
transport = http
file.token = {key}
data = per-key
stop_grace = 1s
<web>
[server:pipe]
image = <image>
command = /app/boxed_mcp.py stdio
file.token = {key}
stop_grace = 1s
<pipe>
[server:missing]
image = 127.0.0.1:1/no-such-thing:1
"""


class DockerGate:
    """
    A gate with servers in containers.

    :param docker: more of its section.
    :param engine: address of another engine than the shared one.
    """

    def __init__(
        self, case: TestCase, *, web: str = "", pipe: str = "", docker: str = "", engine: str = ""
    ) -> None:
        self.url = engine or require_engine()
        image = require_python(self.url)
        self.beside = client(self.url)
        self.gate_id = "test" + secrets.token_hex(4)
        case.addCleanup(self.clean)
        with socket.socket() as probe:
            probe.bind(("", 0))
            self.admin_port = probe.getsockname()[1]
        text = CONFIG
        for name, value in {
            "engine": self.url,
            "gate": self.gate_id,
            "image": image,
            "web": web,
            "pipe": pipe,
            "docker": docker,
            "port2": str(self.admin_port),
        }.items():
            text = text.replace(f"<{name}>", value)
        self.gate = GateProcess(case, text)

    def user(self, number: int, server: str = "web") -> Client:
        """Make a user with a key of his own."""
        return Client(self.gate, server, self.gate.add_key(f"user{number}"))

    def users(self, count: int, server: str = "web") -> list[Client]:
        """Make many at once."""
        return [Client(self.gate, server, key) for key in self.gate.add_keys(count)]

    def containers(self, *, all: bool = False) -> list[dict[str, Any]]:
        """Give the gate's containers, inspected."""
        return inspected(self.beside, self.gate_id, all=all)

    def clean(self) -> None:
        """Remove what is left."""
        remove_all(self.beside, self.gate_id)
        self.beside.close()


def tool(one: Client, name: str, **arguments: object) -> Any:
    """Call a tool and give what it told."""
    answer = one.call(name, **arguments)
    message = answer.message
    assert "result" in message, message
    return json.loads(message["result"]["content"][0]["text"])


class WallsTests(TestCase):
    """Who is kept from what."""

    def test_twenty_users(self) -> None:
        """Twenty users at once get twenty containers within their walls; no key shows anywhere."""
        bed = DockerGate(self)
        users = bed.users(20)
        bed.gate.start()

        def first(one: Client) -> int:
            one.initialize()
            return int(tool(one, "count"))

        with ThreadPoolExecutor(20) as pool:
            self.assertEqual(list(pool.map(first, users)), [1] * 20)
        boxes = bed.containers()
        self.assertEqual(len(boxes), 20)
        for box in boxes:
            host = box["HostConfig"]
            self.assertEqual(host["Memory"], 256 << 20)
            self.assertEqual(host["MemorySwap"], 256 << 20)
            self.assertEqual(host["NanoCpus"], 300_000_000)
            self.assertEqual(host["PidsLimit"], 128)
            self.assertEqual(host["CapDrop"], ["ALL"])
            self.assertEqual(host["SecurityOpt"], ["no-new-privileges"])
            self.assertTrue(host["ReadonlyRootfs"])
            self.assertTrue(host["Init"])
            self.assertFalse(host["Privileged"])
            self.assertEqual(host["LogConfig"]["Config"], {"max-size": "10m", "max-file": "3"})
            self.assertFalse(host["PortBindings"])
            self.assertEqual((host["PidMode"], host["UTSMode"]), ("", ""))
            self.assertEqual(box["Config"]["User"], "10001:10001")
        inspected = json.dumps(boxes)
        shown = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
        log = bed.gate.log_text()
        for one in users:
            for place in (inspected, shown, log):
                self.assertNotIn(one.key, place)
            self.assertEqual(tool(one, "read", path="/run/mcpgate/token"), one.key)
        status = tool(users[0], "look")["status"]
        self.assertEqual(int(status["CapEff"], 16), 0)
        self.assertEqual(int(status["CapBnd"], 16), 0)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        self.assertEqual(status["Uid"], "10001")
        self.assertIn("Read-only", tool(users[0], "write", path="/app/x"))
        self.assertEqual(tool(users[0], "write", path="/tmp/x"), "written")
        self.assertEqual(tool(users[0], "write", path="/data/x", text="mine"), "written")
        self.assertEqual(tool(users[0], "read", path="/data/x"), "mine")
        self.assertIn("No such file", tool(users[1], "read", path="/data/x"))

    def reached(self, one: Client, host: str, port: int) -> str:
        """Tell whether a container reaches an address."""
        return str(tool(one, "reach", host=host, port=port))

    def walled(self, egress: str, bed: DockerGate | None = None) -> list[Client]:
        """Try every way out that is closed in any case."""
        bed = bed or DockerGate(self, web=f"egress = {egress}")
        ada, bob = bed.user(1), bed.user(2)
        bed.gate.start()
        for one in (ada, bob):
            one.initialize()
        boxes = bed.containers()
        addresses: dict[str, tuple[str, str]] = {}
        for box in boxes:
            (network,) = box["NetworkSettings"]["Networks"].values()
            addresses[box["Id"]] = (network["IPAddress"], network["Gateway"])
        self.assertEqual(len(addresses), 2)
        outside = own_address()
        gateways = {gateway for _, gateway in addresses.values() if gateway}
        hosts = {"169.254.169.254", "10.213.0.1", "10.213.0.17", outside, *gateways}
        with socket.create_server(("0.0.0.0", 0)) as service:
            port = service.getsockname()[1]
            for host in ("127.0.0.1", outside):
                socket.create_connection((host, port), 2).close()
            for one in (ada, bob):
                reached_itself = 0
                for address, _ in addresses.values():
                    reached_itself += self.reached(one, address, 8000) == "open"
                self.assertEqual(reached_itself, 1)
                for host in hosts:
                    for each in (port, bed.admin_port):
                        told = self.reached(one, host, each)
                        self.assertNotEqual(told, "open", f"{host}:{each}")
        for one in (ada, bob):
            # No address of IPv6 but its own loopback: nothing to reach anything from.
            own = str(tool(one, "read", path="/proc/net/if_inet6"))
            self.assertEqual([line for line in own.splitlines() if not line.endswith(" lo")], [])
        return [ada, bob]

    def test_no_way_out(self) -> None:
        """A container reaches neither other users' containers nor the host nor the metadata."""
        self.walled("none")

    def test_no_way_in_from_the_internet_side(self) -> None:
        """One that may reach the internet reaches neither of these, either."""
        self.walled("internet")

    def test_allow_list(self) -> None:
        """One with a list reaches what is listed, the private addresses among it, and no more."""
        bed = DockerGate(self)
        public = Outside(self, bed.beside, require_python(bed.url), "198.51.100.0/24")
        private = Outside(self, bed.beside, require_python(bed.url), "10.214.9.0/24")
        far, near, other = public.machine(), private.machine(), private.machine()
        told = f"egress = allow-list\negress_to = {far}:8000 {near} 10.213.0.0/16"
        text = bed.gate.ini.read_text()
        bed.gate.write(text.replace("stop_grace = 1s\n", f"stop_grace = 1s\n{told}\n", 1))
        for one in self.walled("", bed):
            found = {
                (host, port): self.reached(one, host, port)
                for host in (far, near, other)
                for port in (8000, 8001)
            }
            opened = {place for place, said in found.items() if said == "open"}
            self.assertEqual(opened, {(far, 8000), (near, 8000), (near, 8001)}, found)

    def test_stdio_has_no_network(self) -> None:
        """A server on stdio without egress sees nothing but itself."""
        bed = DockerGate(self)
        ada = bed.user(1, "pipe")
        bed.gate.start()
        ada.initialize()
        (box,) = bed.containers()
        self.assertEqual(box["HostConfig"]["NetworkMode"], "none")
        self.assertEqual(tool(ada, "read", path="/run/mcpgate/token"), ada.key)
        for host in (own_address(), "169.254.169.254", "10.213.0.1"):
            self.assertIn("unreachable", self.reached(ada, host, 80))


def own_address() -> str:
    """Give the address of this machine that others would use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.200", 9))
        return str(probe.getsockname()[0])


class LifeTests(TestCase):
    """What becomes of containers."""

    def test_image_missing(self) -> None:
        """A missing image is told within a second."""
        bed = DockerGate(self)
        ada = bed.user(1, "missing")
        bed.gate.start()
        begun = time.monotonic()
        answer = ada.initialize()
        self.assertLess(time.monotonic() - begun, AT_ONCE_S)
        self.assertEqual(answer.status, 503)
        error = answer.message["error"]
        self.assertEqual((error["code"], error["data"]["reason"]), (-31001, "image_missing"))
        self.assertIn("no-such-thing", error["message"])

    def test_out_of_memory(self) -> None:
        """Who uses up the memory is told so within a second; the next call works."""
        for server in ("web", "pipe"):
            bed = DockerGate(self, web="memory = 48MiB", pipe="memory = 48MiB")
            ada = bed.user(1, server)
            bed.gate.start()
            ada.initialize()
            tool(ada, "count")
            begun = time.monotonic()
            answer = ada.call("eat", megabytes=200)
            self.assertLess(time.monotonic() - begun, AT_ONCE_S)
            error = answer.message["error"]
            self.assertEqual(error["code"], -31003)
            self.assertEqual(error["data"]["exitReason"], "oom_killed")
            self.assertEqual(tool(ada, "count"), 1)

    def test_adoption(self) -> None:
        """After kill -9 of the gate the same containers and sessions go on within 3 s."""
        bed = DockerGate(self)
        users = bed.users(20)
        bed.gate.start()

        def first(one: Client) -> object:
            one.initialize()
            return tool(one, "count")

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(first, users))
        before = {box["Id"]: box["State"]["StartedAt"] for box in bed.containers()}
        self.assertEqual(len(before), 20)
        rest(0.5)  # The store writes behind, 100 ms.
        bed.gate.kill()
        begun = time.monotonic()
        bed.gate.start()
        took = time.monotonic() - begun
        with ThreadPoolExecutor(20) as pool:
            counts = list(pool.map(lambda one: tool(one, "count"), users))
        self.assertEqual(counts, [2] * 20, bed.gate.log_text())
        after = {box["Id"]: box["State"]["StartedAt"] for box in bed.containers(all=True)}
        self.assertEqual(after, before)
        print(f"20 containers adopted, in service after {took:.2f} s")  # noqa: T201  # told

    def test_adoption_of_stdio(self) -> None:
        """A server on stdio ends with the gate; its container is taken up at the next call."""
        bed = DockerGate(self)
        ada = bed.user(1, "pipe")
        bed.gate.start()
        ada.initialize()
        tool(ada, "count")
        (before,) = bed.containers()
        bed.gate.kill()
        wait_for(lambda: not bed.containers(), "it is done")
        bed.gate.start()
        self.assertEqual(tool(ada, "count"), 1)
        (after,) = bed.containers(all=True)
        self.assertEqual(after["Id"], before["Id"])
        self.assertEqual(tool(ada, "read", path="/run/mcpgate/token"), ada.key)

    def test_stop_and_remove(self) -> None:
        """Idle: stopped; brought back by a call, with its data; long stopped: removed."""
        bed = DockerGate(self, web="idle_stop = 2s\nremove_after = 7d")
        ada = bed.user(1)
        bed.gate.start()
        ada.initialize()
        tool(ada, "write", path="/data/kept", text="still here")
        (before,) = bed.containers()
        wait_for(lambda: not bed.containers(), "it is done")
        (stopped,) = bed.containers(all=True)
        self.assertEqual(stopped["Id"], before["Id"])
        self.assertEqual(tool(ada, "read", path="/data/kept"), "still here")
        (again,) = bed.containers(all=True)
        self.assertEqual(again["Id"], before["Id"])
        bed.gate.write(bed.gate.ini.read_text().replace("remove_after = 7d", "remove_after = 4s"))
        told = bed.gate.command("reload")
        self.assertEqual(told.returncode, 0, told.stderr)
        wait_for(lambda: not bed.containers(all=True), "it is done")
        label = f"mcpgate.gate={bed.gate_id}"
        wait_for(lambda: not bed.beside.networks(filters={"label": label}), "it is done")
        self.assertEqual(list(Path(bed.gate.directory, "files").iterdir()), [])
        self.assertEqual(tool(ada, "read", path="/data/kept"), "still here")

    def test_orderly_restart(self) -> None:
        """An orderly stop leaves HTTP servers running for the next start, and ends stdio ones."""
        bed = DockerGate(self)
        ada = bed.user(1)
        pipe = Client(bed.gate, "pipe", ada.key)
        bed.gate.start()
        for one in (ada, pipe):
            one.initialize()
            self.assertEqual(tool(one, "count"), 1)
        self.assertEqual(len(bed.containers()), 2)
        bed.gate.stop()
        (left,) = bed.containers()
        self.assertEqual(left["Config"]["Labels"]["mcpgate.server"], "web")
        bed.gate.start()
        self.assertEqual([tool(one, "count") for one in (ada, pipe)], [2, 1])
        self.assertNotIn("Traceback", bed.gate.log_text())

    def test_changed_entry(self) -> None:
        """What was started by another entry is not adopted; what is foreign is left alone."""
        bed = DockerGate(self)
        ada = bed.user(1)
        bed.gate.start()
        ada.initialize()
        self.assertEqual(tool(ada, "count"), 1)
        foreign = bed.beside.create_container(
            require_python(bed.url), ["-c", "0"], labels={"mcpgate.gate": "somebody-else"}
        )["Id"]
        self.addCleanup(bed.beside.remove_container, foreign)
        (before,) = bed.containers()
        bed.gate.kill()
        text = bed.gate.ini.read_text().replace("data = per-key", "data = none")
        bed.gate.write(text)
        bed.gate.start()
        self.assertEqual(bed.containers(all=True), [])
        self.assertEqual(tool(ada, "count"), 1)
        (after,) = bed.containers(all=True)
        self.assertNotEqual(after["Id"], before["Id"])
        bed.beside.inspect_container(foreign)

    def test_killed_beside(self) -> None:
        """Somebody kills a container: callers hear of it at once, and the next call works."""
        bed = DockerGate(self)
        ada = bed.user(1)
        bed.gate.start()
        ada.initialize()
        tool(ada, "count")
        told: list[Any] = []
        waiting = threading.Thread(
            target=lambda: told.append(ada.call("reach", host="10.254.254.254", port=9))
        )
        waiting.start()
        (box,) = bed.containers()
        bed.beside.kill(box["Id"])
        killed = time.monotonic()
        waiting.join(PATIENT_S)
        self.assertLess(time.monotonic() - killed, AT_ONCE_S)
        self.assertEqual(told[0].message["error"]["code"], -31003)
        self.assertEqual(tool(ada, "count"), 1)
