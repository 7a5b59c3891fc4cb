"""Paths of a server beside MCP: bytes both ways, WebSockets, redirects, and who may ask."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import subprocess
from typing import Any
from unittest import TestCase, skipUnless

from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    STDIO,
    GateProcess,
    free_port,
    rest,
)
from tests.functional.websocket import check_echo

CURL = shutil.which("curl")


class RelayedTests(TestCase):
    """A gate with an HTTP server that has more to offer than MCP."""

    def setUp(self) -> None:
        """Start it."""
        self.redirect = free_port()
        listen = f"    redirect:tcp:{self.redirect}:interface=127.0.0.1\nstate_dir"
        text = GATE.replace("state_dir", listen, 1) + NO_LIMITS + STDIO + HTTP
        self.gate = GateProcess(self, text)
        self.key = self.gate.add_key("joe")
        self.gate.start()

    def test_upload(self) -> None:
        """A body arrives as it was sent, and the key does not arrive at all."""
        body = os.urandom(300_000)
        answer = self.gate.ask("POST", "/web/up?x=%20y", body, X_API_Key=self.key)
        told = json.loads(answer.body)
        self.assertEqual(told["sha256"], hashlib.sha256(body).hexdigest())
        self.assertEqual(told["path"], "/up?x=%20y")
        self.assertNotIn("x-api-key", told["fields"])
        self.assertNotIn(self.key, answer.body.decode())

    def test_events(self) -> None:
        """Events reach the client as they come."""
        connection = self.gate.connection()
        connection.request("GET", "/web/events/20", headers={"X-API-Key": self.key})
        response = connection.getresponse()
        told = response.read().decode()
        self.assertEqual(told.count("data:"), 20)
        connection.close()

    def test_websocket(self) -> None:
        """A WebSocket through the gate echoes, and closes when the client does."""
        check_echo(self, self.gate.socket(), self.key)

    @skipUnless(CURL, "curl is not installed")
    def test_two_commands(self) -> None:
        """Two curl commands that know nothing of sessions both succeed."""
        initialize = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "curl", "version": "1"},
        }
        call = {"name": "echo", "arguments": {"message": "hello"}}
        for server in ("io", "web"):
            told: dict[str, Any] = {}
            for method, params in (("initialize", initialize), ("tools/call", call)):
                message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                told = self.curl(server, json.dumps(message))
            self.assertEqual(told["result"]["content"][0]["text"], "echo: hello")

    def curl(self, server: str, body: str) -> dict[str, Any]:
        """Run curl as a person would."""
        assert CURL is not None
        ran = subprocess.run(
            [
                *(CURL, "--silent", "--show-error", "--cacert", str(self.gate.certificate)),
                *("--header", f"Authorization: Bearer {self.key}"),
                *("--header", "Content-Type: application/json"),
                *("--header", "Accept: application/json, text/event-stream"),
                *("--data", body, f"https://127.0.0.1:{self.gate.port}/{server}/mcp"),
            ],
            capture_output=True,
            check=True,
            timeout=30,
        )
        return dict(json.loads(ran.stdout))

    def test_redirect(self) -> None:
        """The plain port only points to HTTPS, for hosts that are ours."""
        for host, status in (("127.0.0.1", 301), ("evil.example", 421)):
            connection = http.client.HTTPConnection("127.0.0.1", self.redirect, timeout=10)
            connection.request("GET", "/io/mcp?x=1", headers={"Host": host})
            response = connection.getresponse()
            response.read()
            self.assertEqual(response.status, status)
            if status == 301:
                there = f"https://127.0.0.1:{self.gate.port}/io/mcp?x=1"
                self.assertEqual(response.headers["Location"], there)
            connection.close()

    def test_foreign_pages(self) -> None:
        """Foreign origins and hosts are refused before any key is looked at."""
        key = {"X_API_Key": self.key}
        self.assertEqual(self.gate.get("/web/x", Origin="https://evil.example", **key).status, 403)
        self.assertEqual(self.gate.get("/web/x", Host="evil.example", **key).status, 421)
        own = f"https://127.0.0.1:{self.gate.port}"
        self.assertEqual(self.gate.get("/web/x", Origin=own, **key).status, 200)

    def test_unknown_paths(self) -> None:
        """Without a key nothing tells which servers there are."""
        self.assertEqual(self.gate.get("/nothing/here").status, 404)
        self.assertEqual(self.gate.get("/web/x").status, 401)
        self.assertIn("Bearer", self.gate.get("/web/x").fields["WWW-Authenticate"])

    def test_client_hangs_up(self) -> None:
        """A client that leaves in the middle of a download leaves nothing behind."""
        connection = self.gate.connection()
        connection.request("GET", "/web/download/50000000", headers={"X-API-Key": self.key})
        response = connection.getresponse()
        response.read(100_000)
        response.close()
        connection.close()
        rest(0.3)
        self.assertEqual(self.gate.get("/web/x", X_API_Key=self.key).status, 200)
