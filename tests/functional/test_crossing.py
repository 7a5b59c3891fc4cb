"""Strangers on one shared server never hear each other (R72)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import TestCase

from tests.functional.gate_process import GATE, NO_LIMITS, GateProcess

# The whole measure is 100000; that takes minutes.
CALLS = int(os.environ.get("MCPGATE_CROSSING_CALLS", "10000"))
CROSSING = Path(__file__).parent / "crossing.py"

SHARED = """
[server:marking]
command = <python> <servers>/marking_stdio.py
isolation = shared
max_calls = 1000
memory = 1GiB
stop_grace = 1s
"""


class CrossingTests(TestCase):
    """Fifty clients with the same ids, over both legacy transports."""

    def test_crossing(self) -> None:
        """
        No answer, progress or log line reaches another, whoever cancels and leaves.

        Nor does any reach its own client but in the session of its call, and late only where that
        was given up.
        """
        roomy = GATE.replace("[gate]", "[gate]\nmax_connections_per_address = 1000")
        gate = GateProcess(self, roomy + NO_LIMITS + SHARED)
        keys = gate.directory / "crossing.keys"
        keys.write_text("\n".join(gate.add_keys(50)))
        gate.start()
        arguments = [str(gate.plain_port), "marking", str(keys), str(CALLS), "1"]
        ran = subprocess.run(
            [sys.executable, str(CROSSING), *arguments],
            capture_output=True,
            check=False,
            text=True,
            timeout=60 + CALLS / 50,
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        told = json.loads(ran.stdout)
        if CALLS >= 100_000:
            print(ran.stdout)  # noqa: T201 - the whole measure is run by hand, to be read
        self.assertEqual((told["wrong"], told["calls"]), (0, CALLS))
        self.assertGreater(min(told["answered"], told["cancelled"], told["left"]), CALLS // 100)
        self.assertGreaterEqual(told["messages"], told["answered"])
