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
from bench.lab import parts, store
from bench.lab.figures import Outcome
from bench.lab.lab import GATE
from tests.functional import real
from tests.functional.gate_process import ROOT, processes_below, wait_for

LIMIT_S = 400.0
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
        place = real.root() or self.place
        return subprocess.run(
            [sys.executable, "-m", "bench", "--parts", str(place), *words],
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
        self.assertEqual(len(lines), 2 + 20 + 1 + 7, ran.stdout)
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

    def test_count(self) -> None:
        """Instructions are counted where Valgrind is; elsewhere it is said why not."""
        ran = self.bench("--count", "--smoke", "relay")
        if parts.find("vgdb") is None:
            self.assertEqual(ran.returncode, 1, ran.stdout)
            self.assertIn("valgrind is not installed", ran.stdout)
            return
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertRegex(ran.stdout, r"\n   relay +\d{5,7} for each request")
        self.assertEqual(list(self.place.iterdir()), [])

    def test_compare(self) -> None:
        """Two runs are held against each other; what differs by more than 15 % is named first."""
        files = [self.place / name for name in ("one.json", "other.json")]
        for file, rate in zip(files, (3000.0, 4000.0), strict=True):
            outcome = Outcome("relay")
            outcome.add("32 connections", GATE, rate=rate, cpu_us=150.0)
            outcome.add("32 connections", "nginx", rate=10_000.0, cpu_us=25.0)
            store.merge(file, outcome, ["relay"])
        same = self.bench("--compare", str(files[0]), str(files[0]))
        self.assertEqual((same.returncode, same.stderr), (0, ""))
        apart = self.bench("--compare", *map(str, files))
        self.assertEqual(apart.returncode, 1)
        self.assertIn("1 of 1 differ by more than 15%\n     33.3%", apart.stdout)
        self.assertIn("processor time: 0 of 1", apart.stdout)

    def test_list(self) -> None:
        """The cases are named; another name is refused, and nothing is run."""
        told = self.bench("--list")
        names = [line.split()[0] for line in told.stdout.splitlines()]
        self.assertEqual(names, [case.name for case in CASES])
        refused = self.bench("nonsense")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no case is called nonsense", refused.stderr)
