"""Tests of mcpgate.web.workers.uses."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.web.workers.uses import Uses, make_table


class UsesTests(SynchronousTestCase):
    """One table, seen by the owner and two workers."""

    def setUp(self) -> None:
        """Make the table."""
        descriptor = make_table(3)
        self.addCleanup(os.close, descriptor)
        self.owner, self.one, self.two = (Uses(descriptor, part) for part in range(3))

    def test_use(self) -> None:
        """What workers have in work, and when they used it, is seen by the owner at once."""
        self.owner.grant(7, 1)
        self.assertTrue(self.one.begin(7, 1, 10.0))
        self.assertTrue(self.two.begin(7, 1, 11.0))
        self.assertTrue(self.two.begin(7, 1, 12.0))
        self.assertEqual((self.owner.in_work(7), self.owner.used_s(7)), (3, 12.0))
        self.assertEqual(self.owner.in_work(6), 0)
        self.one.touch(7, 13.0)
        self.two.heard(7, 12.5)
        self.assertEqual((self.owner.used_s(7), self.owner.heard_s(7)), (13.0, 12.5))
        self.one.end(7, 14.0)
        self.assertEqual((self.owner.in_work(7), self.owner.used_s(7)), (2, 14.0))

    def test_withdrawn(self) -> None:
        """Nothing begins under a grant that is withdrawn, or under an older one of its number."""
        self.owner.grant(7, 1)
        self.one.begin(7, 1, 10.0)
        self.owner.withdraw(7)
        self.assertFalse(self.two.begin(7, 1, 11.0))
        self.assertEqual(self.owner.in_work(7), 1)
        self.one.end(7, 12.0)
        self.owner.grant(7, 2)
        self.assertEqual((self.owner.used_s(7), self.owner.heard_s(7)), (0.0, 0.0))
        self.assertFalse(self.two.begin(7, 1, 13.0))
        self.assertTrue(self.two.begin(7, 2, 13.0))
        self.assertEqual(self.owner.in_work(7), 1)

    def test_dead_process(self) -> None:
        """What a process had in work that is no more is not in work any more."""
        self.owner.grant(7, 1)
        for uses in (self.one, self.two):
            uses.begin(7, 1, 10.0)
        self.owner.clear(1)
        self.assertEqual(self.owner.in_work(7), 1)
