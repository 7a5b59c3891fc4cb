"""Many who want the same thing at once get it from one question."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """
    One piece of work per key at a time, its outcome shared.

    Cancelling a waiter removes that waiter only.  The work goes on even when all have left: it
    has its own deadline, and whoever left will soon ask again.
    """

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[K, list[Deferred[T]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    def run(self, key: K, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Join the work under way for ``key``, or begin it with ``start``."""
        waiters = self._flights.get(key)
        begin = waiters is None
        if waiters is None:
            waiters = self._flights[key] = []
        waiter: Deferred[T] = Deferred(self._leave(waiters))
        waiters.append(waiter)
        if begin:
            start().addBoth(self._landed, key)
        return waiter

    def _leave(self, waiters: list[Deferred[T]]) -> Callable[[Deferred[T]], None]:
        def canceller(waiter: Deferred[T]) -> None:
            if waiter in waiters:
                waiters.remove(waiter)

        return canceller

    def _landed(self, outcome: T | Failure, key: K) -> None:
        waiters = self._flights.pop(key)
        while waiters:
            # One at a time: what a waiter does may cancel the next one.
            waiters.pop(0).callback(outcome)
