"""Connections that break within a call, and arrays of messages, over real sockets."""

from __future__ import annotations

import http.client
import json
from typing import Any
from unittest import TestCase

from tests.functional.gate_process import GATE, HTTP, NO_LIMITS, STDIO, GateProcess
from tests.functional.mcp_client import INITIALIZE, Client, events
from tests.functional.yardsticks import YARDSTICKS

CALL = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "tools/call",
    "params": {
        "name": "slow",
        "arguments": {"seconds": 2},
        "_meta": {"progressToken": "t"},
    },
}


def read_event(response: http.client.HTTPResponse) -> tuple[str, Any]:
    """Read one event that has an id: that and its data."""
    found, data = "", ""
    while line := response.readline().decode().rstrip("\r\n") or not found:
        if isinstance(line, str) and line.startswith("id: "):
            found = line[4:]
        elif isinstance(line, str) and line.startswith("data:"):
            data = line[5:].strip()
    return found, json.loads(data) if data else None


def after(event_id: str) -> dict[str, Any]:
    """Make the field that asks for what follows an event."""
    return {"Last-Event-ID": event_id}


class ResumptionTests(TestCase):
    """A gate with a stdio and an HTTP server."""

    def begin(self) -> GateProcess:
        """Start the gate, with two keys."""
        gate = GateProcess(self, GATE + NO_LIMITS + STDIO + HTTP)
        self.keys = [gate.add_key(name) for name in ("ann", "ben")]
        return gate.start()

    def open(
        self, gate: GateProcess, server: str, key: int = 0, version: str = "2025-11-25"
    ) -> Client:
        """Open a session."""
        client = Client(gate, server, self.keys[key])
        self.assertEqual(client.initialize(protocolVersion=version).status, 200)
        return client

    def cut(self, gate: GateProcess, client: Client) -> str:
        """Call, hear of progress once, and cut the connection; gives the last id."""
        connection = gate.connection()
        connection.request("POST", client.path, json.dumps(CALL).encode(), client.fields())
        response = connection.getresponse()
        primed, nothing = read_event(response)
        self.assertIsNone(nothing)
        last, progress = read_event(response)
        self.assertEqual(progress["params"]["progress"], 1)
        self.assertNotEqual(primed, last)
        response.close()
        connection.close()
        return last

    def test_a_connection_that_breaks(self) -> None:
        """The call goes on; its client hears the rest, and nobody else does."""
        gate = self.begin()
        client = self.open(gate, "io")
        last = self.cut(gate, client)
        thief = self.open(gate, "io", 1)
        for stolen in (thief, self.open(gate, "io")):
            self.assertEqual(stolen.ask("GET", **after(last)).status, 405)
        rest = client.ask("GET", **after(last)).messages
        self.assertEqual([m["params"]["progress"] for m in rest[:-1]], [2, 3, 4, 5])
        self.assertEqual(rest[-1]["result"]["content"][0]["text"], "slow done")
        # Some clients ask again for every answer they had; nothing comes of it.
        again = client.ask("GET", **after(last)).messages
        self.assertEqual(again[-1]["id"], 7)
        self.assertEqual(client.call("count").text, "2")

    def test_ids_of_an_earlier_life(self) -> None:
        """Replay nothing, and the session goes on."""
        gate = self.begin()
        client = self.open(gate, "io")
        last = self.cut(gate, client)
        gate.kill()
        gate.start()
        self.assertEqual(client.ask("GET", **after(last)).status, 405)
        self.assertEqual(client.call("echo", message="x").text, "echo: x")

    def test_batches(self) -> None:
        """An array is answered as one in revision 2025-03-26, and refused in others."""
        gate = self.begin()
        calls = [
            {
                "jsonrpc": "2.0",
                "id": number,
                "method": "tools/call",
                "params": {"name": "echo", "arguments": {"message": str(number)}},
            }
            for number in (1, 2)
        ]
        batch = [calls[0], {"jsonrpc": "2.0", "method": "notifications/x"}, calls[1]]
        for server in ("io", "web"):
            client = self.open(gate, server, version="2025-03-26")
            answer = client.post(batch)
            told = {m["id"]: m["result"]["content"][0]["text"] for m in _all(answer.body)}
            self.assertEqual(told, {1: "echo: 1", 2: "echo: 2"}, server)
            self.assertEqual(client.post([batch[1]]).status, 202)
            other = self.open(gate, server, version="2025-06-18").post(batch)
            self.assertEqual((other.status, json.loads(other.body)["error"]["code"]), (400, -32600))

    def test_a_server_that_ends_its_streams(self) -> None:
        """A real server wants to be asked for the rest; the gate does for clients that can not."""
        gate = GateProcess(self, GATE + NO_LIMITS + YARDSTICKS["py1"].entry("py1"))
        self.keys = [gate.add_key("ann")]
        gate.start()
        call = {"name": "test_reconnection", "arguments": {}}
        text = "answered after the stream was closed"

        plain = self.open(gate, "py1")
        told = plain.post(
            {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call},
            Accept="application/json",
        )
        self.assertEqual((told.message["id"], told.text), (7, text))

        modern = Client(gate, "py1", self.keys[0])
        name = "io.modelcontextprotocol/"
        meta = {
            f"{name}protocolVersion": "2026-07-28",
            f"{name}clientInfo": {"name": "test", "version": "1"},
            f"{name}clientCapabilities": {},
        }
        fields = {
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "test_reconnection",
        }
        message = {"jsonrpc": "2.0", "id": 8, "method": "tools/call"}
        told = modern.post({**message, "params": {**call, "_meta": meta}}, **fields)
        self.assertEqual((told.message["id"], told.text), (8, text), told.body)

        old = Client(gate, "py1", self.keys[0])
        old.path = "/py1/sse"
        with old.listen(Accept="text/event-stream") as stream:
            while not (line := stream.readline()).startswith(b"data:"):
                self.assertNotEqual(line, b"")
            old.path = line.decode().partition(":")[2].strip()
            heard = events(stream)
            # The client of the TypeScript SDK asks for its newest revision over HTTP+SSE too.
            old.request("initialize", {**INITIALIZE, "protocolVersion": "2025-11-25"})
            self.assertEqual(next(heard)["result"]["protocolVersion"], "2025-11-25")
            old.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
            old.request("tools/call", call, id=9)
            answer = next(heard)
            self.assertEqual((answer["id"], answer["result"]["content"][0]["text"]), (9, text))


def _all(body: bytes) -> list[dict[str, Any]]:
    """Read the messages of an array or of an event stream."""
    if body.startswith(b"["):
        return list(json.loads(body))
    lines = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    found = [json.loads(line) for line in lines if line.strip()]
    return [each for one in found for each in (one if isinstance(one, list) else [one])]
