"""Tests that drawings made from code are those of this code."""

from __future__ import annotations

import runpy

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import DOCS


class InstanceDiagramTests(SynchronousTestCase):
    """``docs/explanation/instance_life.rst`` and the machine."""

    def test_the_drawing_is_current(self) -> None:
        """The page about an instance's life shows the machine as it is."""
        made = runpy.run_path(str(DOCS / "make_diagrams.py"))
        shown = (DOCS / "explanation" / "instance_life.rst").read_text(encoding="utf-8")
        self.assertEqual(made["page"](), shown, "Run: python docs/make_diagrams.py")
