"""
How many wrong keys may reach the API that knows the keys, over all addresses (R69).

Keys that were good before are not held back: an attacker can keep strangers waiting, not users.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.defer import DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import AuthUnavailable, Unauthenticated
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.admission import RateLimiter
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Rate, Secret
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred

log = Logger()

_ALL: Final = "failures"
_TWO_HUNDRED_A_MINUTE: Final = Rate(200 / 60, 200.0)


@implementer(IAuthenticator)
class FailureBudget:
    """
    Passes keys it knows; lets strangers through while the budget of failures lasts.

    :param rate: failures allowed: by default 200, and 200 more each minute.
    :param strangers: unknown keys asked about at once; more would overdraw the budget.
    :param queue: unknown keys that may wait for that, each for ``wait_s``.
    :param max_known: keys known to be good; the longest unused is a stranger again.
    """

    def __init__(
        self,
        inner: IAuthenticator,
        clock: IReactorTime,
        digest: KeyDigest,
        *,
        meters: Meters,
        rate: Rate = _TWO_HUNDRED_A_MINUTE,
        strangers: int = 16,
        queue: int = 1000,
        wait_s: float = 5.0,
        max_known: int = 100_000,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._digest = digest
        self._meters = meters
        self._rate = rate
        self._queue = queue
        self._wait_s = wait_s
        self._max_known = max_known
        self._places = DeferredSemaphore(strangers)
        self._failures = RateLimiter(clock, 1)
        self._known: OrderedDict[str, None] = OrderedDict()

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        return self._inner.remembered(credential)

    @deferred
    async def authenticate(self, credential: Secret) -> Caller:
        """See `IAuthenticator.authenticate`."""
        key = self._digest(credential)
        try:
            if key in self._known:
                caller = await self._inner.authenticate(credential)
            else:
                caller = await self._stranger(credential)
        except Unauthenticated:
            self._known.pop(key, None)
            raise
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > self._max_known:
            self._known.popitem(last=False)
        return caller

    async def _stranger(self, credential: Secret) -> Caller:
        if len(self._places.waiting) >= self._queue:
            raise AuthUnavailable(retry_after_s=self._wait_s)
        try:
            await self._places.acquire().addTimeout(self._wait_s, self._clock)
        except TimeoutError:
            raise AuthUnavailable(retry_after_s=self._wait_s) from None
        try:
            decision = self._failures.take(_ALL, self._rate, 1.0)
            if not decision.allowed:
                self._meters.events["auth_budget_spent"] += 1
                raise AuthUnavailable(retry_after_s=decision.retry_after_s)
            failed = False
            try:
                return await self._inner.authenticate(credential)
            except Unauthenticated:
                failed = True
                raise
            finally:
                if not failed:
                    self._failures.give_back(_ALL, self._rate, 1.0)
        finally:
            self._places.release()
