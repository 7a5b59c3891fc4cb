"""Something that takes long to come by: had on a thread when first asked for, kept from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

T = TypeVar("T")
F = TypeVar("F")


class Late(Generic[T]):
    """
    One such thing, for all who wait.

    A try that fails, fails those who waited for it; whoever asks next begins another.

    :param apart: does the first step on a thread.
    :param load: the first step, mostly imports; runs elsewhere.
    :param make: makes the thing of what was loaded; runs here.
    """

    def __init__(
        self,
        apart: Callable[[Callable[[], F]], Deferred[F]],
        load: Callable[[], F],
        make: Callable[[F], T],
    ) -> None:
        self._begin = lambda: apart(load).addCallback(make)
        self._had: list[T] = []
        self._waiting: list[Deferred[T]] = []

    def get(self) -> Deferred[T]:
        """Give the thing, at once if it is there.  Who waits no longer cancels only for itself."""
        if self._had:
            return succeed(self._had[0])
        waiter: Deferred[T] = Deferred()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._begin().addBoth(self._come)
        return waiter

    def _come(self, what: T | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        if not isinstance(what, Failure):
            self._had.append(what)
        for waiter in waiting:
            # One that was cancelled takes this, too, and drops it.
            waiter.callback(what)
