"""Tests of `mcpgate.gate.access.budget`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import AuthUnavailable, InvalidCredential
from mcpgate.gate.access.budget import FailureBudget
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Rate, Secret
from mcpgate.telemetry.meters import Meters
from tests.gate.access.fakes import DIGEST, FakeSource

ANN = Secret("ann-1")
DEFAULT = Rate(200 / 60, 200.0)


class BudgetTests(SynchronousTestCase):
    """Guesses do not reach the API without bound; users do not suffer from them."""

    def setUp(self) -> None:
        """Make a budget of the default size."""
        self.clock = Clock()
        self.source = FakeSource("ann-1", "eve-1")
        self.meters = Meters()
        self.budget = self.make()

    def make(
        self, rate: Rate = DEFAULT, strangers: int = 16, queue: int = 1000, max_known: int = 100
    ) -> FailureBudget:
        """Make a budget."""
        return FailureBudget(
            self.source,
            self.clock,
            DIGEST,
            meters=self.meters,
            rate=rate,
            strangers=strangers,
            queue=queue,
            max_known=max_known,
        )

    def guess(self, count: int) -> int:
        """Try wrong keys; give how many reached the source."""
        before = len(self.source.asked)
        for number in range(count):
            guess = self.budget.authenticate(Secret(f"x-{number}"))
            self.failureResultOf(guess, InvalidCredential, AuthUnavailable)
        return len(self.source.asked) - before

    def test_interface(self) -> None:
        """It is an authenticator."""
        verifyObject(IAuthenticator, self.budget)
        self.assertIsNone(self.budget.remembered(ANN))

    def test_10000_guesses(self) -> None:
        """Of 10 000 guesses in a moment 200 reach the API; 200 more each minute."""
        self.assertEqual(self.guess(10_000), 200)
        self.assertEqual(self.meters.events["auth_budget_spent"], 9_800)
        self.clock.advance(60)
        self.assertEqual(self.guess(1_000), 200)

    def test_known_key_passes(self) -> None:
        """A key that was good before is asked about although the budget is spent."""
        self.successResultOf(self.budget.authenticate(ANN))
        self.guess(201)
        self.successResultOf(self.budget.authenticate(ANN))
        failure = self.failureResultOf(self.budget.authenticate(Secret("eve-1")), AuthUnavailable)
        self.assertGreater(failure.value.retry_after_s, 0)

    def test_known_key_revoked(self) -> None:
        """A key that went bad is a stranger again."""
        self.successResultOf(self.budget.authenticate(ANN))
        self.source.good.clear()
        self.failureResultOf(self.budget.authenticate(ANN), InvalidCredential)
        self.guess(200)
        self.failureResultOf(self.budget.authenticate(ANN), AuthUnavailable)

    def test_good_keys_cost_nothing(self) -> None:
        """New users and outages do not use up the budget."""
        self.source.good |= {f"u-{number}" for number in range(300)}
        for number in range(300):
            self.successResultOf(self.budget.authenticate(Secret(f"u-{number}")))
        self.source.down = True
        for number in range(300):
            self.failureResultOf(self.budget.authenticate(Secret(f"v-{number}")), AuthUnavailable)
        self.source.down = False
        self.assertEqual(self.guess(300), 200)

    def test_known_is_bounded(self) -> None:
        """Beyond the bound the longest unused key is a stranger again."""
        self.budget = self.make(rate=Rate(0.001, 1.0), max_known=1)
        self.successResultOf(self.budget.authenticate(ANN))
        self.successResultOf(self.budget.authenticate(Secret("eve-1")))
        self.guess(1)
        self.failureResultOf(self.budget.authenticate(ANN), AuthUnavailable)

    def test_few_at_once(self) -> None:
        """Guesses sent all at once can not overdraw the budget by more than the places."""
        self.source.hold = True
        self.budget = self.make(rate=Rate(0.001, 3.0), strangers=2)
        guesses = [self.budget.authenticate(Secret(f"x-{number}")) for number in range(10)]
        self.assertEqual(len(self.source.asked), 2)
        while self.source.open:
            self.source.answer()
        self.assertEqual(len(self.source.asked), 3)
        for guess in guesses:
            self.failureResultOf(guess, InvalidCredential, AuthUnavailable)

    def test_waits_and_gives_up(self) -> None:
        """A stranger that finds no place in 5 s is told to come back."""
        self.source.hold = True
        self.budget = self.make(strangers=1)
        first = self.budget.authenticate(ANN)
        second = self.budget.authenticate(Secret("eve-1"))
        self.clock.advance(5)
        self.failureResultOf(second, AuthUnavailable)
        self.source.answer()
        self.successResultOf(first)

    def test_queue_is_bounded(self) -> None:
        """A stranger that finds too many waiting is told so at once."""
        self.source.hold = True
        self.budget = self.make(strangers=1, queue=1)
        first = self.budget.authenticate(ANN)
        second = self.budget.authenticate(Secret("eve-1"))
        self.failureResultOf(self.budget.authenticate(Secret("x-1")), AuthUnavailable)
        self.source.answer()
        self.source.answer()
        self.successResultOf(first)
        self.successResultOf(second)
