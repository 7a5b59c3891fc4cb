"""Tests of mcpgate.cli.version."""

from __future__ import annotations

import json
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mcpgate._version import __version__
from mcpgate.cli import version
from tests.cli.commands import run


class VersionTests(SynchronousTestCase):
    """``mcpgate version``."""

    def test_text(self) -> None:
        """The version comes first."""
        code, out, _ = run("version")
        self.assertEqual((code, out.splitlines()[0]), (0, f"mcpgate {__version__}"))

    def test_option(self) -> None:
        """The usual option tells the version alone."""
        self.assertEqual(run("--version")[:2], (0, f"mcpgate {__version__}\n"))

    def test_json(self) -> None:
        """Programs get JSON; a part that is not there is told."""
        with patch.object(version, "_SHOWN", ("Twisted", "no-such-package-here")):
            found = json.loads(run("version", "--format", "json")[1])
        self.assertEqual(found["mcpgate"], __version__)
        self.assertEqual(found["no-such-package-here"], "not installed")
