"""The steps every request passes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcpgate.errors import (
    AuthUnavailable,
    BadRequest,
    GateError,
    InvalidCredential,
    Overloaded,
    RateLimited,
    Unauthenticated,
)
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.admission import Admission, RateLimiter, Slots
from mcpgate.gate.pipeline import Gate
from mcpgate.http.fields import Fields
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Principal, Rate, Secret, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters

ALICE = Caller(Principal("file", "alice", "a" * 32), Secret("alice"))
SPEC = ServerSpec(name="notes", transport=Transport.STDIO)


@implementer(IAuthenticator)
class Keys:
    """Remembers alice, has to ask for bob, and can not tell about carol."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: tuple[str, ...] = ("alice",)
        verifyObject(IAuthenticator, self)

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        return ALICE if credential.reveal() in self.known else None

    def authenticate(self, credential: Secret) -> Deferred[Caller]:
        """See `IAuthenticator.authenticate`."""
        name = credential.reveal()
        self.asked.append(name)
        if name == "bob" or not name:
            return succeed(Caller(Principal("file", name, "b" * 32), credential))
        return fail(AuthUnavailable() if name == "carol" else InvalidCredential())


class Steps:
    """A gate with tight limits."""

    def __init__(self, *, anonymous: bool = False) -> None:
        self.clock = Clock()
        self.keys = Keys()
        self.meters = Meters()
        self.slots = Slots()
        self.revocations = Revocations()
        self.gate = Gate(
            authenticator=self.keys,
            lockout=Lockout(self.clock, self.meters),
            admission=Admission(
                RateLimiter(self.clock),
                self.slots,
                per_key=Rate(0.001, 12.0),
                per_address=Rate(0.001, 3.0),
                concurrent_per_key=3,
            ),
            slots=self.slots,
            revocations=self.revocations,
            meters=self.meters,
            realm="gate",
            headers=(b"x-notes-key",),
            anonymous=anonymous,
        )

    def identify(
        self,
        *lines: tuple[bytes, bytes],
        query: bytes | None = None,
        memo: dict[str, Any] | None = None,
    ) -> Caller | Deferred[Caller]:
        """Ask who calls."""
        return self.gate.identify(Fields(lines), query, "192.0.2.1", memo)


def bearer(name: bytes) -> tuple[bytes, bytes]:
    """Make the field with a key."""
    return (b"authorization", b"Bearer " + name)


class IdentifyTests(SynchronousTestCase):
    """Who calls."""

    def test_a_remembered_key_is_known_at_once(self) -> None:
        """Whatever its neighbours behind the same address do."""
        steps = Steps()
        for _ in range(5):
            with self.assertRaises(GateError):
                steps.identify()
        for line in (bearer(b"alice"), (b"x-api-key", b"alice"), (b"x-notes-key", b"alice")):
            self.assertIs(steps.identify(line), ALICE)
        self.assertEqual(steps.keys.asked, [])

    def test_the_key_of_a_head_that_came_again(self) -> None:
        """It is not looked for again, but whether it is good is."""
        steps = Steps()
        memo: dict[str, Any] = {}
        for _ in range(2):
            self.assertIs(steps.identify(bearer(b"alice"), memo=memo), ALICE)
        self.assertEqual(memo["credential"], Secret("alice"))
        steps.keys.known = ()
        asking = steps.identify(bearer(b"alice"), memo=memo)
        assert isinstance(asking, Deferred)
        self.failureResultOf(asking, InvalidCredential)
        unknown: dict[str, Any] = {}
        asking = steps.identify(bearer(b"bob"), memo=unknown)
        assert isinstance(asking, Deferred)
        self.successResultOf(asking)
        self.assertEqual(unknown, {})

    def test_an_unknown_key_is_asked_for(self) -> None:
        """The answer comes later, good or bad."""
        steps = Steps()
        asking = steps.identify(bearer(b"bob"))
        assert isinstance(asking, Deferred)
        self.assertEqual(self.successResultOf(asking).principal.subject, "bob")
        asking = steps.identify(bearer(b"mallory"))
        assert isinstance(asking, Deferred)
        error = self.failureResultOf(asking, InvalidCredential).value
        ((name, value),) = error.fields
        self.assertEqual(name, b"www-authenticate")
        self.assertIn(b"invalid_token", value)
        self.assertEqual(steps.meters.events["auth_refused"], 1)
        asking = steps.identify(bearer(b"carol"))
        assert isinstance(asking, Deferred)
        self.failureResultOf(asking, AuthUnavailable)

    def test_a_missing_or_impossible_key_is_challenged(self) -> None:
        """401 tells how to send one."""
        steps = Steps()
        for lines in ((), ((b"authorization", b"Basic x"),)):
            error = self.assertRaises(Unauthenticated, steps.identify, *lines)
            self.assertEqual(error.fields, ((b"www-authenticate", b'Bearer realm="gate"'),))

    def test_every_try_without_a_good_key_counts_for_its_address(self) -> None:
        """Missing, ambiguous and wrong keys are limited alike."""
        steps = Steps()
        with self.assertRaises(BadRequest):
            steps.identify(bearer(b"alice"), (b"x-api-key", b"bob"))
        with self.assertRaises(BadRequest):
            steps.identify(query=b"api_key=alice")
        with self.assertRaises(Unauthenticated):
            steps.identify()
        with self.assertRaises(RateLimited):
            steps.identify()
        with self.assertRaises(RateLimited):
            steps.identify(bearer(b"bob"))
        self.assertEqual(steps.keys.asked, [])
        self.assertEqual(steps.meters.events["rate_limited"], 2)

    def test_everybody_may_be_welcome(self) -> None:
        """With an open listener the absence of a key is a credential of its own."""
        asking = Steps(anonymous=True).identify()
        assert isinstance(asking, Deferred)
        self.assertEqual(self.successResultOf(asking).principal.subject, "")


