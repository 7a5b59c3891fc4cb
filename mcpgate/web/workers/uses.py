"""
What workers use on the owner's word, and whether that word still holds: a table they all share.

Each grant has a number in it.  The owner writes who has a number now, or that nobody has it; each
worker writes in a part of its own how many requests of a grant it has in work and when it used it
last.  A worker counts itself in first and looks then whether the grant holds, the owner withdraws
first and looks then who is in: whatever the order of the two, one of them sees the other, and
neither sends the other a word.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

#: Grants at once; what would be one more is served by the owner.
GRANTS: Final = 8192
_WORD: Final = 8
# Per grant and worker: requests in work, clock reading of the last use, of the server's last byte.
_IN_WORK, _USED, _HEARD = range(3)
_WORDS: Final = 3


def make_table(parts: int) -> int:
    """Make the memory for so many processes, and give its descriptor."""
    descriptor = os.memfd_create("mcpgate-uses", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, GRANTS * _WORD * (1 + parts * _WORDS))
    return descriptor


class Uses:
    """
    The table, as one process uses it.

    :param descriptor: of `make_table`; may be closed afterwards.
    :param part: number of the part this process writes.
    """

    def __init__(self, descriptor: int, part: int) -> None:
        memory = memoryview(mmap.mmap(descriptor, 0))
        self._whole = memory.cast("Q")
        self._times = memory.cast("d")
        self._parts = range(
            GRANTS, len(self._whole), GRANTS * _WORDS
        )  # where each process's own begins
        self._mine = self._parts[part]

    # --- A worker's ---------------------------------------------------------------------------

    def begin(self, number: int, serial: int, now_s: float) -> bool:
        """Count one request in; False when the grant does not hold any more."""
        at = self._mine + number * _WORDS
        self._whole[at] += 1
        if self._whole[number] != serial:
            self._whole[at] -= 1
            return False
        self._times[at + _USED] = now_s
        return True

    def touch(self, number: int, now_s: float) -> None:
        """Bytes went by."""
        self._times[self._mine + number * _WORDS + _USED] = now_s

    def heard(self, number: int, at_s: float) -> None:
        """Something came from the server."""
        self._times[self._mine + number * _WORDS + _HEARD] = at_s

    def end(self, number: int, now_s: float) -> None:
        """Count one request out."""
        at = self._mine + number * _WORDS
        self._times[at + _USED] = now_s
        self._whole[at] -= 1

    # --- The owner's --------------------------------------------------------------------------

    def grant(self, number: int, serial: int) -> None:
        """Let workers use this number under this serial, which is never 0 and never used again."""
        for start in self._parts:
            at = start + number * _WORDS
            # Counts are the workers' alone; of those nobody has they are 0.
            self._times[at + _USED] = self._times[at + _HEARD] = 0.0
        self._whole[number] = serial

    def withdraw(self, number: int) -> None:
        """Let no further request use it."""
        self._whole[number] = 0

    def in_work(self, number: int) -> int:
        """Tell how many requests use it now."""
        return sum(self._whole[start + number * _WORDS] for start in self._parts)

    def used_s(self, number: int) -> float:
        """Give the clock reading of its last use; 0 before there was one."""
        return max(self._times[start + number * _WORDS + _USED] for start in self._parts)

    def heard_s(self, number: int) -> float:
        """Give the clock reading of when something came from the server last; 0 before."""
        return max(self._times[start + number * _WORDS + _HEARD] for start in self._parts)

    def clear(self, part: int) -> None:
        """Forget what a process that is no more had in work."""
        start = self._parts[part]
        for number in range(GRANTS):
            self._whole[start + number * _WORDS + _IN_WORK] = 0
