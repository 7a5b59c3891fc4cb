"""Tests of mcpgate.web.workers.buckets."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Hashable
from random import Random  # noqa: TID251 - of a fixed seed

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.admission import RateLimiter
from mcpgate.model import Rate
from mcpgate.web.workers import buckets
from mcpgate.web.workers.buckets import SharedBuckets, make_table

RATE = Rate(2.0, 5.0)


class BucketsTests(SynchronousTestCase):
    """One table, seen by two processes."""

    def setUp(self) -> None:
        """Make the table."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.descriptor = make_table()
        self.addCleanup(os.close, self.descriptor)
        self.one, self.two = (self.make() for _ in range(2))

    def make(self) -> SharedBuckets:
        """Look at the table as one process does."""
        return SharedBuckets(self.clock.seconds, self.descriptor, RateLimiter(self.clock))

    def test_one_bucket(self) -> None:
        """What one process takes is missing in the other."""
        key = ("key", "ann")
        taken = [one.take(key, RATE, 1.0).allowed for one in (self.one, self.two) * 3]
        self.assertEqual(taken, [True] * 5 + [False])
        refused = self.one.take(key, RATE, 1.0)
        self.assertAlmostEqual(refused.retry_after_s, 0.5)
        self.clock.advance(0.5)
        self.assertTrue(self.two.take(key, RATE, 1.0).allowed)
        self.assertFalse(self.one.take(key, RATE, 1.0).allowed)
        self.assertTrue(self.one.take(("key", "ben"), RATE, 5.0).allowed)

    def test_as_in_one_process(self) -> None:
        """Every decision is the one that a limiter of one process makes."""
        luck = Random(7)
        alone = RateLimiter(self.clock)
        for _ in range(3000):
            self.clock.advance(luck.choice((0.0, 0.1, 0.3, 3.0)))
            key: Hashable = (luck.choice(("key", "server")), luck.randrange(4))
            cost = luck.choice((1.0, 1.0, 2.5, 9.0))
            if luck.random() < 0.1:
                self.one.give_back(key, RATE, 1.0)
                alone.give_back(key, RATE, 1.0)
            shared = luck.choice((self.one, self.two)).take(key, RATE, cost)
            self.assertEqual(shared, alone.take(key, RATE, cost))

    def test_other_kinds(self) -> None:
        """Addresses are the owner's alone; no rate is no limit."""
        for _ in range(5):
            self.assertTrue(self.one.take(("address", "192.0.2.1"), RATE, 1.0).allowed)
        self.assertFalse(self.one.take(("address", "192.0.2.1"), RATE, 1.0).allowed)
        self.assertTrue(self.two.take(("address", "192.0.2.1"), RATE, 1.0).allowed)
        self.assertTrue(self.one.take(("key", "a"), Rate(0.0, 0.0), 1e9).allowed)
        self.one.give_back(("key", "a"), Rate(0.0, 0.0), 1e9)
        self.one.give_back(("key", "nobody"), RATE, 1.0)

    def test_many(self) -> None:
        """Where there is no room the bucket goes that is full, or will be first."""
        self.patch(buckets, "SETS", 1)
        one = self.make()
        keys = [("key", n) for n in range(buckets.SET)]
        for n, key in enumerate(keys):
            one.take(key, RATE, 5.0 if n else 1.0)
        self.assertTrue(one.take(("key", "new"), RATE, 5.0).allowed)
        self.assertFalse(one.take(("key", "new"), RATE, 1.0).allowed)
        self.assertFalse(any(one.take(key, RATE, 1.0).allowed for key in keys[1:]))
        self.clock.advance(10)
        self.assertTrue(one.take(keys[0], RATE, 5.0).allowed)

    def test_a_held_lock(self) -> None:
        """A lock is waited for, but not for ever: its holder may have been stopped."""
        tries: list[float] = []

        def held(descriptor: int, how: int, *where: int) -> None:
            if how & fcntl.LOCK_NB and len(tries) < most:
                raise BlockingIOError

        def turn() -> None:
            tries.append(self.clock.seconds())
            self.clock.advance(0.01)

        self.patch(fcntl, "lockf", held)
        one = SharedBuckets(self.clock.seconds, self.descriptor, RateLimiter(self.clock), turn)
        most = 2
        self.assertTrue(one.take(("key", "a"), RATE, 5.0).allowed)
        self.assertEqual(len(tries), 2)
        most = 1000
        self.assertFalse(one.take(("key", "a"), RATE, 1.0).allowed)
        one.give_back(("key", "a"), RATE, 1.0)
        self.assertLess(len(tries), 20)

    def test_many_keys_are_not_remembered(self) -> None:
        """Names of keys are kept for some of them only."""
        self.patch(buckets, "_REMEMBERED", 3)
        for n in range(10):
            self.one.take(("key", n), RATE, 1.0)
        self.assertLessEqual(len(self.one._known), 3)
