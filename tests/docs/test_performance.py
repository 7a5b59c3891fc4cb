"""Tests that the page of figures is the one made of the figures beside it."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from bench import page
from bench.cases.every import CASES


class PerformancePageTests(SynchronousTestCase):
    """``docs/reference/performance.rst``."""

    def test_current(self) -> None:
        """Nobody wrote it by hand: ``python -m bench --docs`` makes it again."""
        told = json.loads(page.FIGURES.read_text(encoding="utf-8"))
        self.assertEqual(page.PAGE.read_text(encoding="utf-8"), page.render(told))

    def test_complete(self) -> None:
        """Every case stands in it, with figures or with the reason there are none."""
        told = json.loads(page.FIGURES.read_text(encoding="utf-8"))
        self.assertEqual(list(told["cases"]), [case.name for case in CASES])
        for case in told["cases"].values():
            self.assertTrue(case["rows"] or case["skipped"])
            self.assertFalse(case["about"]["smoke"])
