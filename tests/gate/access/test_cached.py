"""Tests of `mcpgate.gate.access.cached`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import AuthUnavailable, InvalidCredential
from mcpgate.gate.access.cached import CachedAuthenticator, Memory
from mcpgate.gate.access.revocation import Revocations
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Principal, Secret
from tests.gate.access.fakes import DIGEST, ISSUER, FakeSource, caller

ANN = Secret("ann-1")
BOB = Secret("bob-1")
DEFAULT = Memory()


class CachedTests(SynchronousTestCase):
    """Good keys are remembered, bad ones too, and outages are bridged."""

    def setUp(self) -> None:
        """Make a cache over a source that knows one key."""
        self.clock = Clock()
        self.source = FakeSource("ann-1")
        self.revocations = Revocations()
        self.revoked: list[Principal] = []
        self.revocations.on_revoked(self.revoked.append)
        self.cache = self.make()

    def make(self, memory: Memory = DEFAULT) -> CachedAuthenticator:
        """Make a cache."""
        return CachedAuthenticator(
            self.source, self.clock, DIGEST, self.revocations, issuer=ISSUER, memory=memory
        )

    def know(self, key: Secret = ANN) -> None:
        """Have the cache know a key."""
        self.successResultOf(self.cache.authenticate(key))

    def test_interface(self) -> None:
        """It is an authenticator."""
        verifyObject(IAuthenticator, self.cache)

    def test_remembers(self) -> None:
        """A good key is asked about once, then known at once."""
        self.assertIsNone(self.cache.remembered(ANN))
        self.know()
        self.assertEqual(self.cache.remembered(ANN), caller("ann-1"))
        self.know()
        self.assertEqual(self.source.asked, ["ann-1"])
        self.assertEqual(len(self.cache), 1)

    def test_unused_key_expires(self) -> None:
        """A key that was not used meanwhile is asked about anew after 60 s."""
        self.know()
        self.clock.advance(60)
        self.assertIsNone(self.cache.remembered(ANN))
        self.know()
        self.assertEqual(len(self.source.asked), 2)

    def test_key_in_use_is_refreshed(self) -> None:
        """A key in use is asked about in the background: no call waits, one question at a time."""
        self.know()
        self.source.hold = True
        self.clock.advance(48)
        for _ in range(3):
            self.assertIsNotNone(self.cache.remembered(ANN))
        self.assertEqual(len(self.source.asked), 2)
        self.source.answer()
        self.clock.advance(30)
        self.assertIsNotNone(self.cache.remembered(ANN))
        self.assertEqual(len(self.source.asked), 2)

    def test_negative(self) -> None:
        """A bad key is refused without asking for 30 s, then asked about again."""
        for _ in range(3):
            self.failureResultOf(self.cache.authenticate(BOB), InvalidCredential)
        self.assertEqual(self.source.asked, ["bob-1"])
        self.clock.advance(30)
        self.source.good.add("bob-1")
        self.know(BOB)

    def test_single_flight(self) -> None:
        """Many waiters for one key cause one question; one that leaves disturbs nobody."""
        self.source.hold = True
        waiters = [self.cache.authenticate(ANN) for _ in range(5)]
        waiters[2].cancel()
        self.failureResultOf(waiters.pop(2), CancelledError)
        self.assertEqual((self.source.asked, self.source.cancelled), (["ann-1"], 0))
        self.source.answer()
        for waiter in waiters:
            self.assertEqual(self.successResultOf(waiter), caller("ann-1"))

    def test_unknown_key_in_outage(self) -> None:
        """While the source is down an unknown key is neither refused nor let in."""
        self.source.down = True
        self.failureResultOf(self.cache.authenticate(ANN), AuthUnavailable)
        self.source.down = False
        self.know()

    def test_bad_key_after_outage(self) -> None:
        """An outage leaves no trace of refusal."""
        self.source.down = True
        self.failureResultOf(self.cache.authenticate(BOB), AuthUnavailable)
        self.failureResultOf(self.cache.authenticate(BOB), AuthUnavailable)
        self.assertEqual(len(self.source.asked), 2)

    def test_stale_in_outage(self) -> None:
        """A good key in use passes through an outage for 300 s beyond its minute, not longer."""
        self.know()
        self.source.down = True
        for _ in range(359):
            self.clock.advance(1)
            self.assertIsNotNone(self.cache.remembered(ANN), self.clock.seconds())
        self.clock.advance(1)
        self.assertIsNone(self.cache.remembered(ANN))
        self.failureResultOf(self.cache.authenticate(ANN), AuthUnavailable)
        # A question every 5 s, not one per call.
        self.assertLess(len(self.source.asked), 70)
        self.assertEqual(len(self.cache), 0)

    def test_stale_first_use_after_expiry(self) -> None:
        """A good key that comes back after its minute, into an outage, passes."""
        self.know()
        self.source.down = True
        self.clock.advance(200)
        self.assertIsNone(self.cache.remembered(ANN))
        self.assertEqual(self.successResultOf(self.cache.authenticate(ANN)), caller("ann-1"))
        self.assertIsNotNone(self.cache.remembered(ANN))

    def test_recovers(self) -> None:
        """After an outage the next question makes the key fresh again."""
        self.know()
        self.source.down = True
        self.clock.advance(50)
        self.cache.remembered(ANN)
        self.source.down = False
        self.clock.advance(5)
        self.cache.remembered(ANN)
        self.clock.advance(40)
        self.cache.remembered(ANN)
        self.assertEqual(len(self.source.asked), 3)

    def test_revoked_key_in_use(self) -> None:
        """A revoked key in use stops within its minute, and that is announced."""
        self.know()
        self.source.good.clear()
        for _ in range(60):
            self.clock.advance(1)
            if self.cache.remembered(ANN) is None:
                break
        self.assertIsNone(self.cache.remembered(ANN))
        self.failureResultOf(self.cache.authenticate(ANN), InvalidCredential)
        self.assertEqual(self.revoked, [caller("ann-1").principal])

    def test_revoked_key_of_open_stream(self) -> None:
        """A stream without calls hears of its key's end within a minute."""
        self.know()
        release = self.revocations.watch(caller("ann-1"))
        self.source.good.clear()
        for _ in range(12):
            self.clock.advance(5)
            self.cache.sweep()
        self.assertEqual(self.revoked, [caller("ann-1").principal])
        release()

    def test_open_stream_keeps_key_fresh(self) -> None:
        """A watched key is asked about once a minute, an unwatched one no more."""
        self.know()
        release = self.revocations.watch(caller("ann-1"))
        for _ in range(40):
            self.clock.advance(5)
            self.cache.sweep()
        self.assertEqual((self.revoked, len(self.source.asked)), ([], 5))
        release()
        self.clock.advance(100)
        self.cache.sweep()
        self.assertEqual(len(self.source.asked), 5)

    def test_open_stream_in_long_outage(self) -> None:
        """A stream whose key could not be checked for six minutes is closed."""
        self.know()
        self.revocations.watch(caller("ann-1"))
        self.source.down = True
        for _ in range(71):
            self.clock.advance(5)
            self.cache.sweep()
        self.assertEqual(self.revoked, [])
        self.clock.advance(5)
        self.cache.sweep()
        self.assertEqual(self.revoked, [caller("ann-1").principal])

    def test_open_stream_of_unasked_key(self) -> None:
        """A watched key that was forgotten is asked about; refused, it is announced."""
        self.revocations.watch(caller("bob-1"))
        self.revocations.watch(caller("eve-1", issuer="other"))
        self.cache.sweep()
        self.assertEqual(self.source.asked, ["bob-1"])
        self.assertEqual(self.revoked, [caller("bob-1").principal])

    def test_sweep_forgets(self) -> None:
        """Keys and refusals whose time is over are forgotten."""
        self.know()
        self.failureResultOf(self.cache.authenticate(BOB), InvalidCredential)
        self.clock.advance(29)
        self.cache.sweep()
        self.assertEqual(len(self.cache), 1)
        self.clock.advance(331)
        self.cache.sweep()
        self.assertEqual(len(self.cache), 0)
        self.assertEqual(self.revoked, [])

    def test_sweep_leaves_refreshed_key(self) -> None:
        """A key that was found good again is kept beyond its first end."""
        self.know()
        self.clock.advance(300)
        self.know()
        self.clock.advance(60)
        self.cache.sweep()
        self.assertEqual(len(self.cache), 1)

    def test_bound(self) -> None:
        """Beyond the bound the longest unused key is forgotten, good or bad."""
        self.source.good |= {"k1", "k2", "k3"}
        self.cache = self.make(Memory(max_keys=2))
        self.know(Secret("k1"))
        self.know(Secret("k2"))
        self.cache.remembered(Secret("k1"))
        self.know(Secret("k3"))
        self.assertIsNone(self.cache.remembered(Secret("k2")))
        self.assertIsNotNone(self.cache.remembered(Secret("k1")))
        for key in ("x1", "x2", "x3", "x1"):
            self.failureResultOf(self.cache.authenticate(Secret(key)), InvalidCredential)
        self.assertEqual(self.source.asked[-4:], ["x1", "x2", "x3", "x1"])

    def test_user_changes(self) -> None:
        """A key that belongs to somebody else now is announced for whom it was before."""
        self.know()
        self.source.subjects["ann-1"] = "anna"
        self.clock.advance(60)
        self.know()
        self.assertEqual(self.revoked, [caller("ann-1").principal])

    def test_forget(self) -> None:
        """What was forgotten on purpose is asked about again."""
        self.know()
        self.cache.forget(DIGEST(ANN))
        self.assertIsNone(self.cache.remembered(ANN))
        self.failureResultOf(self.cache.authenticate(BOB), InvalidCredential)
        self.cache.forget(DIGEST(BOB))
        self.source.good.add("bob-1")
        self.know(BOB)

    def test_bug_in_refresh(self) -> None:
        """A bug met in the background is logged and the key stays what it was."""
        self.know()
        self.source.broken = ZeroDivisionError()
        self.clock.advance(50)
        self.assertIsNotNone(self.cache.remembered(ANN))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNotNone(self.cache.remembered(ANN))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_refusal_of_a_fresh_key(self) -> None:
        """A question under way when a key's end comes settles it alone."""
        self.know()
        self.source.hold = True
        self.clock.advance(359)
        waiter = self.cache.authenticate(ANN)
        self.clock.advance(1)
        self.cache.sweep()
        self.assertEqual(len(self.cache), 1)
        self.source.answer()
        self.successResultOf(waiter)
