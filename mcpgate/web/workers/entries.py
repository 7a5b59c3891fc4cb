"""Entries of the access log on their way from a worker to the owner: lists, many in one line."""

from __future__ import annotations

from typing import Any, Final

from mcpgate.telemetry.access_log import AccessEntry

_FIELDS: Final = (
    "peer",
    "method",
    "path",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_s",
    "request_id",
    "protocol",
    "complete",
    "at",
    "notes",
)


def write_entry(entry: AccessEntry, at: float) -> list[Any]:
    """
    Give an entry in terms of JSON.

    :param at: wall clock, seconds, of the request's end.
    """
    return [
        *(entry.peer, entry.method, entry.path, entry.status),
        *(entry.bytes_in, entry.bytes_out, entry.duration_s, entry.request_id),
        *(entry.protocol, entry.complete, at),
        {name: note for name, note in entry.notes.items() if isinstance(note, str | int | float)},
    ]


def read_entry(told: list[Any]) -> AccessEntry:
    """
    Read what `write_entry` has written.

    :raises ValueError: it is no entry.
    """
    return AccessEntry(**dict(zip(_FIELDS, told, strict=True)))
