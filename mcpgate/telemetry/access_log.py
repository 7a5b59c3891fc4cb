"""
One entry for each answered request, and the log of them.

Appending is all that happens on the request's path; lines are made when the buffer is flushed, by
a ticker or when it is full.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcpgate.model import KIB
from mcpgate.telemetry.logs import LineFormat, Scalar, timestamp
from mcpgate.telemetry.redaction import Redactor
from mcpgate.telemetry.spool import Spool

FLUSH_BYTES: Final = 64 * KIB
#: What an entry will roughly be as a line.
ENTRY_BYTES: Final = 256
MEMO_ENTRIES: Final = 2048


@dataclass(slots=True, kw_only=True)
class AccessEntry:
    """
    What is told of one request.  Holds no query string, no field values, no session id.

    Not to be changed; a frozen one takes three times as long to make, for every request.

    :ivar path: path as received, without query, cut at 256 characters.
    :ivar status: 0 when the client went before an answer began.
    :ivar complete: the answer was sent whole.
    :ivar notes: what the rooms added: server, principal (fingerprint), reason ..
    :ivar at: wall clock, seconds, of its end, where that is not now; 0: it is.
    """

    peer: str
    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_s: float
    request_id: str
    protocol: str
    complete: bool
    notes: dict[str, object]
    at: float = 0.0


class AccessLog:
    """
    Writes entries as lines.

    Text lines begin like the combined format: peer, ``-``, principal, time, request line, status,
    bytes; then seconds, request id and the other notes as ``name=value``.

    :param wall: the wall clock, seconds.
    :param kind: ``text`` or ``json``.
    """

    def __init__(
        self,
        spool: Spool,
        redactor: Redactor,
        *,
        wall: Callable[[], float],
        kind: str = "text",
        flush_bytes: int = FLUSH_BYTES,
    ) -> None:
        self._spool = spool
        self._redactor = redactor
        self._format = LineFormat(redactor, kind)
        self._line = self._json_line if kind == "json" else self._text_line
        self._wall = wall
        self._flush_entries = max(1, flush_bytes // ENTRY_BYTES)
        self._entries: list[tuple[float, AccessEntry]] = []
        self._memo: dict[str, str] = {}
        # Of whole lines: whoever calls often does so from the same place with the same key.
        self._parts: dict[tuple[object, ...], tuple[str, str, str]] = {}
        self._memo_version = redactor.version
        self._second = (-1, "")

    def __call__(self, entry: AccessEntry) -> None:
        """Note an entry."""
        self._entries.append((entry.at or self._wall(), entry))
        if len(self._entries) >= self._flush_entries:
            self.flush()

    def flush(self) -> None:
        """Hand what was noted to the spool.  For a ticker of a second, and at the end."""
        entries, self._entries = self._entries, []
        if (
            self._memo_version != self._redactor.version
            or len(self._memo) > MEMO_ENTRIES
            or len(self._parts) > MEMO_ENTRIES
        ):
            self._memo_version = self._redactor.version
            self._memo.clear()
            self._parts.clear()
        self._spool.put_all([self._line(at, entry) for at, entry in entries])

    def _shown(self, text: str) -> str:
        # Peers, paths and names repeat; redacting and escaping them each time would be felt.
        shown = self._memo.get(text)
        if shown is None:
            shown = self._memo[text] = self._format.shown(text)
        return shown

    def _own(self, request_id: str) -> str:
        # Made by the gate: it holds no secret, and is different each time.
        if len(request_id) <= 64 and request_id.isascii() and request_id.isprintable():
            return request_id
        return self._format.shown(request_id)

    def _notes(self, entry: AccessEntry) -> dict[str, Scalar]:
        return {
            (name if name in _PLAIN_NOTES else self._shown(name)): self._shown(value)
            if isinstance(value, str) and name in _PLAIN_NOTES
            else self._format.value(name, value)
            for name, value in entry.notes.items()
        }

    def _time(self, at: float) -> str:
        second = int(at)
        if self._second[0] != second:
            self._second = (second, timestamp(second)[:-4])
        return f"{self._second[1]}{int(at * 1000) % 1000:03}Z"

    def _json_line(self, at: float, entry: AccessEntry) -> bytes:
        told: dict[str, Scalar] = {
            "time": self._time(at),
            "level": "info",
            "logger": "access",
            "peer": self._shown(entry.peer),
            "method": self._shown(entry.method),
            "path": self._shown(entry.path),
            "protocol": self._shown(entry.protocol),
            "status": entry.status,
            "bytes_in": entry.bytes_in,
            "bytes_out": entry.bytes_out,
            "duration_s": round(entry.duration_s, 6),
            "request_id": self._own(entry.request_id),
            "complete": entry.complete,
        }
        for name, value in self._notes(entry).items():
            told.setdefault(name, value)
        return json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode("ascii")

    def _text_line(self, at: float, entry: AccessEntry) -> bytes:
        notes = entry.notes
        same = (entry.peer, entry.method, entry.path, entry.protocol, *notes, *notes.values())
        try:
            parts = self._parts.get(same)
        except TypeError:  # a value of a note that can not be hashed
            parts, same = None, ()
        if parts is None:
            parts = self._text_parts(entry)
            # 1 and True are the same to a dictionary, but not as a text.
            if same and all(type(value) is str for value in notes.values()):
                self._parts[same] = parts
        who, request, more = parts
        return (
            f"{who} [{self._time(at)}] {request} {entry.status or 499} {entry.bytes_out} "
            f"{entry.duration_s:.4f} {_word(self._own(entry.request_id) or '-')}"
            f"{'' if entry.complete else ' incomplete'}{more}"
        ).encode("utf-8", "backslashreplace")

    def _text_parts(self, entry: AccessEntry) -> tuple[str, str, str]:
        notes = self._notes(entry)
        principal = notes.pop("principal", "-")
        return (
            f"{_word(self._shown(entry.peer) or '-')} - {_word(principal)}",
            f'"{_quoted(self._shown(entry.method))} {_quoted(self._shown(entry.path))} '
            f'{_quoted(self._shown(entry.protocol))}"',
            "".join(f" {name}={_word(value)}" for name, value in notes.items()),
        )


#: Notes whose values repeat and whose names are never secret.
_PLAIN_NOTES: Final = frozenset({"instance", "principal", "reason", "server", "session"})


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"') if '"' in text else text


def _word(value: Scalar) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f'"{_quoted(text)}"' if " " in text or '"' in text else text
