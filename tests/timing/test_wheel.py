"""Tests for `mcpgate.timing.wheel`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.timing.wheel import DeadlineWheel


class DeadlineWheelTests(SynchronousTestCase):
    """Many deadlines on one timer."""

    def setUp(self) -> None:
        """Make a wheel."""
        self.clock = Clock()
        self.wheel = DeadlineWheel(self.clock, 0.5)
        self.calls: list[float] = []

    def note(self) -> None:
        """Be a deadline's call."""
        self.calls.append(self.clock.seconds())

    def test_in_time(self) -> None:
        """A call comes at its time or up to a tick later; a cancelled one never."""
        self.wheel.arm(2.0, self.note)
        cancelled = self.wheel.arm(1.0, self.note)
        cancelled.cancel()
        cancelled.cancel()
        self.clock.pump([0.5] * 10)
        self.assertEqual(len(self.calls), 1)
        self.assertTrue(2.0 <= self.calls[0] <= 2.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_at_once(self) -> None:
        """When many come together others have their turn in between; none is lost or doubled."""
        others: list[int] = []

        def slow() -> None:
            self.clock.rightNow += 0.004
            self.note()
            if len(self.calls) == 1:
                self.clock.callLater(0, lambda: others.append(len(self.calls)))
                armed[-1].cancel()
                self.wheel.arm(1.0, self.note)

        # Kept in a set: which of them is called first is not known.
        armed = [self.wheel.arm(1.0, slow) for _ in range(9)]
        armed.append(self.wheel.arm(5.0, self.note))
        self.clock.advance(1.5)
        self.assertEqual(others, [3])
        self.assertEqual(len(self.calls), 9)
        self.clock.pump([0.5] * 4)
        self.assertEqual(len(self.calls), 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_between(self) -> None:
        """A wheel stopped between two turns calls nothing more."""

        def slow() -> None:
            self.clock.rightNow += 0.02
            self.note()
            self.clock.callLater(0, self.wheel.stop)

        for _ in range(3):
            self.wheel.arm(1.0, slow)
        self.clock.advance(1.5)
        self.clock.pump([0.5] * 4)
        self.assertEqual(len(self.calls), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_armed_in_turn(self) -> None:
        """A call that arms the next deadline does not add a timer to the one there is."""

        def again() -> None:
            self.note()
            self.wheel.arm(1.0, again)

        self.wheel.arm(1.0, again)
        self.wheel.arm(1.0, again)
        for _ in range(20):
            self.clock.advance(0.5)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertGreater(len(self.calls), 8)
        self.wheel.stop()
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_armed_after_a_stall(self) -> None:
        """A call that stands still and then arms makes the wheel pass over no other deadline."""

        def stall() -> None:
            self.clock.rightNow += 1.2
            self.wheel.arm(5.0, self.note)

        self.wheel.arm(0.4, stall)
        self.wheel.arm(0.9, self.note)
        self.clock.pump([0.5] * 4)
        self.assertEqual(len(self.calls), 1)

    def test_cancelled_for_good(self) -> None:
        """Of a cancelled deadline nothing is kept, however far away its time is."""
        for _ in range(10):
            far = self.wheel.arm(1e9, self.note)
            kept = self.wheel.arm(60.0, self.note)
            self.clock.advance(0.5)
            far.cancel()
            kept.cancel()
        other = self.wheel.arm(60.0, self.note)
        self.wheel.arm(60.0, self.note)
        other.cancel()
        self.assertEqual(len(self.wheel._slots), 1)
        self.clock.pump([0.5] * 125)
        self.assertEqual(len(self.calls), 1)
        self.assertEqual(self.wheel._slots, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failing_call(self) -> None:
        """A call that fails is logged, the others are made."""

        def bug() -> None:
            raise RuntimeError

        self.wheel.arm(1.0, bug)
        self.wheel.arm(1.0, self.note)
        self.clock.pump([0.5] * 4)
        self.assertEqual(len(self.calls), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
