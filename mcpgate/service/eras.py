"""The book of eras and its file in the state directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.gate.eras import EraBook
from mcpgate.stores.json_file import read_json, write_json
from mcpgate.stores.sqlite import IBlockingThread
from mcpgate.timing.deferreds import deferred

log = Logger()

FILE: Final = "eras.json"
# Findings of one moment go together.
WAIT_S: Final = 1.0
STOP_S: Final = 5.0


class KeptEras:
    """
    Reads the book at the start, and writes it some moments after it has changed.

    :ivar book: the book.
    """

    def __init__(
        self,
        clock: IReactorTime,
        thread: IBlockingThread,
        state_dir: Path,
        *,
        wall: Callable[[], float],
        key: bytes,
    ) -> None:
        self.book = EraBook(wall, key=key, changed=self._changed)
        self._clock = clock
        self._thread = thread
        self._path = state_dir / FILE
        self._timer: IDelayedCall | None = None

    @deferred
    async def load(self) -> None:
        """Read what an earlier life found out; without it everything is found out again."""
        self.book.restore(await self._thread.run(lambda: read_json(self._path)))

    @deferred
    async def close(self) -> None:
        """Write what waits; a disk that hangs is left behind."""
        if self._timer is None:
            return
        self._timer.cancel()
        await self._write().addTimeout(STOP_S, self._clock).addErrback(self._failed)

    def _changed(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(WAIT_S, self._due)

    def _due(self) -> None:
        self._write().addErrback(self._failed)

    def _write(self) -> Deferred[None]:
        self._timer = None
        rows = self.book.kept()
        return self._thread.run(lambda: write_json(self._path, rows))

    def _failed(self, failure: Failure) -> None:
        # What is not kept is found out again after a restart.
        log.warn("The eras of servers can not be kept: {why}", why=failure.getErrorMessage())
