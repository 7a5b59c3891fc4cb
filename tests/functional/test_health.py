"""Real servers that hang, or only look as if they did, behind a real gate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    SERVERS,
    GateProcess,
    free_port,
    processes_below,
    rest,
    wait_for,
)
from tests.functional.mcp_client import Client
from tests.functional.test_modern import VERSION, message
from tests.functional.yardsticks import YARDSTICKS

QUICK = """health_interval = 1500ms
health_timeout = 1500ms
stop_grace = 300ms
"""

HANGING = "[server:{name}]\ncommand = <python> <servers>/hanging_mcp.py\ntransport = stdio\n"


class HealthCase(TestCase):
    """A gate that asks often."""

    def begin(self, *sections: str) -> None:
        """Start it."""
        self.gate = GateProcess(self, GATE + NO_LIMITS + "\n".join(sections))
        self.key = self.gate.add_key("joe")
        self.gate.start()

    def client(self, server: str) -> Client:
        """Shake hands with a server."""
        client = Client(self.gate, server, self.key)
        self.assertEqual(client.initialize().status, 200)
        return client

    def freeze(self, pid: int) -> None:
        """Have a process hang; it goes on at the latest when the test is over."""

        def thaw() -> None:
            if os.path.exists(f"/proc/{pid}"):
                os.kill(pid, signal.SIGCONT)

        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(thaw)

    def event(self, name: str) -> float:
        """Tell how often something happened."""
        return self.gate.event(name)

    def in_state(self, server: str, state: str) -> bool:
        """Tell whether an instance of a server is in a state."""
        return self.gate.metric(f'mcpgate_instances{{server="{server}",state="{state}"}}') > 0

    def wait_unresponsive(self, server: str) -> None:
        """Wait until the gate has noticed."""
        wait_for(lambda: self.in_state(server, "unresponsive"), "it is unresponsive")


class HangingTests(HealthCase):
    """Servers that stop answering."""

    def test_stdio(self) -> None:
        """One that hangs is shown as what it is, then replaced; the session goes on."""
        self.begin(HANGING.format(name="io") + QUICK)
        client = self.client("io")
        pid = int(client.call("pid").text)
        rest(2)
        wait_for(lambda: self.in_state("io", "running"), "it is well")
        self.freeze(pid)
        self.wait_unresponsive("io")
        wait_for(lambda: self.event("health_replaced"), "it is replaced")
        self.assertNotEqual(int(client.call("pid").text), pid)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "it has ended")
        self.assertTrue(self.in_state("io", "running"))
        self.assertIn("nothing was heard of it", self.gate.log_text())

    def test_told(self) -> None:
        """Commands tell of it: its state, and how long ago it was heard of."""
        slow = QUICK.replace("health_timeout", "health_failures = 100\nhealth_timeout")
        self.begin(HANGING.format(name="io") + slow)
        pid = int(self.client("io").call("pid").text)
        self.freeze(pid)
        self.wait_unresponsive("io")
        rest(1)
        (one,) = self.gate.told("ps")
        self.assertEqual(one["state"], "unresponsive")
        self.assertGreater(one["heard_s"], 1.0)
        self.assertIsNotNone(one["uptime_s"])
        (server,) = self.gate.told("status")
        self.assertEqual((server["state"], server["running"]), ("unresponsive", 0))
        self.assertIn("HEARD", self.gate.command("ps").stdout)
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: self.in_state("io", "running"), "it is back")
        self.assertEqual(self.event("health_replaced"), 0)

    def test_call_in_work(self) -> None:
        """One that hangs has a call's time; calls that came later fail with the reason then."""
        self.begin(HANGING.format(name="io") + QUICK + "call_timeout = 25s\n")
        client = self.client("io")
        pid = int(client.call("pid").text)
        self.freeze(pid)
        first = client.begin("pid")
        self.wait_unresponsive("io")
        rest(2)
        self.assertEqual(self.event("health_replaced"), 0)
        error = client.call("pid").error
        self.assertIn(first.answer().error["data"]["reason"], ("backend_timeout", "backend_died"))
        self.assertEqual(error["data"]["reason"], "backend_died")
        self.assertEqual(error["data"]["exitReason"], "unresponsive")
        self.assertNotEqual(int(client.call("pid").text), pid)

    def test_http(self) -> None:
        """A server on HTTP that hangs is replaced, too."""
        self.begin(HTTP.replace("stop_grace = 1s\n", QUICK))
        client = self.client("web")
        pid = int(client.call("pid").text)
        rest(2)
        self.assertEqual(self.event("health_replaced"), 0)
        self.freeze(pid)
        self.wait_unresponsive("web")
        wait_for(lambda: self.event("health_replaced"), "it is replaced")
        self.assertNotEqual(int(client.call("pid").text), pid)

    def test_modern(self) -> None:
        """A modern server is asked in its own era, and replaced when it hangs."""
        self.begin(HANGING.format(name="io") + QUICK + "env.MODERN = 1\nera = modern\n")
        client = Client(self.gate, "io", self.key)

        def pid() -> int:
            fields = {
                "MCP-Protocol-Version": VERSION,
                "Mcp-Method": "tools/call",
                "Mcp-Name": "pid",
            }
            return int(client.post(message("tools/call", name="pid", arguments={}), **fields).text)

        first = pid()
        rest(3)
        self.assertEqual(self.event("health_replaced"), 0)
        self.assertEqual(pid(), first)
        self.freeze(first)
        self.wait_unresponsive("io")
        wait_for(lambda: self.event("health_replaced"), "it is replaced")
        self.assertNotEqual(pid(), first)


