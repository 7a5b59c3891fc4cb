"""Snapshots of servers, put together: the book, its files, and what answers from them."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpgate.gate.tool_pins import PinBook
from mcpgate.mcp.snapshot import Snapshot
from mcpgate.model import KIB, Principal, ServerSpec
from mcpgate.stores.snapshot_files import SnapshotFiles
from mcpgate.stores.sqlite import OneThread
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.web.mcp.cold.answers import ColdAnswers
from mcpgate.web.mcp.cold.snapshots import MAX_BYTES, SnapshotBook


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """What the gate remembers of servers for while they do not run."""

    book: SnapshotBook
    files: SnapshotFiles
    answers: ColdAnswers

    @deferred
    async def start(self) -> None:
        """Take up what an earlier life kept."""
        self.book.load(await self.files.load())

    @deferred
    async def stop(self) -> None:
        """Write what was not written yet."""
        self.answers.stop()
        await self.files.close()


def make_snapshots(
    reactor: Any,
    state_dir: Path,
    *,
    secret: bytes,
    build_of: Callable[[ServerSpec], str],
    meters: Meters,
    pins: PinBook,
) -> Snapshots:
    """
    Put them together; nothing is read yet.

    :param secret: of the state directory.
    :param build_of: see `SnapshotBook`.
    :param pins: is shown the tools of every server that is looked at.
    """

    def seen(spec: ServerSpec, principal: Principal, snapshot: Snapshot) -> None:
        tools = snapshot.lists.get("tools/list", {}).get("tools")
        if isinstance(tools, list):
            pins.told(spec, principal, tools)

    files = SnapshotFiles(
        reactor,
        OneThread(reactor.callFromThread, "snapshots"),
        state_dir / "snapshots",
        limit_bytes=MAX_BYTES + KIB,
    )
    book = SnapshotBook(
        files,
        hash_key=hmac.digest(secret, b"snapshots of servers", "sha256"),
        build_of=build_of,
        meters=meters,
        seen=seen,
    )
    return Snapshots(book=book, files=files, answers=ColdAnswers(reactor, book, meters))
