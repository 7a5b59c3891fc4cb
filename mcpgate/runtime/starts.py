"""
A few starts at a time, fair between those who ask.

Starting a server costs most of a core for a second; fifty at once cost everybody.  Places are
given in turn to each principal that waits, and to each principal's starts in their order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from twisted.internet.defer import Deferred, succeed


class StartQueue:
    """
    Places for starts.

    :param parallel: starts under way at once.
    :param limit: starts that may wait; the caller asks `full` before it queues one more.
    """

    def __init__(self, parallel: int = 4, limit: int = 100) -> None:
        self._free = parallel
        self._limit = limit
        self._waiting: OrderedDict[Hashable, deque[Deferred[None]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    @property
    def full(self) -> bool:
        """One more would have to wait, and may not."""
        return self._free == 0 and self._length >= self._limit

    def acquire(self, who: Hashable) -> Deferred[None]:
        """Wait for a place; whoever got one gives it back with `release`.  Cancelling leaves."""
        if self._free:
            self._free -= 1
            return succeed(None)

        def leave(place: Deferred[None]) -> None:
            mine = self._waiting[who]
            mine.remove(place)
            self._length -= 1
            if not mine:
                del self._waiting[who]

        place: Deferred[None] = Deferred(leave)
        self._waiting.setdefault(who, deque()).append(place)
        self._length += 1
        return place

    def release(self) -> None:
        """Give a place back, to whoever is next."""
        if not self._waiting:
            self._free += 1
            return
        who, mine = self._waiting.popitem(last=False)
        place = mine.popleft()
        if mine:
            self._waiting[who] = mine  # To the end: the others come first.
        self._length -= 1
        place.callback(None)
