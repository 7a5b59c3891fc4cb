"""Servers that do not start, start slowly, or crash all the time."""

from __future__ import annotations

from unittest import TestCase

from tests.functional.gate_process import GATE, HTTP, NO_LIMITS, STDIO, GateProcess, rest, wait_for
from tests.functional.mcp_client import Client, Waiting


class StartTests(TestCase):
    """A gate whose servers have troubles."""

    def begin(self, servers: str) -> GateProcess:
        """Start it."""
        gate = GateProcess(self, GATE + NO_LIMITS + servers)
        self.key = gate.add_key("joe")
        return gate.start()

    def test_no_such_command(self) -> None:
        """A command that is not there is named."""
        gate = self.begin("[server:io]\ncommand = /no/such/program --flag\ntransport = stdio\n")
        answer = Client(gate, "io", self.key).initialize()
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.error["code"], -31001)
        self.assertIn("/no/such/program", str(answer.error))

    def test_crash_at_start(self) -> None:
        """A server that ends at once is quoted, and left alone for longer and longer."""
        gate = self.begin(STDIO + "env.CRASH = 1\n")
        client = Client(gate, "io", self.key)
        answer = client.initialize()
        for _ in range(8):
            self.assertIn("no license", str(answer.error["data"]))
            if answer.status == 503:
                break
            # The process was up, so that the handshake was begun, and then it ended.
            self.assertEqual((answer.status, answer.error["code"]), (502, -31003))
            answer = client.initialize()
        self.assertEqual((answer.status, answer.error["code"]), (503, -31001))
        self.assertGreaterEqual(int(answer.fields["Retry-After"]), 1)
        self.assertEqual(gate.told("ps")[0]["state"], "failed")

    def test_crash_loop(self) -> None:
        """A server that keeps dying is not started for ever; the session stays."""
        gate = self.begin(STDIO)
        client = Client(gate, "io", self.key)
        client.initialize()
        codes = []
        answer = client.call("echo", message="x")
        for _ in range(8):
            answer = client.call("die")
            self.assertEqual(answer.status, 200)
            codes.append(answer.error["code"])
            if answer.error["code"] == -31001:
                break
        self.assertEqual(codes[-1], -31001, codes)
        wait_s = int(answer.fields["Retry-After"])
        self.assertGreaterEqual(wait_s, 1)
        self.assertLess(wait_s, 15)
        rest(wait_s + 0.2)
        self.assertEqual(client.call("echo", message="x").text, "echo: x")

    def test_never_ready(self) -> None:
        """A server that does not come up in its time is ended, and that is said."""
        for server in (STDIO, HTTP):
            extra = "env.START_WHEN = <dir>/never\nstart_timeout = 1s\nstart_wait = 1s\n"
            gate = self.begin(server + extra)
            name = "io" if server is STDIO else "web"
            answer = Client(gate, name, self.key).initialize()
            self.assertIn(answer.status, (503, 504), answer.body)
            self.assertIn(answer.error["code"], (-31001, -31002, -31004))

    def test_slow_start(self) -> None:
        """Who comes while a server starts waits for it, one start for all."""
        gate = self.begin(HTTP + "env.START_WHEN = <dir>/go\n")
        clients = [Client(gate, "web", self.key) for _ in range(3)]
        waiting = [Waiting(client.initialize) for client in clients]
        gate.wait_for_calls(3)
        (gate.directory / "go").touch()
        for call in waiting:
            self.assertEqual(call.answer().status, 200)
        self.assertEqual(len({client.call("pid").text for client in clients}), 1)

    def test_told_to_wait(self) -> None:
        """A caller does not wait for a start longer than it should."""
        gate = self.begin(HTTP + "env.START_WHEN = <dir>/go\nstart_wait = 1s\n")
        client = Client(gate, "web", self.key)
        answer = client.initialize()
        self.assertEqual(answer.error["code"], -31004)
        self.assertGreaterEqual(int(answer.fields["Retry-After"]), 1)
        (gate.directory / "go").touch()
        wait_for(lambda: client.initialize().status == 200, "it has started")

    def test_junk(self) -> None:
        """What a server prints beside messages disturbs nobody."""
        gate = self.begin(STDIO)
        client = Client(gate, "io", self.key)
        client.initialize()
        self.assertEqual(client.call("junk").text, "")
        self.assertEqual(client.call("echo", message="x").text, "echo: x")
