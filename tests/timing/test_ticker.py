"""Periodic work goes on whatever happens to one turn of it."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.timing.ticker import Ticker


class TickerTests(SynchronousTestCase):
    """Turns of a ticker."""

    @override
    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = 0

    def work(self) -> None:
        """Count."""
        self.turns += 1

    def test_turns(self) -> None:
        """The work is done each interval, and not any more after the stop."""
        ticker = Ticker(self.clock, 2.0, self.work, name="count")
        ticker.startService()
        self.clock.pump([2.0, 2.0, 1.0])
        self.assertEqual(self.turns, 2)
        self.successResultOf(ticker.stopService())
        self.clock.advance(10.0)
        self.assertEqual(self.turns, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure_is_survived(self) -> None:
        """A turn that fails is logged and counted; the next one comes."""

        def broken() -> None:
            self.turns += 1
            raise ValueError("once")

        ticker = Ticker(self.clock, 1.0, broken, name="broken")
        ticker.startService()
        self.clock.pump([1.0, 1.0])
        self.assertEqual((self.turns, ticker.failures), (2, 2))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.successResultOf(ticker.stopService())

    def test_never_twice_at_once(self) -> None:
        """Slow work is waited for, by the next turn and by the stop."""
        slow: Deferred[None] = Deferred()
        ticker = Ticker(self.clock, 1.0, lambda: slow, name="slow")
        ticker.startService()
        self.clock.pump([1.0, 5.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        stopping = ticker.stopService()
        self.assertNoResult(stopping)
        slow.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
