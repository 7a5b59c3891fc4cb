"""
What each revision of MCP has on the wire: one table, no ``if revision >= ..`` elsewhere.

Sources: ``basic/transports`` and ``basic/lifecycle`` of each year's specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Era(Enum):
    """The specification's own words for the two families of revisions."""

    LEGACY = "legacy"
    MODERN = "modern"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """
    One revision's features.

    :ivar name: the date, as in ``protocolVersion``.
    :ivar sessions: ``initialize`` handshake and ``Mcp-Session-Id``.
    :ivar streamable: has the one-endpoint HTTP transport; else only ``/sse`` + ``/messages``.
    :ivar batch: arrays of messages are legal.
    :ivar resume: ``GET`` with ``Last-Event-ID`` replays.
    :ivar priming_event: SSE answers may begin with an event of empty data; older clients fail
        to parse it.
    :ivar version_header_required: ``MCP-Protocol-Version`` MUST be on requests after the
        handshake.  Legacy clients that leave it out are served all the same.
    :ivar server_requests: a server may send requests to the client.
    """

    name: str
    era: Era
    sessions: bool = True
    streamable: bool = True
    batch: bool = False
    resume: bool = True
    priming_event: bool = False
    version_header_required: bool = True
    server_requests: bool = True

    @property
    def legacy(self) -> bool:
        """Tell whether this is of the era with handshake and sessions."""
        return self.era is Era.LEGACY


REVISIONS: Final[dict[str, Revision]] = {
    revision.name: revision
    for revision in (
        Revision(
            name="2024-11-05",
            era=Era.LEGACY,
            streamable=False,
            resume=False,
            version_header_required=False,
        ),
        Revision(
            name="2025-03-26",
            era=Era.LEGACY,
            batch=True,
            version_header_required=False,
        ),
        Revision(name="2025-06-18", era=Era.LEGACY),
        Revision(name="2025-11-25", era=Era.LEGACY, priming_event=True),
        Revision(
            name="2026-07-28",
            era=Era.MODERN,
            sessions=False,
            resume=False,
            server_requests=False,
        ),
    )
}

LATEST_LEGACY: Final = REVISIONS["2025-11-25"]
# What a request after the handshake means by no MCP-Protocol-Version header (2025-06-18 on).
WITHOUT_HEADER: Final = REVISIONS["2025-03-26"]


def revision(name: object) -> Revision | None:
    """Look up a revision by its date; None for anything unknown."""
    return REVISIONS.get(name) if isinstance(name, str) else None


def negotiate(requested: object) -> Revision:
    """
    Choose what to answer to the ``protocolVersion`` of an ``initialize``.

    The same if it is a legacy revision we know, else the latest legacy one: the client then
    decides whether it can speak that.
    """
    found = revision(requested)
    return found if found is not None and found.legacy else LATEST_LEGACY
