"""Crowds of modern clients on legacy servers through a gate: nothing crosses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, NO_LIMITS, GateProcess

CROWD = Path(__file__).parent / "clients" / "crowd2.py"
CROWD_S = 120.0

SERVERS = """
[server:everybodys]
command = {python} <servers>/crossing1.py
isolation = shared
memory = 512MiB
stop_grace = 1s

[server:everybodysweb]
command = {python} <servers>/crossing1.py {{port}}
transport = http
isolation = shared
memory = 512MiB
stop_grace = 1s

[server:own]
command = {python} <servers>/crossing1.py
memory = 512MiB
stop_grace = 1s

[server:ownweb]
command = {python} <servers>/crossing1.py {{port}}
transport = http
memory = 512MiB
stop_grace = 1s
"""


class CrossingTests(TestCase):
    """Clients of two users at once."""

    def setUp(self) -> None:
        """Start a gate with servers everybody shares, and servers of one key each."""
        python = real.python("mcp1")
        real.require("mcp2")
        self.gate = GateProcess(self, GATE + NO_LIMITS + SERVERS.format(python=python))
        self.keys = self.gate.add_keys(2)
        self.gate.start()

    def crowd(self, *servers: str, ask: bool, calls: int = 30) -> dict[str, int]:
        """Let three clients of each key loose on each server; tell what they did."""
        task = {
            "urls": [f"http://127.0.0.1:{self.gate.plain_port}/{name}/mcp" for name in servers],
            "keys": self.keys,
            "calls": calls,
            "ask": ask,
        }
        ran = subprocess.run(
            [real.python("mcp2"), str(CROWD), json.dumps(task)],
            capture_output=True,
            timeout=CROWD_S,
            check=False,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr.decode()[-3000:])
        told: dict[str, Any] = json.loads(ran.stdout)
        self.assertEqual(told["crossed"], [])
        done: dict[str, int] = told["done"]
        self.assertEqual(done["2026-07-28"], 6 * len(servers))
        return done

    def test_shared(self) -> None:
        """On one process for all nobody hears another's answer, progress or log line."""
        done = self.crowd("everybodys", "everybodysweb", ask=False)
        self.assertGreater(done["tell"], 200)
        self.assertGreater(done["progress"], 200)
        self.assertGreater(done["cancelled"], 0)

    def test_own(self) -> None:
        """On servers of their own they are also asked, each for its own word."""
        done = self.crowd("ownweb", ask=True)
        self.assertGreater(done["ask"], 30)
        self.assertEqual(done["question"] >= done["ask"], True)
        done = self.crowd("own", ask=False)
        self.assertGreater(done["tell"], 100)
