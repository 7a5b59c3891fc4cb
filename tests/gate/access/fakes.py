"""What the tests of this folder share: a source of keys under full control."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mcpgate.errors import AuthUnavailable, InvalidCredential
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Principal, Secret

DIGEST = KeyDigest(b"\x07" * 32)
ISSUER = "wiki"
CANARY = "canary-0123456789abcdef"


def caller(key: str, subject: str = "", issuer: str = ISSUER) -> Caller:
    """Make the caller a source would make of a key; the subject is the key's first word."""
    name = subject or key.partition("-")[0]
    return Caller(Principal(issuer, name, DIGEST(Secret(key))), Secret(key))


@implementer(IAuthenticator)
class FakeSource:
    """
    Knows the keys in ``good``; keeps questions open while ``hold`` is set.

    :ivar asked: every key asked about, in order.
    :ivar down: every question fails `AuthUnavailable`.
    :ivar broken: raise this instead of answering.
    """

    def __init__(self, *good: str, hold: bool = False) -> None:
        self.good = set(good)
        self.subjects: dict[str, str] = {}
        self.hold = hold
        self.down = False
        self.broken: Exception | None = None
        self.asked: list[str] = []
        self.open: list[tuple[str, Deferred[Caller]]] = []
        self.cancelled = 0

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        return None

    def authenticate(self, credential: Secret) -> Deferred[Caller]:
        """See `IAuthenticator.authenticate`."""
        key = credential.reveal()
        self.asked.append(key)
        if self.hold:
            waiting: Deferred[Caller] = Deferred(self._cancel)
            self.open.append((key, waiting))
            return waiting
        return self._answer(key)

    def answer(self) -> None:
        """Answer the oldest open question."""
        key, waiting = self.open.pop(0)
        self._answer(key).chainDeferred(waiting)

    def _cancel(self, _: Deferred[Caller]) -> None:
        self.cancelled += 1

    def _answer(self, key: str) -> Deferred[Caller]:
        if self.broken is not None:
            return fail(self.broken)
        if self.down:
            return fail(AuthUnavailable())
        if key in self.good:
            return succeed(caller(key, self.subjects.get(key, "")))
        return fail(InvalidCredential())
