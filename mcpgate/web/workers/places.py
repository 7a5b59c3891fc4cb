"""
Counted places over all processes: a table in memory that they share, one part for each.

Every process writes its own part alone and reads all of them, so nothing is locked, and what a
process that died had taken is given back by clearing its part.  Two that take the last place at
the same moment may both get it; both count from then on.
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

    def acquire(self, key: Hashable, limit: int) -> bool:
        """See `ISlots.acquire`."""
        name, first = _place(key)
        if limit and self._taken(name, first) >= limit:
            return False
        start = self._part * _PART + first
        free = -1
        for at in range(start, start + _WINDOW * _ENTRY.size, _ENTRY.size):
            found, count = _ENTRY.unpack_from(self._memory, at)
            if count and found == name:
                _ENTRY.pack_into(self._memory, at, name, count + 1)
                return True
            if not count and free < 0:
                free = at
        if free >= 0:
            _ENTRY.pack_into(self._memory, free, name, 1)
        # Else more keys than the table was made for: better served uncounted than not.
        return True

    def release(self, key: Hashable) -> None:
        """See `ISlots.release`."""
        name, first = _place(key)
        start = self._part * _PART + first
        for at in range(start, start + _WINDOW * _ENTRY.size, _ENTRY.size):
            found, count = _ENTRY.unpack_from(self._memory, at)
            if count and found == name:
                _ENTRY.pack_into(self._memory, at, name, count - 1)
                return

    def taken(self, key: Hashable) -> int:
        """Tell how many places of ``key`` are taken, over all processes."""
        return self._taken(*_place(key))

    def _taken(self, name: bytes, first: int) -> int:
        total = 0
        for part in range(self._parts):
            start = part * _PART + first
            for at in range(start, start + _WINDOW * _ENTRY.size, _ENTRY.size):
                found, count = _ENTRY.unpack_from(self._memory, at)
                if count and found == name:
                    total += count
                    break
        return total

    def clear(self, part: int) -> None:
        """Give back what a process that is no more had taken."""
        self._memory[part * _PART : (part + 1) * _PART] = bytes(_PART)


def _place(key: Hashable) -> tuple[bytes, int]:
    name = blake2b(repr(key).encode(), digest_size=8).digest()
    return name, int.from_bytes(name[:4], "little") % ENTRIES * _ENTRY.size
