"""Tests of `mcpgate.gate.access.breaker`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import AuthUnavailable, InvalidCredential
from mcpgate.gate.access.breaker import Breaker
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Secret
from tests.gate.access.fakes import ISSUER, FakeSource

GOOD = Secret("ann-1")
BAD = Secret("bob-1")


class BreakerTests(SynchronousTestCase):
    """An API that does not answer is left alone."""

    def setUp(self) -> None:
        """Make a breaker over a source."""
        self.clock = Clock()
        self.source = FakeSource("ann-1")
        self.breaker = Breaker(self.source, self.clock, name=ISSUER)

    def fails(self, times: int) -> None:
        """Have calls fail."""
        for _ in range(times):
            self.failureResultOf(self.breaker.authenticate(GOOD), AuthUnavailable)

    def break_it(self) -> None:
        """Open it."""
        self.source.down = True
        self.fails(5)
        self.source.asked.clear()

    def test_interface(self) -> None:
        """It is an authenticator."""
        verifyObject(IAuthenticator, self.breaker)
        self.assertIsNone(self.breaker.remembered(GOOD))

    def test_closed(self) -> None:
        """Answers pass, also refusals, however many."""
        for _ in range(10):
            self.successResultOf(self.breaker.authenticate(GOOD))
            self.failureResultOf(self.breaker.authenticate(BAD), InvalidCredential)

    def test_opens(self) -> None:
        """After five failures in a row nothing is asked for 30 s, and callers hear how long."""
        self.break_it()
        self.clock.advance(10)
        failure = self.failureResultOf(self.breaker.authenticate(GOOD), AuthUnavailable)
        self.assertEqual(failure.value.retry_after_s, 20.0)
        self.assertEqual(self.source.asked, [])

    def test_not_in_a_row(self) -> None:
        """An answer in between starts the count anew, be it a refusal."""
        self.source.down = True
        self.fails(4)
        self.source.down = False
        self.failureResultOf(self.breaker.authenticate(BAD), InvalidCredential)
        self.source.down = True
        self.fails(4)
        self.source.down = False
        self.successResultOf(self.breaker.authenticate(GOOD))

    def test_probe_succeeds(self) -> None:
        """After 30 s one call probes while others fail at once; its answer closes the breaker."""
        self.break_it()
        self.source.down = False
        self.source.hold = True
        self.clock.advance(30)
        probe = self.breaker.authenticate(GOOD)
        self.fails(3)
        self.assertEqual(len(self.source.asked), 1)
        self.source.answer()
        self.successResultOf(probe)
        self.source.hold = False
        self.successResultOf(self.breaker.authenticate(GOOD))

    def test_probe_refused(self) -> None:
        """A probe with a bad key shows as well that the API answers."""
        self.break_it()
        self.source.down = False
        self.clock.advance(30)
        self.failureResultOf(self.breaker.authenticate(BAD), InvalidCredential)
        self.successResultOf(self.breaker.authenticate(GOOD))

    def test_probe_fails(self) -> None:
        """A failed probe opens the breaker for another 30 s."""
        self.break_it()
        self.clock.advance(30)
        self.fails(1)
        self.clock.advance(29)
        self.fails(1)
        self.assertEqual(len(self.source.asked), 1)

    def test_probe_cancelled(self) -> None:
        """A probe that was cancelled leaves the probing to the next call."""
        self.break_it()
        self.source.hold = True
        self.clock.advance(30)
        probe = self.breaker.authenticate(GOOD)
        probe.cancel()
        self.failureResultOf(probe)
        self.source.hold = self.source.down = False
        self.successResultOf(self.breaker.authenticate(GOOD))

    def test_late_answers(self) -> None:
        """Answers to calls from before the breaker opened do not close it."""
        self.source.hold = True
        late = self.breaker.authenticate(GOOD)
        later = self.breaker.authenticate(GOOD)
        self.source.hold = False
        self.break_it()
        self.source.answer()
        self.failureResultOf(late, AuthUnavailable)
        self.source.down = False
        self.source.answer()
        self.successResultOf(later)
        self.fails(1)

    def test_bug(self) -> None:
        """A bug passes through and counts as nothing."""
        self.source.broken = ZeroDivisionError()
        for _ in range(6):
            self.failureResultOf(self.breaker.authenticate(GOOD), ZeroDivisionError)
        self.source.broken = None
        self.successResultOf(self.breaker.authenticate(GOOD))
