"""Which tools are trusted, put together: the book and its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpgate.gate.tool_pins import MAX_BYTES, PinBook
from mcpgate.model import ServerSpec
from mcpgate.stores.snapshot_files import SnapshotFiles
from mcpgate.stores.sqlite import OneThread
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPins:
    """What the gate remembers of the tools of servers."""

    book: PinBook
    files: SnapshotFiles

    @deferred
    async def start(self) -> None:
        """Take up what an earlier life kept."""
        self.book.load(await self.files.load())

    @deferred
    async def stop(self) -> None:
        """Write what was not written yet."""
        await self.files.close()


def make_tool_pins(
    reactor: Any,
    state_dir: Path,
    *,
    wall: Callable[[], float],
    build_of: Callable[[ServerSpec], str],
    meters: Meters,
) -> ToolPins:
    """Put them together; nothing is read yet.  See `PinBook`."""
    files = SnapshotFiles(
        reactor,
        OneThread(reactor.callFromThread, "pins"),
        state_dir / "pins",
        limit_bytes=MAX_BYTES,
        what="pins of tools",
        # A pin that is there and can not be read is none that was never made.
        tell_unread=True,
    )
    book = PinBook(files, wall=wall, build_of=build_of, meters=meters)
    return ToolPins(book=book, files=files)
