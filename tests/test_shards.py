"""Tests of tests.shards: what runs at the same time, and the sum of it."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.shards import (
    ENGINE,
    UNIT,
    durations,
    functional_names,
    shared_out,
    summed_up,
    unit_names,
)

SECONDS = {"a": 50.0, "b": 30.0, "c": 25.0, "d": 5.0}


class SharedOutTests(SynchronousTestCase):
    """Which module goes where."""

    def test_balanced(self) -> None:
        """The longest go first, each to whoever has the least to do."""
        self.assertEqual(shared_out("abcd", 2, SECONDS), [["a", "d"], ["b", "c"]])
        self.assertEqual(shared_out("dcba", 2, SECONDS), [["a", "d"], ["b", "c"]])

    def test_one(self) -> None:
        """One shard takes everything, in order; the unit tests are first."""
        self.assertEqual(shared_out(["b", UNIT, "a"], 1, SECONDS), [[UNIT, "a", "b"]])

    def test_more_than_modules(self) -> None:
        """No shard is without work."""
        self.assertEqual(shared_out("ab", 5, SECONDS), [["a"], ["b"]])

    def test_unknown(self) -> None:
        """What was not measured goes where the least is to do, and is not forgotten."""
        self.assertEqual(shared_out(["a", "b", "new"], 2, SECONDS), [["a"], ["b", "new"]])

    def test_engine(self) -> None:
        """What needs the engine stays together."""
        boxes = [f"{ENGINE}{name}" for name in ("gate", "life", "tools")]
        first, second = shared_out([*boxes, "a"], 2, {**dict.fromkeys(boxes, 20.0), **SECONDS})
        self.assertEqual((first, second), (boxes, ["a"]))

    def test_ours(self) -> None:
        """Every test there is runs in one shard, and what was measured is still there."""
        every = [UNIT, *functional_names()]
        for count in (1, 2, 3, 4):
            shards = shared_out(every, count, durations())
            self.assertEqual(sorted(m for shard in shards for m in shard), sorted(every))
        self.assertEqual(set(durations()) - set(every), set())
        self.assertIn("tests.web", unit_names())
        self.assertNotIn("tests.functional", unit_names())


class SummedUpTests(SynchronousTestCase):
    """What logs say."""

    def test_sum(self) -> None:
        """Numbers of tests, and how they ended, are added up."""
        logs = [
            "...\nRan 3 tests in 1.0s\n\nFAILED (failures=1, successes=2)\n",
            "...\nRan 2 tests in 1.0s\n\nPASSED (successes=2)\n",
        ]
        self.assertEqual(summed_up(logs), (5, Counter(successes=4, failures=1)))

    def test_no_end(self) -> None:
        """A shard that was ended in the middle is no success."""
        self.assertRaises(ValueError, summed_up, ["tests.web\n  FrontTests\n    test_x ..."])
