"""The collector's pauses stay short."""

from __future__ import annotations

import gc
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.service.garbage import Garbage
from mcpgate.telemetry.meters import Meters


class FakeCollector:
    """The module ``gc`` as far as it is used; notes what is asked of it."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[str, dict[str, int]], None]] = []
        self.done: list[str] = []

    def collect(self) -> None:
        """Walk."""
        self.done.append("collect")

    def freeze(self) -> None:
        """Set aside."""
        self.done.append("freeze")

    def unfreeze(self) -> None:
        """Take back."""
        self.done.append("unfreeze")


class GarbageTests(SynchronousTestCase):
    """What is set aside, and when."""

    def setUp(self) -> None:
        """Start."""
        self.clock, self.meters, self.gc = Clock(), Meters(), FakeCollector()
        self.time = 0.0
        self.garbage = Garbage(
            self.clock, self.meters, thaw_s=100, collector=self.gc, seconds=lambda: self.time
        )
        self.garbage.startService()
        self.addCleanup(lambda: self.garbage.running and self.garbage.stopService())

    def walk(self, seconds: float, generation: int = 2) -> None:
        """Have the collector walk for so long; give what was done about it."""
        for callback in self.gc.callbacks:
            callback("start", {"generation": generation})
        self.time += seconds
        for callback in self.gc.callbacks:
            callback("stop", {"generation": generation})

    def since(self) -> list[str]:
        """Give what was asked of the collector since the last time."""
        done, self.gc.done = self.gc.done, []
        return done

    def test_start(self) -> None:
        """What there is at the start is set aside."""
        self.assertEqual(self.since(), ["unfreeze", "collect", "freeze"])

    def test_long_walk(self) -> None:
        """What survives a long walk is set aside; of short ones and of young things it is not."""
        self.since()
        self.walk(0.009)
        self.walk(0.5, generation=1)
        self.assertEqual(self.since(), [])
        self.walk(0.06)
        self.assertEqual(self.since(), ["freeze"])
        self.walk(0.05)
        self.assertEqual(self.since(), ["freeze"])
        self.assertAlmostEqual(self.meters.longest_collection_s, 0.06)

    def test_thaw(self) -> None:
        """After long everything is looked through again."""
        self.since()
        self.clock.advance(99)
        self.assertEqual(self.since(), [])
        self.clock.advance(1)
        self.assertEqual(self.since(), ["unfreeze", "collect", "freeze"])
        self.clock.advance(100)
        self.assertEqual(self.since(), ["unfreeze", "collect", "freeze"])

    def test_stop(self) -> None:
        """A gate that ended leaves the collector as it was."""
        self.since()
        self.garbage.stopService()
        self.assertEqual(self.gc.done, ["unfreeze"])
        self.assertEqual((self.gc.callbacks, self.clock.getDelayedCalls()), ([], []))

    def test_stopped_twice(self) -> None:
        """A gate that could not start is stopped once more when its reactor ends."""
        self.garbage.stopService()
        done = list(self.gc.done)
        self.garbage.stopService()
        self.assertEqual(self.gc.done, done)

    def test_real_collector(self) -> None:
        """The module itself has what is asked of it."""
        garbage = Garbage(self.clock, self.meters)
        garbage.startService()
        try:
            self.assertGreater(gc.get_freeze_count(), 1000)
            gc.collect()
            self.assertGreater(self.meters.longest_collection_s, 0)
        finally:
            garbage.stopService()
        self.assertEqual(gc.get_freeze_count(), 0)
