"""Tests of mcpgate.config.reference."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.reference import as_rows, as_rst
from mcpgate.config.schema import every_key

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.rst"


class ReferenceTests(SynchronousTestCase):
    """The reference page."""

    def test_is_current(self) -> None:
        """The committed page is what the schema makes (python -m mcpgate.config.reference)."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), as_rst())

    def test_holds_everything(self) -> None:
        """Every key stands there with kind, default and effect."""
        page = as_rst()
        for _, key in every_key():
            self.assertIn(f"``{key.name}``\n    {key.effect}", page)
        self.assertEqual(page.count(":Default:"), len(as_rows()))
        self.assertEqual(page.count(":Kind:"), len(as_rows()))

    def test_labels_are_unique(self) -> None:
        """Other pages can point at each key."""
        labels = [line for line in as_rst().splitlines() if line.startswith(".. _")]
        self.assertEqual(len(set(labels)), len(as_rows()))
