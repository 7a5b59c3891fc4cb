"""Every case of ``bench`` works, and leaves nothing behind.  Figures are not looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import TestCase

from bench.cases.every import CASES
from bench.lab.lab import GATE
from tests.functional import real
from tests.functional.gate_process import ROOT, processes_below, wait_for

LIMIT_S = 180.0
# A smoke run starts no container engine; workers need a second core.
NOT_HERE = {"containers", "workers"}


class SmokeTests(TestCase):
    """``python -m bench --smoke``, with the contenders this machine happens to have."""

    def setUp(self) -> None:
        """Make a place that everything runs in."""
        self.place = Path(tempfile.mkdtemp(prefix="mcpgate-test-bench-"))
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)

    def bench(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it; nothing of it is traced."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        parts = real.root() or self.place
        return subprocess.run(
            [sys.executable, "-m", "bench", "--parts", str(parts), *words],
            cwd=ROOT,
            env={**kept, "TMPDIR": str(self.place)},
            capture_output=True,
            check=False,
            text=True,
            timeout=LIMIT_S,
        )

    def test_scale(self) -> None:
        """``python -m bench.scale`` measures each work and each step, however few there are."""
        ran = subprocess.run(
            [sys.executable, "-m", "bench.scale", "--sessions", "300", "--servers", "5"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.place)},
            capture_output=True,
            check=False,
            text=True,
            timeout=LIMIT_S,
        )
        self.assertIn(ran.returncode, (0, 1), ran.stderr)
        self.assertEqual(ran.stderr, "")
        lines = ran.stdout.splitlines()
        self.assertEqual(len(lines), 2 + 20 + 1 + 5, ran.stdout)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_every_case(self) -> None:
        """Each gives figures of the gate, or says why there can be none here."""
        file = self.place / "results.json"
        ran = self.bench("--smoke", "--json", str(file))
        self.assertEqual(ran.returncode, 0, ran.stdout[-4000:] + ran.stderr[-2000:])
        cases: dict[str, Any] = json.loads(file.read_text())["cases"]
        self.assertEqual(list(cases), [case.name for case in CASES])
        for name, told in cases.items():
            rows = told["rows"]
            ours = [r for r in rows if name == "turns" or r["contender"].startswith(GATE)]
            if told["skipped"]:
                self.assertIn(name, NOT_HERE, told["skipped"])
                continue
            self.assertTrue(ours, name)
            for row in ours:
                self.assertTrue(row["figures"] and not row["reason"], (name, row))
            for row in told["rows"]:
                self.assertTrue(row["figures"] or row["reason"], (name, row))
        wait_for(lambda: not processes_below(self.place), "nothing is left running")
        self.assertEqual(os.listdir(self.place), [file.name])

    def test_list(self) -> None:
        """The cases are named; another name is refused, and nothing is run."""
        told = self.bench("--list")
        names = [line.split()[0] for line in told.stdout.splitlines()]
        self.assertEqual(names, [case.name for case in CASES])
        refused = self.bench("nonsense")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no case is called nonsense", refused.stderr)