class WellTests(HealthCase):
    """Servers that are silent and well."""

    def test_long_call(self) -> None:
        """One that hangs in a call is not touched: neither asleep nor at work."""
        few = "health_failures = 2\ncall_timeout = 60s\n"
        self.begin(HANGING.format(name="io") + QUICK + few)
        client = self.client("io")
        pid = int(client.call("pid").text)
        for tool in ("nap", "burn"):
            before = self.event("health_missed")
            waiting = client.begin(tool, seconds=10)
            self.wait_unresponsive("io")
            self.assertEqual(int(waiting.answer(60).text), pid)
            wait_for(lambda: self.in_state("io", "running"), "it answers again")
            self.assertGreaterEqual(self.event("health_missed") - before, 2)
        self.assertEqual(self.event("health_replaced"), 0)

    def test_abandoned_work(self) -> None:
        """One that works on although its caller was told of the timeout is not touched."""
        self.begin(HANGING.format(name="io") + QUICK + "call_timeout = 3s\n")
        client = self.client("io")
        pid = int(client.call("pid").text)
        self.assertEqual(client.call("burn", seconds=10).error["data"]["reason"], "backend_timeout")
        wait_for(lambda: "result" in client.call("pid").message, "it answers")
        self.assertEqual(int(client.call("pid").text), pid)
        self.assertEqual(self.event("health_replaced"), 0)

    def test_no_ping(self) -> None:
        """One that keeps silent to ping is asked for its tools before anything is done."""
        self.begin(HANGING.format(name="io") + QUICK + "env.NO_PING = 1\n")
        client = self.client("io")
        pid = int(client.call("pid").text)
        wait_for(lambda: self.event("health_missed") >= 3, "several misses")
        self.assertEqual(self.event("health_replaced"), 0)
        self.assertEqual(int(client.call("pid").text), pid)

    def test_being_asked_is_no_use(self) -> None:
        """An idle server is stopped when it would have been, questions or not."""
        self.begin(HANGING.format(name="io") + QUICK + "idle_stop = 2s\n")
        self.client("io").call("pid")
        wait_for(lambda: self.in_state("io", "stopped"), "it is stopped")
        rest(1.5)
        self.assertTrue(self.in_state("io", "stopped"))


