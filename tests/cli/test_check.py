"""Tests of mcpgate.cli.check."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run
from tests.config.writing import BASE


class CheckTests(SynchronousTestCase):
    """``mcpgate check``."""

    def setUp(self) -> None:
        """Write a good file."""
        self.path = Path(self.mktemp())
        self.write(BASE)

    def write(self, text: str) -> None:
        """Write the file."""
        self.path.write_text(text)
        self.path.chmod(0o644)

    def test_good(self) -> None:
        """A good file gives 0, a summary and warnings."""
        code, out, err = run("check", str(self.path))
        self.assertEqual((code, err), (0, ""))
        self.assertIn("is good.", out)
        self.assertIn("Warnings:\n", out)

    def test_good_json(self) -> None:
        """The same for programs."""
        code, out, _ = run("check", str(self.path), "--format", "json")
        found = json.loads(out)
        self.assertEqual((code, found["ok"]), (0, True))
        self.assertTrue(found["warnings"])

    def test_no_warnings(self) -> None:
        """Without warnings there is no heading for them."""
        self.path.with_name("keys").write_text("")
        self.write(BASE.replace("notes --stdio", sys.executable) + "[admin]\nstats = off\n")
        self.assertNotIn("Warnings", run("check", str(self.path))[1])

    def test_bad(self) -> None:
        """A bad file gives 2 and every problem on a line of its own."""
        self.write(BASE + "memory = 5\nnope = 1\n")
        code, out, err = run("check", str(self.path))
        self.assertEqual((code, out), (2, ""))
        first, second = err.splitlines()
        self.assertEqual(
            first,
            f"{self.path}:8: [server:notes] memory = 5: a size needs a unit. Write 5B or 5MiB.",
        )
        self.assertTrue(
            second.startswith(f"{self.path}:9: [server:notes] nope: there is no such key.")
        )

    def test_bad_json(self) -> None:
        """Programs get line, section, key, value, text and remedy of each."""
        self.write(BASE + "memory = 5\n")
        code, out, _ = run("check", str(self.path), "--format", "json")
        found = json.loads(out)
        self.assertEqual((code, found["ok"]), (2, False))
        problem = found["problems"][0]
        self.assertEqual(
            (problem["line"], problem["section"], problem["key"], problem["value"]),
            (8, "server:notes", "memory", "5"),
        )
        self.assertTrue(problem["text"] and problem["remedy"])
