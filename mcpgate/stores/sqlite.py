"""
Sessions kept in a SQLite file, written behind by one private thread.

`SQLiteStore.put` only notes the row; every 100 ms what was noted goes to the thread as one
transaction, each session once; of very much only so many rows at a time.  A full or broken disk
never disturbs a call: what could not be written waits, newest state per session, and is tried
again (R56).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import islice
from math import ceil, inf
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.interfaces import ISessionStore
from mcpgate.model import SessionKey, SessionRecord
from mcpgate.stores.session_file import Row, SessionFile, is_damage, row_of
from mcpgate.timing.deferreds import deferred

log = Logger()

T = TypeVar("T")

BATCH_S: Final = 0.1
# Before the first write after a quiet while: changes of one turn of the reactor go together.
LEAD_S: Final = 0.005
RETRY_S: Final = 5.0
CLOSE_S: Final = 5.0
WAITING_CHANGES: Final = 50_000
# To pick, to hand over and to let go of so many rows takes some milliseconds.
BATCH_ROWS: Final = 5_000


class IBlockingThread(Protocol):
    """Where blocking work is done, one piece after the other."""

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Do the work there; fire here."""

    def stop(self) -> None:
        """Take no more work; what was given before is still done."""


class OneThread:
    """
    A thread of our own.  It is a daemon: work stuck in a dead disk does not keep the gate alive.

    :param call_from_thread: ``reactor.callFromThread``.
    """

    def __init__(self, call_from_thread: Callable[..., Any], name: str) -> None:
        self._call_from_thread = call_from_thread
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._loop, name=name, daemon=True)
        self._started = False

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Do the work on the thread; its result or failure fires in the reactor's thread."""
        result: Deferred[T] = Deferred()

        def fire(outcome: T | Failure) -> None:
            if not result.called:
                result.callback(outcome)

        def task() -> None:
            outcome: T | Failure
            try:
                outcome = work()
            except Exception:
                outcome = Failure()
                outcome.cleanFailure()
            self._call_from_thread(fire, outcome)

        if not self._started:
            self._started = True
            self._thread.start()
        self._queue.put(task)
        return result

    def stop(self) -> None:
        """End the thread once it has done what it was given."""
        self._queue.put(None)

    def _loop(self) -> None:
        while (task := self._queue.get()) is not None:
            task()


@implementer(ISessionStore)
class SQLiteStore:
    """
    See `ISessionStore`.

    At most one batch is with the thread.

    :param thread: where blocking calls go; an `OneThread` in a gate.
    :param limit: changes that may wait while the disk refuses; the oldest are given up beyond.
    :ivar degraded: why nothing can be written now, or empty: for ``/ready``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        thread: IBlockingThread,
        path: Path,
        *,
        batch_s: float = BATCH_S,
        retry_s: float = RETRY_S,
        limit: int = WAITING_CHANGES,
    ) -> None:
        self.degraded = ""
        self._clock = clock
        self._thread = thread
        self._file = SessionFile(path)
        self._batch_s = batch_s
        self._retry_s = retry_s
        self._limit = limit
        self._pending: dict[SessionKey, Row | None] = {}
        self._timer: IDelayedCall | None = None
        self._writing = False
        self._last_write_s = -inf
        self._idle_waiters: list[Deferred[None]] = []
        self._closing = False

    @deferred
    async def load(self) -> list[SessionRecord]:
        """See `ISessionStore.load`.  A file that can not be used is logged; the answer is empty."""
        try:
            return await self._thread.run(self._file.load)
        except (sqlite3.Error, OSError) as error:
            self._failed(str(error))
            return []

    def put(self, record: SessionRecord) -> None:
        """See `ISessionStore.put`."""
        try:
            row = row_of(record)
        except UnicodeEncodeError:
            log.error("A session of server {server} can not be stored", server=record.server)
            return
        self._note(record.key, row)

    def delete(self, key: SessionKey) -> None:
        """See `ISessionStore.delete`."""
        self._note(key, None)

    @deferred
    async def flush(self) -> None:
        """See `ISessionStore.flush`.  Fires after one try even if the disk refuses."""
        while self._writing:
            await self._written()
        for _ in range(ceil(len(self._pending) / BATCH_ROWS)):
            if self._pending:
                written = self._written()
                self._write()
                await written
            if self.degraded:
                break

    @deferred
    async def close(self) -> None:
        """See `ISessionStore.close`.  A disk that hangs is left behind after 5 s."""
        if self._closing:
            return
        self._closing = True
        try:
            await self.flush().addTimeout(CLOSE_S, self._clock)
            await self._thread.run(self._file.close).addTimeout(CLOSE_S, self._clock)
        except TimeoutError:
            log.error("The session file does not answer; {count} changes lost", count=len(self))
        except sqlite3.Error as error:
            log.error("The session file could not be closed: {reason}", reason=str(error))
        self._disarm()
        self._thread.stop()

    def __len__(self) -> int:
        """Tell how many sessions wait to be written."""
        return len(self._pending)

    def _note(self, key: SessionKey, row: Row | None) -> None:
        if self._closing:
            return
        self._pending[key] = row
        self._bound()
        if self._timer is None and not self._writing:
            # The first change after a quiet while is written at once: what a client was just told
            # must survive a crash.  In a storm changes wait for their batch.
            due_s = self._last_write_s + self._batch_s - self._clock.seconds()
            delay_s = min(self._batch_s, max(LEAD_S, due_s))
            self._timer = self._clock.callLater(delay_s, self._write)

    def _bound(self) -> None:
        while len(self._pending) > self._limit:
            # Only after a long outage: the oldest change is the least missed.
            del self._pending[next(iter(self._pending))]

    def _disarm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _written(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred(self._idle_waiters.remove)
        self._idle_waiters.append(waiter)
        return waiter

    def _write(self) -> None:
        self._disarm()
        self._writing = True
        self._last_write_s = self._clock.seconds()
        batch = self._picked()
        puts = [row for row in batch.values() if row is not None]
        deletes = [key for key, row in batch.items() if row is None]

        def work() -> None:
            try:
                self._file.write(puts, deletes)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._file.move_aside(str(error))
                self._file.write(puts, deletes)

        def done(_: None) -> None:
            if self.degraded:
                self.degraded = ""
                log.info("Sessions are written again")

        def failed(failure: Failure) -> None:
            # What changed meanwhile is newer than what was not written.
            self._pending = {**batch, **self._pending}
            if not failure.check(sqlite3.Error, OSError):
                log.failure("Writing sessions failed", failure=failure)
            self._failed(failure.getErrorMessage())
            self._bound()

        def over(_: object) -> None:
            self._writing = False
            if self._pending and not self._closing:
                # A full batch has left something for the next.
                delay_s = 0.0 if len(batch) >= BATCH_ROWS else self._batch_s
                if self.degraded:
                    delay_s = self._retry_s
                self._timer = self._clock.callLater(delay_s, self._write)
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)

        self._thread.run(work).addCallbacks(done, failed).addBoth(over)

    def _picked(self) -> dict[SessionKey, Row | None]:
        """Take the oldest changes, as many as go into one batch."""
        if len(self._pending) <= BATCH_ROWS:
            batch, self._pending = self._pending, {}
            return batch
        return {key: self._pending.pop(key) for key in tuple(islice(self._pending, BATCH_ROWS))}

    def _failed(self, reason: str) -> None:
        if not self.degraded:
            log.error("Sessions are kept in memory only for now: {reason}", reason=reason)
        self.degraded = reason or "unknown"
