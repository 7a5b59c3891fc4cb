"""Long work does not keep others waiting."""

from __future__ import annotations

from weakref import ref

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.timing.slices import emptied, in_slices


class SlicesTests(SynchronousTestCase):
    """Work on many items."""

    def setUp(self) -> None:
        """Begin with nothing done."""
        self.clock = Clock()
        self.done: list[int] = []

    def work(self, item: int) -> None:
        """Take 4 ms."""
        self.clock.rightNow += 0.004
        self.done.append(item)

    def test_few_at_once(self) -> None:
        """What fits a slice is done before anything else happens."""
        self.successResultOf(in_slices(self.clock, range(2), self.work))
        self.assertEqual(self.done, [0, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_in_turns(self) -> None:
        """After 10 ms others have their turn, then it goes on where it stopped."""
        over = in_slices(self.clock, range(8), self.work)
        self.assertEqual(self.done, [0, 1, 2])
        self.assertNoResult(over)
        others: list[int] = []
        self.clock.callLater(0, lambda: others.append(len(self.done)))
        self.clock.advance(0)
        self.assertEqual(others, [6])
        self.assertEqual(self.done, list(range(8)))
        self.successResultOf(over)

    def test_failure(self) -> None:
        """The first that fails ends it."""
        over = in_slices(self.clock, [1, 0, 2], lambda item: self.done.append(1 // item))
        self.failureResultOf(over, ZeroDivisionError)
        self.assertEqual(self.done, [1])

    def test_cancelled(self) -> None:
        """Who does not need it any more stops it between two slices."""
        over = in_slices(self.clock, range(8), self.work)
        over.cancel()
        self.failureResultOf(over, CancelledError)
        self.assertEqual((len(self.done), self.clock.getDelayedCalls()), (3, []))

    def test_emptied(self) -> None:
        """What is done with is let go of, one after the other."""
        items = [Clock() for _ in range(3)]
        kept = [ref(item) for item in items]
        left = emptied(items)
        del items
        for number, _ in enumerate(left):
            self.assertEqual([one() is not None for one in kept].count(True), 3 - number)
