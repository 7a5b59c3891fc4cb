"""
What the tools of servers were, so that it is told when they are others (R66).

A server may describe its tools harmlessly until they are trusted.  What is seen here is what
snapshots are taken of, for each whom a snapshot may be shown to; it is told, not refused.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

from twisted.logger import Logger

from mcpgate.mcp.snapshot import Snapshot
from mcpgate.telemetry.escaping import clean
from mcpgate.telemetry.meters import Meters

log = Logger()

_TOTAL: Final = 2000
_TOLD: Final = 20
_NAME_CHARS: Final = 80


class ToolMarks:
    """
    Marks of tools by the name of their snapshot; they stay when that is forgotten.

    The longest unseen go when there are too many.
    """

    def __init__(self, meters: Meters, total: int = _TOTAL) -> None:
        self._meters = meters
        self._total = total
        self._marks: OrderedDict[str, Mapping[str, bytes]] = OrderedDict()

    def known(self, name: str, snapshot: Snapshot) -> None:
        """Take for granted what an earlier life of the gate saw."""
        marks = _marks(snapshot)
        if marks is not None:
            self._put(name, marks)

    def seen(self, server: str, name: str, snapshot: Snapshot) -> None:
        """Look at what a server lists now; warn if it listed something else before."""
        marks = _marks(snapshot)
        if marks is None:
            return
        before = self._marks.get(name)
        self._put(name, marks)
        if before is None or before == marks:
            return
        self._meters.events["tools_changed"] += 1
        log.warn(
            "The tools of {server} have changed: added {added}, removed {removed}, described "
            "anew {described}",
            ev="tools_changed",
            server=server,
            added=_told(marks.keys() - before.keys()),
            removed=_told(before.keys() - marks.keys()),
            described=_told(
                tool for tool in marks.keys() & before.keys() if marks[tool] != before[tool]
            ),
        )

    def _put(self, name: str, marks: Mapping[str, bytes]) -> None:
        self._marks[name] = marks
        self._marks.move_to_end(name)
        while len(self._marks) > self._total:
            self._marks.popitem(last=False)


def _marks(snapshot: Snapshot) -> dict[str, bytes] | None:
    """Give a mark of each tool; None where the list was not seen whole."""
    tools = snapshot.lists.get("tools/list", {}).get("tools")
    if not isinstance(tools, list):
        return None
    return {
        str(tool.get("name"))[:_NAME_CHARS]: sha256(
            json.dumps(tool, sort_keys=True).encode("utf-8", "replace")
        ).digest()[:8]
        for tool in tools
        if isinstance(tool, dict)
    }


def _told(names: Iterable[str]) -> str:
    """Name a few, for the log."""
    found = sorted(names)
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return (", ".join(clean(name, _NAME_CHARS) for name in found[:_TOLD]) or "none") + more
