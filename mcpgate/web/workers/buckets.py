"""
Token buckets over all processes: one table in memory that they share.

The arithmetic is `mcpgate.gate.admission.RateLimiter`'s: of each bucket one number is kept, the
time at which it will be full.  To take from it the number is read and written, and no other process
may come between: the set of entries it is in is locked by the kernel meanwhile.  Such a lock costs
some microseconds, is held for as long, and is given up when its process dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Hashable
from hashlib import blake2b
from math import inf
from typing import Final

from zope.interface import implementer

from mcpgate.interfaces import IRateLimiter
from mcpgate.model import Decision, Rate

#: Of so many buckets each set has room; one more takes the place of that which is full first.
SET: Final = 32
SETS: Final = 4096
#: Kinds of keys whose buckets are shared: what only the owner asks about needs no lock.
KINDS: Final = frozenset({"key", "server"})
# A process that was stopped in the middle holds its lock: it is not waited for longer.
PATIENCE_S: Final = 0.05

_ENTRY: Final = struct.Struct("=8sd")
_SET_BYTES: Final = SET * _ENTRY.size
_REMEMBERED: Final = 4096
_TOLERANCE_S: Final = 1e-6
_UNLIMITED: Final = Decision(True, 0.0, 255)


def make_table() -> int:
    """Make the memory, and give its descriptor."""
    descriptor = os.memfd_create("mcpgate-buckets", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SETS * _SET_BYTES)
    return descriptor


@implementer(IRateLimiter)
class SharedBuckets:
    """
    The table, as one process uses it.

    :param seconds: reads a clock that is the same in all processes.
    :param descriptor: of `make_table`; to be kept open, for its locks.
    :param rest: asked about keys whose kind is none of `KINDS`.
    :param yield_turn: lets another process run.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        descriptor: int,
        rest: IRateLimiter,
        yield_turn: Callable[[], object] = os.sched_yield,
    ) -> None:
        self._seconds = seconds
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        self._rest = rest
        self._yield = yield_turn
        self._known: dict[Hashable, tuple[bytes, int]] = {}

    def take(self, key: Hashable, rate: Rate, cost: float) -> Decision:
        """See `IRateLimiter.take`."""
        if not isinstance(key, tuple) or key[0] not in KINDS:
            decision: Decision = self._rest.take(key, rate, cost)
            return decision
        if rate.per_s <= 0:
            return _UNLIMITED
        name, number = self._place(key)
        locked = self._lock(number)
        try:
            return self._take(name, number, rate, cost)
        finally:
            if locked:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)

    def give_back(self, key: Hashable, rate: Rate, cost: float) -> None:
        """Return tokens that were taken for something that did not happen."""
        if rate.per_s <= 0:
            return
        name, number = self._place(key)
        locked = self._lock(number)
        try:
            at = self._find(name, number)
            if at >= 0:
                _, full_at = _ENTRY.unpack_from(self._memory, at)
                _ENTRY.pack_into(
                    self._memory, at, name, full_at - min(cost, rate.burst) / rate.per_s
                )
        finally:
            if locked:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)

    def _take(self, name: bytes, number: int, rate: Rate, cost: float) -> Decision:
        now = self._seconds()
        per_s, burst = rate.per_s, rate.burst
        at = self._find(name, number)
        full_at = now
        if at >= 0:
            full_at = max(_ENTRY.unpack_from(self._memory, at)[1], now)
        after = full_at + min(cost, burst) / per_s
        spare_s = now + burst / per_s - after
        if spare_s < -_TOLERANCE_S:
            return Decision(False, -spare_s, max(0, int((spare_s + after - full_at) * per_s)))
        if at < 0:
            at = self._room(number)
        _ENTRY.pack_into(self._memory, at, name, after)
        return Decision(True, 0.0, int((spare_s + _TOLERANCE_S) * per_s))

    def _lock(self, number: int) -> bool:
        until = 0.0
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                now = self._seconds()
                until = until or now + PATIENCE_S
                if now >= until:
                    return False
                self._yield()
            else:
                return True

    def _find(self, name: bytes, number: int) -> int:
        """Give where the entry of this name is in its set; -1 when there is none."""
        start = number * _SET_BYTES
        at = self._memory.find(name, start, start + _SET_BYTES)
        while at >= 0 and (at - start) % _ENTRY.size:
            at = self._memory.find(name, at + 1, start + _SET_BYTES)
        return at

    def _room(self, number: int) -> int:
        """Give the entry whose bucket is full, or will be first: that is the same as none."""
        best, best_s = -1, inf
        for at in range(number * _SET_BYTES, (number + 1) * _SET_BYTES, _ENTRY.size):
            full_at = _ENTRY.unpack_from(self._memory, at)[1]
            if full_at < best_s:
                best, best_s = at, full_at
        return best

    def _place(self, key: Hashable) -> tuple[bytes, int]:
        place = self._known.get(key)
        if place is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            name = blake2b(repr(key).encode(), digest_size=8).digest()
            place = self._known[key] = name, int.from_bytes(name[:4], "little") % SETS
        return place
