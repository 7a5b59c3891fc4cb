"""
Guessing keys made slow: per address (R69).

Only keys that are not remembered are held back: a good key that works from an address goes on
working, whatever its neighbours behind the same address try.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mcpgate.errors import InvalidCredential, RateLimited
from mcpgate.gate.admission import RateLimiter, address_group
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Rate, Secret
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred

log = Logger()

_TWENTY_A_MINUTE: Final = Rate(20 / 60, 20.0)


class Lockout:
    """
    Counts wrong keys by address; over ``rate``, the address waits.

    :param rate: wrong keys forgiven: by default 20, and 20 more each minute.
    :param lockout_s: how long an address waits then.
    :param max_addresses: addresses remembered; the longest quiet one is forgotten.
    """

    def __init__(
        self,
        clock: IReactorTime,
        meters: Meters,
        *,
        rate: Rate = _TWENTY_A_MINUTE,
        lockout_s: float = 900.0,
        max_addresses: int = 100_000,
    ) -> None:
        self._clock = clock
        self._meters = meters
        self._rate = rate
        self._lockout_s = lockout_s
        self._max_addresses = max_addresses
        self._buckets = RateLimiter(clock, max_addresses)
        self._locked: OrderedDict[str, float] = OrderedDict()

    @deferred
    async def authenticate(
        self, authenticator: IAuthenticator, credential: Secret, address: str
    ) -> Caller:
        """
        Check a credential that ``authenticator`` does not remember.

        Fails as `IAuthenticator.authenticate` does, and with `RateLimited` while the address is
        locked out.
        """
        self.check(address)
        try:
            return await authenticator.authenticate(credential)
        except InvalidCredential:
            self.failed(address)
            raise

    def check(self, address: str) -> None:
        """
        Refuse an address that is locked out.

        :raises RateLimited: it is; ``retry_after_s`` tells for how long.
        """
        if not self._locked:
            return
        group = address_group(address)
        until = self._locked.get(group)
        if until is None:
            return
        left_s = until - self._clock.seconds()
        if left_s > 0:
            raise RateLimited("Too many wrong keys came from this address.", retry_after_s=left_s)
        del self._locked[group]

    def failed(self, address: str) -> None:
        """Count one wrong key.  Unix sockets have no address: they are not held back."""
        if not address:
            return
        group = address_group(address)
        if self._buckets.take(group, self._rate, 1.0).allowed or group in self._locked:
            return
        log.warn(
            "Address {address} is locked out for {lockout_s:.0f} s: too many wrong keys",
            address=group,
            lockout_s=self._lockout_s,
        )
        self._meters.events["auth_locked_out"] += 1
        self._locked[group] = self._clock.seconds() + self._lockout_s
        while len(self._locked) > self._max_addresses:
            self._locked.popitem(last=False)
