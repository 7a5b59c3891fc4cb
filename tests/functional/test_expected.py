"""Files of expected failures may only shrink."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.expected import check


class ExpectedTests(SynchronousTestCase):
    """A file that expects two failures of one run."""

    def setUp(self) -> None:
        """Write the file."""
        self.path = Path(self.mktemp())
        self.path.write_text(json.dumps({"run": {"calls": ["slow", "wrong"]}}))

    def test_same(self) -> None:
        """What fails as expected passes."""
        check(self, self.path, "run", {"calls": ["wrong", "slow"], "lists": []})

    def test_more(self) -> None:
        """Another failure fails, in that run or in another."""
        failures = {"calls": ["slow", "wrong", "lost"]}
        self.assertRaises(AssertionError, check, self, self.path, "run", failures)
        failures = {"calls": ["slow"]}
        self.assertRaises(AssertionError, check, self, self.path, "other run", failures)

    def test_less(self) -> None:
        """An entry that does not fail any more fails too."""
        with mock.patch.dict(os.environ, {"MCPGATE_SHRINK_EXPECTED": ""}):
            failures = {"calls": ["slow"]}
            self.assertRaises(AssertionError, check, self, self.path, "run", failures)

    def test_shrink(self) -> None:
        """When it is told to, the file forgets such entries, and takes up none."""
        with mock.patch.dict(os.environ, {"MCPGATE_SHRINK_EXPECTED": "1"}):
            check(self, self.path, "run", {"calls": ["slow"]})
            self.assertEqual(json.loads(self.path.read_text()), {"run": {"calls": ["slow"]}})
            failures = {"calls": ["slow", "lost"]}
            self.assertRaises(AssertionError, check, self, self.path, "run", failures)
            check(self, self.path, "run", {})
        self.assertEqual(json.loads(self.path.read_text()), {})
