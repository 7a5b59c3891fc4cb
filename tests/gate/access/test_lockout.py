"""Tests of `mcpgate.gate.access.lockout`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import AuthUnavailable, InvalidCredential, RateLimited
from mcpgate.gate.access.cached import CachedAuthenticator
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.model import Secret
from mcpgate.telemetry.meters import Meters
from tests.gate.access.fakes import DIGEST, ISSUER, FakeSource

HERE = "192.0.2.1"
THERE = "192.0.2.2"


class LockoutTests(SynchronousTestCase):
    """Whoever guesses has to wait; whoever has a good key does not notice."""

    def setUp(self) -> None:
        """Make a lockout before a cache."""
        self.clock = Clock()
        self.meters = Meters()
        self.source = FakeSource("ann-1", "bob-1")
        self.cache = CachedAuthenticator(
            self.source, self.clock, DIGEST, Revocations(), issuer=ISSUER
        )
        self.lockout = Lockout(self.clock, self.meters)

    def guess(self, count: int, address: str = HERE) -> int:
        """Try wrong keys; give how many were looked at."""
        looked_at = 0
        for number in range(count):
            guess = self.lockout.authenticate(self.cache, Secret(f"x-{number}"), address)
            failure = self.failureResultOf(guess, InvalidCredential, RateLimited)
            looked_at += failure.check(InvalidCredential) is not None
        return looked_at

    def test_10000_guesses(self) -> None:
        """Of 10 000 guesses 21 are looked at; the rest hears when to come back."""
        self.assertEqual(self.guess(10_000), 21)
        guess = self.lockout.authenticate(self.cache, Secret("ann-1"), HERE)
        failure = self.failureResultOf(guess, RateLimited)
        self.assertEqual(failure.value.retry_after_s, 900.0)
        self.assertEqual(self.meters.events["auth_locked_out"], 1)

    def test_twenty_are_forgiven(self) -> None:
        """Twenty failures in a minute lock nobody out, minute after minute."""
        for _ in range(3):
            self.assertEqual(self.guess(20), 20)
            self.clock.advance(60)

    def test_ends(self) -> None:
        """After 15 minutes the address may try again."""
        self.guess(21)
        self.clock.advance(899)
        self.assertEqual(self.guess(1), 0)
        self.clock.advance(1)
        self.assertEqual(self.guess(1), 1)

    def test_other_address(self) -> None:
        """Another address is not held back."""
        self.guess(100)
        self.successResultOf(self.lockout.authenticate(self.cache, Secret("ann-1"), THERE))

    def test_remembered_key_still_works(self) -> None:
        """A key that is remembered works from the locked address."""
        self.successResultOf(self.lockout.authenticate(self.cache, Secret("ann-1"), HERE))
        self.guess(100)
        self.assertIsNotNone(self.cache.remembered(Secret("ann-1")))

    def test_outages_are_not_failures(self) -> None:
        """Good and undecided keys do not count."""
        self.source.down = True
        for number in range(50):
            waiting = self.lockout.authenticate(self.cache, Secret(f"y-{number}"), HERE)
            self.failureResultOf(waiting, AuthUnavailable)
        self.source.down = False
        self.assertEqual(self.guess(20), 20)

    def test_ipv6_network(self) -> None:
        """Whoever changes the address inside an IPv6 /64 is the same one."""
        for number in range(21):
            self.lockout.failed(f"2001:db8::{number + 1:x}")
        with self.assertRaises(RateLimited):
            self.lockout.check("2001:db8::ffff")
        self.lockout.check("2001:db8:0:1::1")

    def test_unix_sockets(self) -> None:
        """Callers without an address are not locked out all together."""
        self.assertEqual(self.guess(100, ""), 100)

    def test_bound(self) -> None:
        """Only so many addresses are remembered."""
        lockout = Lockout(self.clock, self.meters, max_addresses=2)
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            for _ in range(22):
                lockout.failed(address)
        lockout.check("192.0.2.1")
        with self.assertRaises(RateLimited):
            lockout.check("192.0.2.3")
