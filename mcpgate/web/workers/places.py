"""
Counted places over all processes: a table in memory that they share, one part for each.

Every process writes its own part alone and reads all of them, so nothing is locked, and what a
process that died had taken is given back by clearing its part.  A place is taken first and counted
then: there are never more than the limit, but of two that take the last one at the same moment
both may be refused.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Hashable
from hashlib import blake2b
from typing import Final

from zope.interface import implementer

from mcpgate.interfaces import ISlots

#: Of one process: keys that have places taken at once, about; a key more is not counted.
ENTRIES: Final = 1 << 15
# A key is in one of so many entries that follow its own place.
_WINDOW: Final = 32
_ENTRY: Final = struct.Struct("=8sQ")
_PART: Final = (ENTRIES + _WINDOW) * _ENTRY.size
# Names of keys seen lately; the same few come all the time.
_REMEMBERED: Final = 4096


def make_table(parts: int) -> int:
    """Make the memory for so many processes, and give its descriptor."""
    descriptor = os.memfd_create("mcpgate-places", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, parts * _PART)
    return descriptor


@implementer(ISlots)
class SharedPlaces:
    """
    The table, as one process uses it.

    :param descriptor: of `make_table`; may be closed afterwards.
    :param part: number of the part this process writes.
    """

    def __init__(self, descriptor: int, part: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._part = part
        self._parts = len(self._memory) // _PART
        self._known: dict[Hashable, tuple[bytes, int]] = {}

    def acquire(self, key: Hashable, limit: int) -> bool:
        """See `ISlots.acquire`."""
        name, first = self._place(key)
        start = self._part * _PART + first
        at = self._find(name, start)
        if at < 0:
            at = self._free(start)
            if at < 0:
                # More keys than the table was made for: better served uncounted than not.
                return True
            count = 0
        else:
            _, count = _ENTRY.unpack_from(self._memory, at)
        _ENTRY.pack_into(self._memory, at, name, count + 1)
        if limit and self._taken(name, first) > limit:
            _ENTRY.pack_into(self._memory, at, name, count)
            return False
        return True

    def release(self, key: Hashable) -> None:
        """See `ISlots.release`."""
        name, first = self._place(key)
        at = self._find(name, self._part * _PART + first)
        if at >= 0:
            _, count = _ENTRY.unpack_from(self._memory, at)
            if count:
                _ENTRY.pack_into(self._memory, at, name, count - 1)

    def taken(self, key: Hashable) -> int:
        """Tell how many places of ``key`` are taken, in all processes."""
        return self._taken(*self._place(key))

    def clear(self, part: int) -> None:
        """Give back what a process that is no more had taken."""
        self._memory[part * _PART : (part + 1) * _PART] = bytes(_PART)

    def _taken(self, name: bytes, first: int) -> int:
        total = 0
        for part in range(self._parts):
            at = self._find(name, part * _PART + first)
            if at >= 0:
                total += _ENTRY.unpack_from(self._memory, at)[1]
        return total

    def _find(self, name: bytes, start: int) -> int:
        """Give where the entry of this name is in its window; -1 when there is none."""
        end = start + _WINDOW * _ENTRY.size
        at = self._memory.find(name, start, end)
        while at >= 0 and (at - start) % _ENTRY.size:
            at = self._memory.find(name, at + 1, end)
        return at

    def _free(self, start: int) -> int:
        """Give where nothing is counted in a window of ours; -1 when all of it is taken."""
        for at in range(start, start + _WINDOW * _ENTRY.size, _ENTRY.size):
            if not _ENTRY.unpack_from(self._memory, at)[1]:
                return at
        return -1

    def _place(self, key: Hashable) -> tuple[bytes, int]:
        place = self._known.get(key)
        if place is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            place = self._known[key] = _place(key)
        return place


def _place(key: Hashable) -> tuple[bytes, int]:
    name = blake2b(repr(key).encode(), digest_size=8).digest()
    return name, int.from_bytes(name[:4], "little") % ENTRIES * _ENTRY.size
