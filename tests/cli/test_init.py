"""Tests of mcpgate.cli: the command itself."""

from __future__ import annotations

from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli import COMMANDS, make_parser, version
from tests.cli.commands import run


class MainTests(SynchronousTestCase):
    """The command."""

    def test_usage(self) -> None:
        """Wrong usage gives 2 and says how; help names every subcommand."""
        self.assertEqual(run()[0], 2)
        self.assertEqual(run("nope")[0], 2)
        self.assertEqual(run("version", "--", "x")[0], 2)
        code, out, _ = run("--help")
        self.assertEqual(code, 0)
        for name in COMMANDS:
            self.assertIn(
                {"importing": "import", "servers": "show", "testing": "test"}.get(name, name), out
            )
        self.assertEqual(make_parser().prog, "mcpgate")

    def test_reader_goes_away(self) -> None:
        """A closed pipe or an interrupt ends the command without a traceback."""
        for error, code in ((BrokenPipeError(), 141), (KeyboardInterrupt(), 130)):
            with patch.object(version, "version", side_effect=error):
                self.assertEqual(run("version"), (code, "", ""))