class VouchTests(SynchronousTestCase):
    """Whose key an operator shows."""

    def test_vouch(self) -> None:
        """Known at once or asked for; nobody is locked out for a wrong one."""
        steps = Steps()
        self.assertIs(self.successResultOf(steps.gate.vouch(Secret("alice"))), ALICE)
        caller = self.successResultOf(steps.gate.vouch(Secret("bob")))
        self.assertEqual(caller.principal.subject, "bob")
        for _ in range(30):
            self.failureResultOf(steps.gate.vouch(Secret("eve")), InvalidCredential)
        self.assertIsInstance(steps.identify(bearer(b"bob")), Deferred)


class ChargeTests(SynchronousTestCase):
    """What calls and starts cost."""

    def test_calls(self) -> None:
        """Each of several calls costs; who has not enough is told when."""
        steps = Steps()
        steps.gate.charge(ALICE, SPEC, count=12)
        error = self.assertRaises(RateLimited, steps.gate.charge, ALICE, SPEC)
        self.assertGreater(error.retry_after_s or 0, 0)
        self.assertEqual(steps.meters.events["rate_limited"], 1)

    def test_starts(self) -> None:
        """A start costs more than a call."""
        steps = Steps()
        steps.gate.charge_start(ALICE)
        self.assertRaises(RateLimited, steps.gate.charge_start, ALICE)
        self.assertEqual(steps.meters.events["rate_limited"], 1)


class PlaceTests(SynchronousTestCase):
    """Calls in work and streams."""

    def test_all_or_none(self) -> None:
        """Calls that do not all fit take no place."""
        steps = Steps()
        self.assertRaises(Overloaded, steps.gate.enter, ALICE, count=4)
        self.assertEqual(steps.slots.taken(ALICE.principal), 0)
        self.assertEqual(steps.meters.calls_in_work, 0)
        self.assertEqual(steps.meters.events["overloaded"], 1)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30))
    def test_never_more_than_taken_is_given_back(self, moves: list[tuple[bool, int]]) -> None:
        """Whoever says more than once that it is over gives back once."""
        steps = Steps()
        entered: list[tuple[list[int], object]] = []
        for enters, number in moves:
            if enters:
                try:
                    leave = steps.gate.enter(ALICE, count=number)
                except Overloaded:
                    continue
                entered.append(([number], leave))
            elif entered:
                left, leave = entered[number % len(entered)]  # type: ignore[assignment]  # kept as object
                leave()
                left[0] = max(0, left[0] - 1)
        taken = sum(left[0] for left, _ in entered)
        self.assertEqual(steps.slots.taken(ALICE.principal), taken)
        self.assertEqual(steps.meters.calls_in_work, taken)

    def test_streams(self) -> None:
        """A stream has its place and keeps its key checked, until it is over, once."""
        steps = Steps()
        first = steps.gate.open_stream(ALICE, 1)
        self.assertTrue(steps.revocations.watches(ALICE.principal))
        self.assertRaises(Overloaded, steps.gate.open_stream, ALICE, 1)
        self.assertEqual(steps.meters.streams, 1)
        first()
        first()
        self.assertEqual(steps.meters.streams, 0)
        self.assertFalse(steps.revocations.watches(ALICE.principal))
        steps.gate.open_stream(ALICE, 1)
