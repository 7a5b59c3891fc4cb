"""Several real servers at one address, for clients of every kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, NO_LIMITS, STDIO, GateProcess, rest, wait_for
from tests.functional.mcp_client import Client

CLIENT = Path(__file__).parent / "clients" / "together.py"
EVERYTHING = "@modelcontextprotocol/server-everything/dist/index.js"


def servers() -> str:
    """Write the entries of servers of other people, and of one that does not run."""
    node, script = real.node(), real.package("everything") / EVERYTHING
    return f"""
[server:time]
command = {real.python("servers")} -m mcp_server_time
[server:everything]
command = {node} {script} stdio
[server:broken]
command = /bin/false
[group:some]
servers = io time
alias = s
deny = io__die
rename.time__get_current_time = now
page_size = 3
"""


class TogetherTests(TestCase):
    """A gate with servers of three makers."""

    def setUp(self) -> None:
        """Start it."""
        real.require("mcp1", "mcp2", "servers", "everything")
        text = GATE.replace("[auth:keys]", "allowed_hosts = *\n[auth:keys]", 1)
        self.gate = GateProcess(self, text + NO_LIMITS + STDIO + servers())
        self.key = self.gate.add_key("ann")
        self.gate.start()

    def client(self, part: str, path: str, mode: str = "") -> dict[str, Any]:
        """Have a client of an official SDK do its round; give what it saw."""
        ran = subprocess.run(
            [real.python(part), str(CLIENT)],
            input=json.dumps(
                {
                    "url": f"http://127.0.0.1:{self.gate.plain_port}{path}",
                    "key": self.key,
                    "mode": mode,
                }
            ),
            capture_output=True,
            check=False,
            text=True,
            timeout=90,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr[-2000:])
        told: dict[str, Any] = json.loads(ran.stdout)
        return told

    def check(self, seen: dict[str, Any]) -> None:
        """See that a client saw everything."""
        names = seen["tools"]
        for name in ("io__echo", "time__get_current_time", "everything__echo"):
            self.assertIn(name, names)
        self.assertFalse([name for name in names if name.startswith("broken")])
        self.assertEqual(len(names), len(set(names)))
        self.assertIn("echo: one", seen["io"])
        self.assertIn("Europe/Prague", seen["time"])
        self.assertIn("Echo: two", seen["everything"])
        self.assertTrue(seen["resource"].startswith("everything+"))
        self.assertIn("everything__simple-prompt", seen["prompts"])
        self.assertIn("nope", seen["unknown"])

    def test_every_client(self) -> None:
        """Clients of each era and transport see and use the tools of every server."""
        self.check(self.client("mcp1", "/mcp"))
        self.check(self.client("mcp1", "/sse"))
        self.check(self.client("mcp2", "/mcp", "legacy"))
        self.check(self.client("mcp2", "/mcp", "2026-07-28"))

    def test_group(self) -> None:
        """A group shows what it names, under the names it gives, in pages."""
        client = Client(self.gate, "some", self.key)
        client.initialize()
        names: list[str] = []
        cursor: dict[str, str] = {}
        pages = 0
        while True:
            told = client.request("tools/list", cursor).message["result"]
            names += [tool["name"] for tool in told["tools"]]
            pages += 1
            if "nextCursor" not in told:
                break
            cursor = {"cursor": told["nextCursor"]}
        self.assertGreater(pages, 3)
        self.assertIn("now", names)
        self.assertIn("io__echo", names)
        self.assertNotIn("io__die", names)
        said = client.call("now", timezone="Asia/Tokyo").message["result"]
        self.assertIn("Asia/Tokyo", said["content"][0]["text"])
        refused = client.call("io__die").message
        self.assertIn("Unknown tool", json.dumps(refused))

    def test_one_is_killed(self) -> None:
        """One server killed again and again disturbs no call to the others."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        together = Client(self.gate, "some", self.key)
        together.initialize()
        for turn in range(5):
            told = client.call("pid").message
            if "result" in told:  # else it is left alone for a while: it died too often
                os.kill(int(told["result"]["content"][0]["text"]), signal.SIGKILL)
            said = together.call("now", timezone="UTC").message
            self.assertIn("UTC", said["result"]["content"][0]["text"], turn)
            rest(0.05)
        wait_for(
            lambda: "echo: back" in json.dumps(together.call("io__echo", message="back").message),
            "the server is back",
            40,
        )
