"""Tests of ``mcpgate cleanup``."""

from __future__ import annotations

import json
from pathlib import Path

from mcpgate.cli import make_parser
from mcpgate.service import offline
from mcpgate.service.offline import OfflineError
from mcpgate.telemetry.views import Leftover
from mcpgate.web.pages.control import Tidying
from tests.cli.test_control_client import CommandCase, FakeConnection

NETWORK = {"kind": "network", "name": "n", "why": "w", "server": "", "owner": "", "error": ""}
BOX = {**NETWORK, "kind": "container", "name": "c", "error": "busy"}


class CleanupTests(CommandCase):
    """With a gate and without."""

    def test_table(self) -> None:
        """What was removed is a table; what is left makes it exit code 1."""
        self.assertEqual(self.run_command("cleanup", answer={"found": [NETWORK]}), 0)
        self.assertEqual(
            FakeConnection.asked,
            [
                (
                    "POST",
                    "/cleanup",
                    {"dry_run": False, "stopped": True, "orphans": True, "data": []},
                )
            ],
        )
        self.assertIn("network  -       -      n     w    removed", self.out.getvalue())
        code = self.run_command(
            "cleanup", "--dry-run", "--orphans", answer={"found": [NETWORK, BOX]}
        )
        self.assertEqual(code, 1)
        self.assertIn("would be removed", self.out.getvalue())
        self.assertIn("left: busy", self.out.getvalue())

    def test_forms(self) -> None:
        """Names for shells, JSON for programs, a word when there is nothing."""
        answer = {"found": [NETWORK, BOX]}
        self.run_command("cleanup", "--format", "names", answer=answer)
        self.assertEqual(self.out.getvalue(), "network/n\n")
        self.run_command("cleanup", "--format", "json")
        self.assertEqual(json.loads(self.out.getvalue().partition("\n")[2]), answer["found"])
        self.run_command("cleanup", "--data", "abababab", "shared", answer={"found": []})
        self.assertTrue(self.out.getvalue().endswith("nothing was left\n"))
        asked = {"dry_run": False, "stopped": False, "orphans": False}
        self.assertEqual(FakeConnection.asked[-1][2], {**asked, "data": ["abababab", "shared"]})
        self.run_command("cleanup", "--dry-run", answer={"found": []})
        self.assertTrue(self.out.getvalue().endswith("nothing to remove\n"))
        with self.assertRaises(SystemExit):
            self.run_command("cleanup", "--data", "ab")

    def test_refused(self) -> None:
        """Without a gate the configuration is needed; a gate that fails is not gone around."""
        self.assertEqual(self.run_command("cleanup", answer=FileNotFoundError()), 2)
        self.assertIn("--config is needed", self.err.getvalue())
        self.assertEqual(self.run_command("cleanup", answer=TimeoutError()), 1)

    def without_gate(self, text: str) -> int:
        """Run it with a configuration and no gate."""
        FakeConnection.answer = FileNotFoundError()
        path = Path(self.mktemp())
        path.write_text(text)
        arguments = make_parser().parse_args(["cleanup", "--config", str(path)])
        return int(arguments.run(arguments))

    def test_without_gate(self) -> None:
        """Without a gate it is done directly."""
        asked: list[Tidying] = []

        def clean_up(config: object, tidying: Tidying, environ: object) -> list[Leftover]:
            asked.append(tidying)
            if len(asked) > 1:
                raise OfflineError("the engine is silent")
            return [Leftover(kind="network", name="n", why="w")]

        self.patch(offline, "clean_up", clean_up)
        text = (
            "[gate]\nlisten = tcp:1:interface=127.0.0.1\nstate_dir = /nowhere\n"
            "[auth:keys]\ntype = static\nkeys_file = /nowhere/keys\n"
        )
        self.assertEqual(self.without_gate(text), 0)
        self.assertEqual(asked, [Tidying(stopped=True, orphans=True)])
        self.assertIn("removed", self.out.getvalue())
        self.assertEqual(self.without_gate(text), 1)
        self.assertIn("the engine is silent", self.err.getvalue())
        self.assertEqual(self.without_gate("nonsense"), 2)
