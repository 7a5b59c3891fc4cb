"""Legacy sessions on a real server of the modern era: what restarts, switches and processes do."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.conformance import OPEN_GATE
from tests.functional.gate_process import GateProcess, processes_below, wait_for
from tests.functional.mcp_client import Client, Waiting, events
from tests.functional.yardsticks import YARDSTICKS, running

LATEST = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}}
WATCHED = "test://watched-resource"


class BridgedSessionTests(TestCase):
    """A session that outlives the gate and its server."""

    def setUp(self) -> None:
        """Find the parts."""
        real.require("mcp1", "mcp2")

    def goes_on(self, gate: GateProcess, client: Client) -> None:
        """Use all that a session has: its log level, its subscription, questions of the server."""
        with client.listen() as stream:
            logged = client.call("test_logging_tool")
            self.assertEqual(logged.text, "logged")
            self.assertEqual([m["method"] for m in logged.messages[:-1]], ["notifications/message"])
            told = events(stream)
            client.call("test_touch")

            def updated() -> Any:
                # After a gap lists may be said to have changed, too.
                method = "notifications/resources/updated"
                return next(one for one in told if one["method"] == method)

            seen: Any = Waiting(updated).answer()
            self.assertEqual(seen["params"]["uri"], WATCHED)

    def shakes(self, gate: GateProcess) -> Client:
        """Begin a session, with a level and a subscription."""
        client = Client(gate, "sut", "any")
        answer = client.initialize(**LATEST)
        self.assertEqual(answer.message["result"]["serverInfo"]["name"], "yardstick2")
        for method, params in (
            ("logging/setLevel", {"level": "info"}),
            ("resources/subscribe", {"uri": WATCHED}),
        ):
            self.assertEqual(client.request(method, params).message["result"], {})
        return client

    def eras(self, gate: GateProcess) -> list[dict[str, Any]]:
        """Read what was found out."""
        path = gate.directory / "state" / "eras.json"
        wait_for(path.exists, "the file of eras")
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found

    def test_http(self) -> None:
        """The gate is restarted; the session needs no handshake, the server is known."""
        server = YARDSTICKS["py2-modern"]
        with running(server) as port:
            gate = GateProcess(self, OPEN_GATE + server.entry("sut", port)).start()
            client = self.shakes(gate)
            self.goes_on(gate, client)
            (found,) = self.eras(gate)
            self.assertEqual((found["legacy"], found["modern"]), (False, True))
            gate.stop()
            gate.start()
            self.goes_on(gate, client)
            self.assertEqual(client.ask("DELETE").status, 200)
            self.assertEqual(client.call("test_touch").status, 404)

    def test_stdio(self) -> None:
        """Gate and server are restarted; a process of the right era is started at once."""
        server = YARDSTICKS["py2-modern-stdio"]
        gate = GateProcess(self, OPEN_GATE + server.entry("sut")).start()
        client = self.shakes(gate)
        self.goes_on(gate, client)
        for pid in processes_below(gate.directory / "state"):
            os.kill(pid, signal.SIGKILL)
        # What may be asked twice is asked again of another process.
        self.assertIn("tools", client.request("tools/list").message["result"])
        self.goes_on(gate, client)
        gate.stop()
        gate.start()
        self.goes_on(gate, client)

    def test_server_changes(self) -> None:
        """A server that comes back in the other era keeps its sessions, there and back."""
        legacy, modern = YARDSTICKS["py1"], YARDSTICKS["py2-modern"]
        with running(legacy) as port:
            gate = GateProcess(self, OPEN_GATE + legacy.entry("sut", port)).start()
            client = Client(gate, "sut", "any")
            client.initialize(**LATEST)
            self.assertEqual(client.call("test_simple_text").status, 200)
        with running(modern, port):
            answer = client.call("test_logging_tool")
            self.assertEqual(answer.text, "logged")
        with running(legacy, port):
            # The first call tells that the server is another one; soon after it is known.
            client.call("test_simple_text")

            def served() -> bool:
                return "result" in client.call("test_simple_text").message

            wait_for(served, "the session goes on in the legacy era")
