"""Tests of mcpgate.cli.health."""

from __future__ import annotations

from mcpgate.cli.health import main
from tests.cli.test_control_client import CommandCase


class HealthTests(CommandCase):
    """``mcpgate health``, with and without the other commands."""

    def test_answers(self) -> None:
        """A gate that answers is well."""
        told = {"pid": 7, "version": "1", "uptime_s": 12.3}
        self.assertEqual(self.run_command("health", answer=told), 0)
        self.assertEqual(self.out.getvalue(), "pid 7 answers, up for 12 s\n")
        self.assertEqual(main(["--state-dir", "/x"]), 0)

    def test_does_not(self) -> None:
        """One that is silent is not, and none is another matter."""
        self.assertEqual(self.run_command("health", answer=TimeoutError()), 1)
        self.assertEqual(self.run_command("health", answer=FileNotFoundError()), 3)
