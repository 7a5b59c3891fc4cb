"""
How often and how much at once: token buckets and counted places.

Buckets are kept as one number per key, the generic cell rate algorithm (GCRA): the time at which
the bucket will be full again.  It grows by ``cost / per_s`` with each grant and may run ahead of
now by ``burst / per_s`` at most.  The same arithmetic as counting tokens, without rounding that
adds up, and nothing to do for buckets nobody asks about.  R85.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import Overloaded, RateLimited
from mcpgate.interfaces import IRateLimiter, ISlots
from mcpgate.model import Caller, Decision, Rate

log = Logger()

CALL_COST: Final = 1.0
START_COST: Final = 10.0
PER_KEY: Final = Rate(20.0, 40.0)
PER_ADDRESS: Final = Rate(50.0, 100.0)

#: Clock readings are floats: who waits exactly as long as told must not fail by rounding.
_TOLERANCE_S: Final = 1e-6
_GRANTED: Final = tuple(Decision(True, 0.0, left) for left in range(256))


@implementer(IRateLimiter)
class RateLimiter:
    """
    Buckets by key, in memory.

    A cost above the burst counts as the whole burst: it is granted when the bucket is full, for
    else it never could be.  A rate of 0 per second means no limit.

    :param max_keys: buckets kept; beyond it the longest untouched is forgotten (it is full then,
        unless somebody floods us with keys).
    """

    def __init__(self, clock: IReactorTime, max_keys: int = 100_000) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        """Tell how many buckets are kept."""
        return len(self._full_at)

    def take(self, key: Hashable, rate: Rate, cost: float) -> Decision:
        """See `IRateLimiter.take`."""
        per_s = rate.per_s
        if per_s <= 0:
            return _GRANTED[-1]
        now = self._clock.seconds()
        full_at = self._full_at.get(key)
        if full_at is None:
            self._make_room(now)
            full_at = now
        else:
            self._full_at.move_to_end(key)
            full_at = max(full_at, now)
        burst = rate.burst
        after = full_at + (cost if cost < burst else burst) / per_s
        spare_s = now + burst / per_s - after
        if spare_s < -_TOLERANCE_S:
            return Decision(False, -spare_s, max(0, int((spare_s + after - full_at) * per_s)))
        self._full_at[key] = after
        left = int((spare_s + _TOLERANCE_S) * per_s)
        return _GRANTED[left] if left < 256 else Decision(True, 0.0, left)

    def give_back(self, key: Hashable, rate: Rate, cost: float) -> None:
        """Return tokens that were taken for something that did not happen."""
        full_at = self._full_at.get(key)
        if full_at is not None and rate.per_s > 0:
            self._full_at[key] = full_at - min(cost, rate.burst) / rate.per_s

    def _make_room(self, now: float) -> None:
        """Forget up to two full buckets, so that a new one does not make us grow."""
        buckets = self._full_at
        for _ in range(2):
            if not buckets:
                return
            oldest = next(iter(buckets))
            if buckets[oldest] > now and len(buckets) < self._max_keys:
                return
            del buckets[oldest]


@implementer(ISlots)
class Slots:
    """Counted places by key; a key without taken places costs nothing."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, int] = {}

    def acquire(self, key: Hashable, limit: int) -> bool:
        """See `ISlots.acquire`."""
        taken = self._taken.get(key, 0)
        if limit and taken >= limit:
            return False
        self._taken[key] = taken + 1
        return True

    def release(self, key: Hashable) -> None:
        """See `ISlots.release`."""
        taken = self._taken.get(key, 0)
        if taken > 1:
            self._taken[key] = taken - 1
        elif taken:
            del self._taken[key]
        else:
            log.error("A place was given back that nobody had taken")

    def taken(self, key: Hashable) -> int:
        """Tell how many places of ``key`` are taken."""
        return self._taken.get(key, 0)


class Admission:
    """
    The limits of the gate in the order a request meets them.

    :param per_key: None means no limit, as for ``per_address`` and ``per_server``.
    :param concurrent_per_key: requests of one key in work at once; 0 means no limit.
    """

    def __init__(
        self,
        limiter: IRateLimiter,
        slots: ISlots,
        *,
        per_key: Rate | None = PER_KEY,
        per_address: Rate | None = PER_ADDRESS,
        per_server: Rate | None = None,
        concurrent_per_key: int = 64,
        start_cost: float = START_COST,
        call_cost: float = CALL_COST,
    ) -> None:
        self._limiter = limiter
        self._slots = slots
        self._per_key = per_key
        self._per_address = per_address
        self._per_server = per_server
        self._concurrent_per_key = concurrent_per_key
        self._start_cost = start_cost
        self._call_cost = call_cost

    def knock(self, address: str) -> None:
        """
        Count a request of this address, before anything is known about it.

        Unix sockets have no address and no limit.

        :raises RateLimited: its bucket is empty.
        """
        if self._per_address is not None and address:
            self._take(("address", address_group(address)), self._per_address, 1.0)

    def call(self, caller: Caller, server: str, server_rate: Rate | None = None) -> None:
        """
        Count one call of a caller to a server.

        :param server_rate: the server's own limit, in place of ``per_server``.
        :raises RateLimited: the key's or the server's bucket is empty.
        """
        if self._per_key is not None:
            self._take(("key", caller.principal), self._per_key, self._call_cost)
        rate = server_rate or self._per_server
        if rate is not None:
            self._take(("server", server), rate, 1.0)

    def give_back(self, caller: Caller, server: str, server_rate: Rate | None = None) -> None:
        """Return what `call` took, for one that is charged elsewhere."""
        if self._per_key is not None:
            self._limiter.give_back(("key", caller.principal), self._per_key, self._call_cost)
        rate = server_rate or self._per_server
        if rate is not None:
            self._limiter.give_back(("server", server), rate, 1.0)

    def told(self, caller: Caller) -> None:
        """
        Count one message that wants no answer: as often as calls, out of a bucket of its own.

        :raises RateLimited: the bucket is empty.
        """
        if self._per_key is not None:
            self._take(("told", caller.principal), self._per_key, self._call_cost)

    def start(self, caller: Caller) -> None:
        """
        Count what a cold start costs beyond the call that caused it.

        :raises RateLimited: the key's bucket does not hold as much.
        """
        extra = self._start_cost - self._call_cost
        if self._per_key is not None and extra > 0:
            self._take(("key", caller.principal), self._per_key, extra)

    def enter(self, caller: Caller) -> None:
        """
        Take a place for one request in work; `leave` must follow.

        :raises Overloaded: the key has as many requests in work as it may.
        """
        if not self._slots.acquire(caller.principal, self._concurrent_per_key):
            raise Overloaded(
                f"This key has {self._concurrent_per_key} requests in work; wait for one to end.",
                retry_after_s=1.0,
            )

    def leave(self, caller: Caller) -> None:
        """Give the place back."""
        self._slots.release(caller.principal)

    def _take(self, key: Hashable, rate: Rate, cost: float) -> None:
        decision = self._limiter.take(key, rate, cost)
        if not decision.allowed:
            raise RateLimited(retry_after_s=decision.retry_after_s)


def address_group(address: str) -> str:
    """
    Give what addresses are limited by: an IPv4 address, or the /64 an IPv6 address is of.

    Whoever has one IPv6 address has all 2**64 of its network.
    """
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
