"""Tests of mcpgate.web.workers.places."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.web.workers.places import SharedPlaces, make_table


class PlacesTests(SynchronousTestCase):
    """One table, seen by three processes."""

    def setUp(self) -> None:
        """Make the table."""
        descriptor = make_table(3)
        self.addCleanup(os.close, descriptor)
        self.owner, self.one, self.two = (SharedPlaces(descriptor, part) for part in range(3))

    def test_limit_over_all(self) -> None:
        """Places taken in one process are taken in all."""
        self.assertTrue(self.one.acquire("a", 3))
        self.assertTrue(self.two.acquire("a", 3))
        self.assertTrue(self.owner.acquire("a", 3))
        self.assertFalse(self.one.acquire("a", 3))
        self.assertTrue(self.one.acquire("b", 3))
        self.assertEqual([self.two.taken("a"), self.two.taken("b")], [3, 1])
        self.two.release("a")
        self.assertTrue(self.one.acquire("a", 3))
        self.assertFalse(self.two.acquire("a", 3))

    def test_no_limit(self) -> None:
        """Without a limit places are counted only."""
        for _ in range(5):
            self.assertTrue(self.one.acquire("a", 0))
        self.assertEqual(self.two.taken("a"), 5)

    def test_dead_process(self) -> None:
        """What a process had taken that is no more is given back."""
        for places in (self.one, self.one, self.two):
            places.acquire(("connections", "192.0.2.1"), 0)
        self.owner.clear(1)
        self.assertEqual(self.owner.taken(("connections", "192.0.2.1")), 1)

    def test_nobody_took_it(self) -> None:
        """Giving back what was never taken changes nothing."""
        self.one.release("a")
        self.assertEqual(self.one.taken("a"), 0)

    def test_many_keys(self) -> None:
        """Thousands of keys are counted, each by itself, and leave nothing behind."""
        keys = [("connections", f"192.0.{n // 256}.{n % 256}") for n in range(5000)]
        for key in keys:
            self.one.acquire(key, 2)
        self.assertTrue(all(self.two.taken(key) == 1 for key in keys))
        for key in keys:
            self.one.release(key)
        self.assertEqual([self.two.taken(key) for key in keys], [0] * 5000)

    def test_full_window(self) -> None:
        """More keys than there is room for are served, uncounted."""
        from mcpgate.web.workers import places

        self.patch(places, "_WINDOW", 0)
        self.assertTrue(self.one.acquire("a", 1))
        self.assertEqual(self.one.taken("a"), 0)
