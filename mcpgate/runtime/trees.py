"""Folders removed without making the reactor wait for the disk."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mcpgate.runtime.places import remove_tree

log = Logger()


class TreeRemover:
    """Removes folders one after the other, on one thread of its own that exists while needed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool: ThreadPool | None = None
        self._pending: set[Deferred[None]] = set()

    def remove(self, folder: str) -> Deferred[None]:
        """Remove the folder, soon; fires when it is gone, and never fails."""
        if self._pool is None:
            self._pool = ThreadPool(0, 1, name="mcpgate-trees")
            self._pool.start()
        removing: Deferred[None] = deferToThreadPool(self._reactor, self._pool, remove_tree, folder)
        self._pending.add(removing)

        def done(result: object) -> None:
            self._pending.discard(removing)
            if isinstance(result, Failure):
                log.failure("A folder was not removed", result)

        return removing.addBoth(done)

    def idle(self) -> Deferred[Any]:
        """Fire when everything asked for so far is done."""
        return DeferredList([self._after(pending) for pending in tuple(self._pending)])

    def _after(self, pending: Deferred[None]) -> Deferred[None]:
        """Give a Deferred of the caller's own that fires after another one."""
        after: Deferred[None] = Deferred()

        def pass_on(result: None) -> None:
            after.callback(None)

        pending.addCallback(pass_on)
        return after

    def stop(self) -> None:
        """Let go of the thread; call it when idle, or it waits for the disk."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
