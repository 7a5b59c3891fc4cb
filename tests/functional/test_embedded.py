"""The gate inside another Twisted program."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - functional tests run on the real one
from twisted.internet.threads import deferToThread  # noqa: TID251 - the client blocks
from twisted.trial.unittest import TestCase

from mcpgate import make_gateway, read_config
from tests.functional.gate_process import SERVERS
from tests.functional.mcp_client import INITIALIZE

CONFIG = f"""
[gate]
listen = tcp:0:interface=127.0.0.1
state_dir = state
drain_timeout = 1s
[auth:everybody]
type = none
[server:io]
command = {sys.executable} {SERVERS}/stdio_mcp.py
transport = stdio
"""


class EmbeddedTests(TestCase):
    """`make_gateway` on the reactor of the test."""

    def gateway(self, directory: Path) -> Any:
        """Make a gate that listens on a port the system chooses."""
        (directory / "gate.ini").write_text(CONFIG)
        return make_gateway(reactor, read_config(directory / "gate.ini", os.environ))

    def ask(self, port: int) -> tuple[int, dict[str, Any]]:
        """Shake hands."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
        fields = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        connection.request("POST", "/io/mcp", json.dumps(message).encode(), fields)
        response = connection.getresponse()
        try:
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    async def test_start_and_stop(self) -> None:
        """It starts, serves, stops, and leaves nothing behind; twice on one directory."""
        # The path of a socket must be short.
        directory = Path(mkdtemp(prefix="mcpgate-test-"))
        self.addCleanup(shutil.rmtree, directory)
        for _ in range(2):
            gateway = self.gateway(directory)
            await gateway.startService()
            port = gateway.front.bound[0].port
            status, told = await deferToThread(self.ask, port)
            self.assertEqual(status, 200)
            self.assertEqual(told["result"]["serverInfo"]["name"], "fake-stdio")
            await gateway.stopService()
        self.assertEqual(list((directory / "state" / "run").iterdir()), [])
