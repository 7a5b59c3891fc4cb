"""Tests of `mcpgate.gate.access.flight`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.access.flight import SingleFlight


class SingleFlightTests(SynchronousTestCase):
    """One question, many waiters."""

    def setUp(self) -> None:
        """Make a flight and count its starts."""
        self.flights: SingleFlight[str, int] = SingleFlight()
        self.started: list[Deferred[int]] = []

    def start(self) -> Deferred[int]:
        """Begin work that the test ends."""
        work: Deferred[int] = Deferred()
        self.started.append(work)
        return work

    def test_shared(self) -> None:
        """Three waiters get the outcome of one piece of work."""
        waiters = [self.flights.run("a", self.start) for _ in range(3)]
        self.assertIn("a", self.flights)
        self.started[0].callback(5)
        self.assertEqual([self.successResultOf(w) for w in waiters], [5, 5, 5])
        self.assertEqual((len(self.started), len(self.flights)), (1, 0))

    def test_failure_shared(self) -> None:
        """A failure reaches each waiter."""
        waiters = [self.flights.run("a", self.start) for _ in range(2)]
        self.started[0].errback(ZeroDivisionError())
        for waiter in waiters:
            self.failureResultOf(waiter, ZeroDivisionError)

    def test_keys_apart(self) -> None:
        """Different keys do not share."""
        self.flights.run("a", self.start)
        self.flights.run("b", self.start)
        self.assertEqual(len(self.started), 2)

    def test_cancelling_one(self) -> None:
        """A waiter that leaves does not disturb the others nor the work."""
        first, second = (self.flights.run("a", self.start) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.started[0].callback(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_cancelling_all(self) -> None:
        """Work goes on without waiters; a newcomer joins it."""
        gone = self.flights.run("a", self.start)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        late = self.flights.run("a", self.start)
        self.started[0].callback(2)
        self.assertEqual(self.successResultOf(late), 2)
        self.assertEqual(len(self.started), 1)

    def test_waiter_cancels_the_next(self) -> None:
        """A waiter may cancel another one while the outcome is handed out."""
        first = self.flights.run("a", self.start)
        second = self.flights.run("a", self.start)
        first.addCallback(lambda _: second.cancel())
        self.started[0].callback(1)
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_waiter_asks_again(self) -> None:
        """A waiter that asks again in its callback begins new work."""
        first = self.flights.run("a", self.start)
        first.addCallback(lambda _: self.flights.run("a", self.start))
        self.started[0].callback(1)
        self.assertNoResult(first)
        self.started[1].callback(2)
        self.assertEqual(self.successResultOf(first), 2)

    def test_at_once(self) -> None:
        """Work that is done at once needs no waiting."""
        self.assertEqual(self.successResultOf(self.flights.run("a", lambda: succeed(3))), 3)
        self.failureResultOf(self.flights.run("a", lambda: fail(KeyError())), KeyError)
        self.assertEqual(len(self.flights), 0)
