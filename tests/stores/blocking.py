"""A blocking thread that is none, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute

T = TypeVar("T")


class ImmediateThread:
    """
    Does the work at once, here; or when told, if ``held``.

    :ivar stopped: how often it was told to stop.
    """

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.stopped = 0

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """See `mcpgate.stores.sqlite.IBlockingThread.run`."""
        if not self.held:
            return execute(work)
        result: Deferred[T] = Deferred(lambda _: None)
        self.waiting.append((result, work))
        return result

    def stop(self) -> None:
        """See `mcpgate.stores.sqlite.IBlockingThread.stop`."""
        self.stopped += 1

    def let_go(self) -> None:
        """Do what was held back."""
        self.held = False
        waiting, self.waiting = self.waiting, []
        for result, work in waiting:
            execute(work).chainDeferred(result)
