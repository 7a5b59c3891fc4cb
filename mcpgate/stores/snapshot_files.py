"""
What is kept of servers on disk (snapshots, pins): one file each, written behind on a thread.

Nothing here knows what is in them.  What can not be written is written down in the log and
missing after a restart, nothing worse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.stores.sqlite import IBlockingThread
from mcpgate.timing.deferreds import deferred

log = Logger()

CLOSE_S: Final = 5.0

_NAME: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PART: Final = ".part"


class SnapshotFiles:
    """
    The files of one folder; names are 32 hex digits.

    :param thread: does the work, in the order it was given.
    :param limit_bytes: larger files are none of ours.
    :param what: what they hold, for the log.
    :param tell_unread: give files that can not be read, or are too large, as empty ones: that they
        are there matters.
    """

    def __init__(
        self,
        clock: IReactorTime,
        thread: IBlockingThread,
        folder: Path,
        *,
        limit_bytes: int,
        what: str = "snapshots",
        tell_unread: bool = False,
    ) -> None:
        self._clock = clock
        self._thread = thread
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._what = what
        self._tell_unread = tell_unread
        # The newest content of what waits; None: it is to go.
        self._waiting: dict[str, bytes | None] = {}
        self._writing: Deferred[None] | None = None

    @deferred
    async def load(self) -> list[tuple[str, bytes]]:
        """Read every file, the longest unchanged first; call it before anything else."""
        try:
            found, faults = await self._thread.run(self._read_all)
        except OSError as error:
            log.warn(
                "The {what} in {folder} can not be read: {why}",
                what=self._what,
                folder=str(self._folder),
                why=error.strerror,
            )
            return []
        if faults:
            log.warn(
                "{count} of the {what} in {folder} can not be read: {why}",
                count=len(faults),
                what=self._what,
                folder=str(self._folder),
                why=faults[0].strerror,
            )
        return found

    def put(self, name: str, data: bytes) -> None:
        """Keep a file, soon."""
        self._wait(name, data)

    def delete(self, name: str) -> None:
        """Remove a file, soon."""
        self._wait(name, None)

    @deferred
    async def close(self) -> None:
        """Write what waits, no longer than some seconds; let go of the thread."""
        if self._writing is not None:
            try:
                await _after(self._writing).addTimeout(CLOSE_S, self._clock)
            except TimeoutError:
                log.warn("The {what} were not all written", what=self._what)
        self._thread.stop()

    # --- Writing behind -----------------------------------------------------------------------

    def _wait(self, name: str, data: bytes | None) -> None:
        assert _NAME.fullmatch(name)
        self._waiting[name] = data
        if self._writing is None:
            self._writing = Deferred.fromCoroutine(self._write_all())

    async def _write_all(self) -> None:
        # What belongs to one turn of the reactor goes together, and none of it in that turn.
        await _after(succeed(None), self._clock)
        while self._waiting:
            name, data = next(iter(self._waiting.items()))
            del self._waiting[name]
            await self._thread.run(self._work(name, data)).addErrback(self._failed)
        self._writing = None

    def _failed(self, failure: Failure) -> None:
        if failure.check(OSError):
            log.warn(
                "One of the {what} was not written: {why}",
                what=self._what,
                why=failure.getErrorMessage(),
            )
        else:
            # A bug, which must not keep the next ones from being written.
            log.failure("One of the {what} was not written", failure, what=self._what)

    # --- On the thread ------------------------------------------------------------------------

    def _work(self, name: str, data: bytes | None) -> Callable[[], None]:
        path = self._folder / name

        def write() -> None:
            if data is None:
                path.unlink(missing_ok=True)
                return
            self._folder.mkdir(mode=0o700, exist_ok=True)
            part = path.with_suffix(_PART)
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "wb") as file:
                file.write(data)
            part.replace(path)

        return write

    def _read_all(self) -> tuple[list[tuple[str, bytes]], list[OSError]]:
        found: list[tuple[float, str, bytes]] = []
        faults: list[OSError] = []
        if not self._folder.is_dir():
            return [], []
        for path in self._folder.iterdir():
            try:
                if path.suffix == _PART:
                    path.unlink(missing_ok=True)
                    continue
                told = path.lstat()
                ours = _NAME.fullmatch(path.name) is not None
                if ours and told.st_size <= self._limit_bytes:
                    found.append((told.st_mtime, path.name, path.read_bytes()))
                    continue
            except OSError as error:
                # One that can not be read must not cost the others.
                faults.append(error)
                ours = _NAME.fullmatch(path.name) is not None
            if ours and self._tell_unread:
                found.append((0.0, path.name, b""))
        return [(name, data) for _, name, data in sorted(found)], faults


def _after(deferred: Deferred[None], clock: IReactorTime | None = None) -> Deferred[None]:
    """Give a Deferred of the caller's own that fires after another one; on the next turn."""
    after: Deferred[None] = Deferred()

    def fire(result: None) -> None:
        if clock is not None:
            clock.callLater(0, after.callback, None)
        elif not after.called:
            after.callback(None)

    deferred.addCallback(fire)
    return after
