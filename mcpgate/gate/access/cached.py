"""
Answers remembered: good keys for a while, bad keys for a shorter while.

A good key in use is asked about again before its time is up, in the background, so that a warm
call never waits.  While its source can not answer, a good key passes on for ``stale_ok_s``; a key
that is not remembered fails with `AuthUnavailable` (R57).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import AuthUnavailable, InvalidCredential, Unauthenticated
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.access.flight import SingleFlight
from mcpgate.gate.access.revocation import Revocations
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Secret
from mcpgate.timing.deferreds import deferred

log = Logger()

# What one sweep forgets, good keys and bad ones each: some 20 ms.
_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """
    For how long what is remembered; seconds, and numbers of keys.

    :ivar ttl_s: a good key is good for this long.
    :ivar negative_ttl_s: a bad key is bad for this long.
    :ivar stale_ok_s: a good key passes for this long beyond ``ttl_s`` while the source can not
        answer: at most ``ttl_s + stale_ok_s`` after it was last found good.
    :ivar refresh_s: a key in use is asked about again this long before its time is up.
    :ivar retry_s: pause between two questions about one key while the source can not answer.
    :ivar max_keys: good keys remembered; the longest unused is forgotten.  As many bad ones.
    """

    ttl_s: float = 60.0
    negative_ttl_s: float = 30.0
    stale_ok_s: float = 300.0
    refresh_s: float = 12.0
    retry_s: float = 5.0
    max_keys: int = 100_000


@dataclass(slots=True)
class _Entry:
    """
    One good key.

    :ivar refresh_at: from now on a use asks again, in the background.
    :ivar expires_at: from now on a use waits for the answer.
    :ivar ends_at: from now on it is not passed on, whatever happens to the source.
    """

    caller: Caller
    refresh_at: float
    expires_at: float
    ends_at: float


@implementer(IAuthenticator)
class CachedAuthenticator:
    """
    Remembers what ``inner`` said; asks one question per key at a time.

    :param issuer: the name ``inner`` puts into the principals it makes.
    """

    def __init__(
        self,
        inner: IAuthenticator,
        clock: IReactorTime,
        digest: KeyDigest,
        revocations: Revocations,
        *,
        issuer: str,
        memory: Memory = Memory(),
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._digest = digest
        self._revocations = revocations
        self._issuer = issuer
        self._memory = memory
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._refusals: OrderedDict[str, float] = OrderedDict()
        self._endings: deque[tuple[float, str]] = deque()
        self._flights: SingleFlight[str, Caller] = SingleFlight()

    def __len__(self) -> int:
        """Tell how many good keys are remembered."""
        return len(self._entries)

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        key = self._digest(credential)
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock.seconds()
        if now >= entry.expires_at:
            return None
        self._entries.move_to_end(key)
        if now >= entry.refresh_at:
            self._refresh(key, credential)
        return entry.caller

    def authenticate(self, credential: Secret) -> Deferred[Caller]:
        """See `IAuthenticator.authenticate`."""
        key = self._digest(credential)
        now = self._clock.seconds()
        entry = self._entries.get(key)
        if entry is not None and now < entry.expires_at:
            return succeed(entry.caller)
        refused_until = self._refusals.get(key)
        if refused_until is not None:
            if now < refused_until:
                return fail(InvalidCredential())
            del self._refusals[key]
        return self._ask(key, credential)

    def forget(self, key_digest: str) -> None:
        """Drop what is remembered of a key, good or bad: the next use asks."""
        self._entries.pop(key_digest, None)
        self._refusals.pop(key_digest, None)

    def sweep(self) -> None:
        """
        Ask again about the keys of open streams, forget what is over.

        To be called every few seconds; costs what there is to do, not what is remembered, and of
        very much that is over a part is left to the next time: nobody uses it any more.
        """
        now = self._clock.seconds()
        for caller in self._revocations.watched(self._issuer):
            key = caller.principal.key_digest
            entry = self._entries.get(key)
            if entry is None or now >= entry.refresh_at:
                self._refresh(key, caller.credential)
        for _ in range(_AT_ONCE):
            if not self._endings or self._endings[0][0] > now:
                break
            _, key = self._endings.popleft()
            entry = self._entries.get(key)
            # A flight that is about this key settles its end itself.
            if entry is not None and entry.ends_at <= now and key not in self._flights:
                del self._entries[key]
                self._end_watched(entry.caller)
        for _ in range(_AT_ONCE):
            if not self._refusals:
                break
            key, until = next(iter(self._refusals.items()))
            if until > now:
                break
            del self._refusals[key]

    def _refresh(self, key: str, credential: Secret) -> None:
        if key not in self._flights:
            self._ask(key, credential).addErrback(self._refresh_failed)

    def _refresh_failed(self, failure: Failure) -> None:
        # Refusals and outages are dealt with where the answer is kept; the rest are bugs.
        if failure.check(Unauthenticated, AuthUnavailable) is None:
            log.failure("Asking about a key again failed", failure)

    def _ask(self, key: str, credential: Secret) -> Deferred[Caller]:
        return self._flights.run(key, lambda: self._check(key, credential))

    @deferred
    async def _check(self, key: str, credential: Secret) -> Caller:
        try:
            caller = await self._inner.authenticate(credential)
        except Unauthenticated:
            self._refused(key)
            raise
        except AuthUnavailable:
            stale = self._stale(key)
            if stale is None:
                raise
            return stale
        self._keep(key, caller)
        return caller

    def _keep(self, key: str, caller: Caller) -> None:
        memory = self._memory
        now = self._clock.seconds()
        expires_at = now + memory.ttl_s
        entry = _Entry(
            caller,
            refresh_at=max(now, expires_at - memory.refresh_s),
            expires_at=expires_at,
            ends_at=expires_at + memory.stale_ok_s,
        )
        before = self._entries.get(key)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._endings.append((entry.ends_at, key))
        self._refusals.pop(key, None)
        if before is not None and before.caller.principal != caller.principal:
            self._revocations.announce(before.caller.principal)
        while len(self._entries) > memory.max_keys:
            self._entries.popitem(last=False)

    def _refused(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        self._refusals[key] = self._clock.seconds() + self._memory.negative_ttl_s
        self._refusals.move_to_end(key)
        while len(self._refusals) > self._memory.max_keys:
            self._refusals.popitem(last=False)
        if entry is not None:
            self._revocations.announce(entry.caller.principal)
            return
        for principal in self._revocations.watched_with(self._issuer, key):
            self._revocations.announce(principal)

    def _stale(self, key: str) -> Caller | None:
        """Give the remembered caller while it may be passed on, and put the next question off."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock.seconds()
        if now >= entry.ends_at:
            del self._entries[key]
            self._end_watched(entry.caller)
            return None
        retry_s = self._memory.retry_s
        entry.refresh_at = now + retry_s
        # Later than the next question, so that nobody waits for its answer.
        entry.expires_at = min(entry.ends_at, max(entry.expires_at, now + 2 * retry_s))
        return entry.caller

    def _end_watched(self, caller: Caller) -> None:
        """Close the streams of a key that could not be checked for too long."""
        if self._revocations.watches(caller.principal):
            self._revocations.announce(caller.principal)
