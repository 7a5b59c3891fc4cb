"""Tests of mcpgate.cli.reference."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run


class ReferenceTests(SynchronousTestCase):
    """``mcpgate reference``."""

    def test_forms(self) -> None:
        """The page and the table are printed."""
        self.assertIn("[server:NAME]", run("reference")[1])
        rows = json.loads(run("reference", "--format", "json")[1])
        self.assertIn(("gate", "listen"), [(row["section"], row["key"]) for row in rows])
        self.assertIn(
            "mcpServers", json.loads(run("reference", "--format", "schema")[1])["properties"]
        )