class RealServersTests(HealthCase):
    """Servers written with the official SDKs."""

    def test_well(self) -> None:
        """None of them minds being asked often, and none is taken for dead."""
        for part in ("mcp1", "mcp2", "sdk2"):
            real.require(part)
        real.node()
        # Slow to start, all at once on a small machine.
        often = "health_interval = 1s\nhealth_timeout = 1s\nhealth_failures = 10\n"
        self.begin(*(one.entry(name) + often for name, one in YARDSTICKS.items()))
        clients = {name: Client(self.gate, name, self.key) for name in YARDSTICKS}
        for client in clients.values():
            wait_for(lambda c=client: "result" in c.initialize().message, "it answers")  # type: ignore[misc]
            self.assertIn("result", client.request("tools/list").message)
        before = {one["server"]: one["starts"] for one in self.gate.told("ps")}
        rest(8)

        def heard() -> bool:
            return all(one["heard_s"] < 7.0 for one in self.gate.told("ps"))

        wait_for(heard, "they were heard of, and nobody but the gate has asked meanwhile")
        for one in self.gate.told("ps"):
            self.assertEqual(one["starts"], before[one["server"]], one["server"])
        self.assertEqual(self.event("health_replaced"), 0)
        for name, client in clients.items():
            self.assertIn("result", client.request("tools/list").message, name)
            self.assertTrue(self.in_state(name, "running"), name)

    def test_sse(self) -> None:
        """A server of HTTP+SSE that hangs is replaced; the next call opens another stream."""
        self.begin(YARDSTICKS["py1-sse"].entry("old") + QUICK.replace("stop_grace = 300ms\n", ""))
        client = self.client("old")
        self.assertIn("result", client.request("tools/list").message)
        (pid,) = (
            pid
            for pid, command in processes_below(self.gate.directory).items()
            if "yardstick1.py" in command
        )
        self.freeze(pid)
        self.wait_unresponsive("old")
        wait_for(lambda: self.event("health_replaced"), "it is replaced")
        wait_for(lambda: "result" in client.request("tools/list").message, "it answers")


class ElsewhereTests(HealthCase):
    """A server the gate did not start."""

    def test_gone(self) -> None:
        """One that is not there is not shown as running when a call has found that out."""
        port = free_port()
        self.begin(f"[server:far]\nurl = http://127.0.0.1:{port}/mcp\n")
        self.assertIn("error", Client(self.gate, "far", self.key).initialize().message)
        self.assertTrue(self.in_state("far", "unresponsive"))
        self.assertFalse(self.in_state("far", "running"))

    def test_left_alone(self) -> None:
        """One that hangs is left alone until it answers again, and is never ended."""
        port = free_port()
        server = subprocess.Popen([sys.executable, str(SERVERS / "http_mcp.py"), str(port)])
        self.addCleanup(server.wait, 10)
        self.addCleanup(server.kill)
        checks = QUICK.replace("stop_grace = 300ms\n", "call_timeout = 10s\n")
        self.begin(f"[server:far]\nurl = http://127.0.0.1:{port}/mcp\n{checks}")

        def up() -> bool:
            answer = Client(self.gate, "far", self.key).initialize()
            return answer.status == 200 and "result" in answer.message

        wait_for(up, "it answers")
        client = self.client("far")
        self.assertEqual(client.call("count").text, "1")
        self.freeze(server.pid)
        wait_for(lambda: self.event("health_shut"), "it is left alone")
        self.assertTrue(self.in_state("far", "unresponsive"))
        (told,) = self.gate.told("status")
        self.assertEqual(told["state"], "unresponsive")
        error = client.call("count").error
        self.assertEqual(error["data"]["reason"], "backend_unavailable")
        self.assertGreater(error["data"]["retryAfterMs"], 1000)
        os.kill(server.pid, signal.SIGCONT)
        wait_for(lambda: self.in_state("far", "running"), "it is back")
        self.assertEqual(client.call("count").text, "2")
        self.assertEqual(self.event("health_replaced"), 0)
        self.assertIsNone(server.poll())
