"""Tests of mcpgate.cli.config."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run
from tests.config.writing import BASE


class ConfigTests(SynchronousTestCase):
    """``mcpgate config``; `apply` is tried with a gate, in tests.functional.test_reload."""

    def setUp(self) -> None:
        """Write a configuration."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.gate = directory / "gate.ini"
        self.gate.write_text(BASE)
        self.gate.chmod(0o644)

    def config(self, command: str, *words: str) -> tuple[int, str, str]:
        """Run a command."""
        return run("config", command, "--config", str(self.gate), *words)

    def add(self, name: str) -> None:
        """Change the file by a command, so that a copy is kept."""
        code, _, _ = run("add", name, "--config", str(self.gate), "--", name)
        self.assertEqual(code, 0)

    def test_nothing_kept(self) -> None:
        """Without copies there is nothing to compare with or to go back to."""
        code, _, err = self.config("diff")
        self.assertEqual(code, 1)
        self.assertIn("no copy", err)
        self.assertEqual(self.config("history"), (0, "", ""))
        code, _, err = self.config("rollback")
        self.assertEqual(code, 1)
        self.assertIn("no copy", err)

    def test_diff(self) -> None:
        """What a change means is told, against the newest copy or another file."""
        self.add("one")
        self.add("two")
        code, out, _ = self.config("diff")
        self.assertEqual((code, out.splitlines()[1:]), (0, ["  added: two"]))
        other = self.gate.with_name("gate.ini.1")
        other.chmod(0o644)
        code, out, _ = self.config("diff", str(other), "--text")
        self.assertIn("  added: one, two", out)
        self.assertIn("+[server:two]", out)
        self.gate.write_text("nope")
        self.assertEqual(self.config("diff")[0], 2)

    def test_rollback(self) -> None:
        """The newest copy, or the one of a number, is written back; what was there is kept."""
        self.add("one")
        self.add("two")
        code, out, _ = self.config("history")
        self.assertEqual([line.split()[0] for line in out.splitlines()], ["2", "1"])
        code, out, _ = self.config("rollback", "1", "--dry-run")
        self.assertEqual(code, 0)
        self.assertIn("-[server:two]", out)
        self.assertEqual(self.config("rollback", "1")[0], 0)
        self.assertEqual(self.gate.read_text(), BASE)
        self.assertEqual(self.config("rollback")[0], 0)
        self.assertIn("[server:two]", self.gate.read_text())
        self.assertEqual(self.config("rollback", "9")[0], 1)
        self.gate.with_name("gate.ini.1").write_bytes(b"\xff")
        code, _, err = self.config("rollback", "1")
        self.assertEqual(code, 1)
        self.assertIn("can not be read", err)

    def test_no_gate(self) -> None:
        """Without a gate there is nobody to take it over."""
        code, _, err = self.config("apply", "--state-dir", str(self.gate.parent))
        self.assertEqual(code, 2)
        for words in (("config", "apply"), ("reload",)):
            code, _, err = run(*words, "--state-dir", str(self.gate.parent.absolute()))
            self.assertEqual(code, 3)
            self.assertIn("no gate is running", err)
