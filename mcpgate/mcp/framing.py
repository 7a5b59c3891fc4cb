"""
Server-Sent Events: bytes to events and back, any split of the bytes, bounded.

Source: WHATWG HTML, "Server-sent events".  Lines end with LF, CRLF or CR (TypeScript servers
send LF, Python ones CRLF).  Comments are skipped; keeping connections alive is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcpgate.errors import BadBackendAnswer
from mcpgate.model import MIB

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SSEEvent:
    """
    One event.

    :ivar data: lines joined by LF; empty for a priming event.
    :ivar event: its type; ``message`` where none was given.
    :ivar id: of this very event; None when it had no ``id`` line.
    :ivar retry_ms: reconnection time it asked for, or None.
    """

    data: bytes
    event: str = "message"
    id: str | None = None
    retry_ms: int | None = None


class SSEReader:
    """
    Makes events of bytes as they come.

    A block without a ``data`` line is no event, as browsers have it, yet its ``id`` and
    ``retry`` count: see `last_event_id` and `retry_ms`.  Bytes that are not UTF-8 in ``data``
    pass unchanged.

    :param limit_bytes: of one event, all its lines; comments do not count.
    :ivar last_event_id: the last ``id`` seen, or None.
    :ivar retry_ms: the last ``retry`` seen, or None.
    """

    def __init__(self, limit_bytes: int = 4 * MIB) -> None:
        self.last_event_id: str | None = None
        self.retry_ms: int | None = None
        self._limit_bytes = limit_bytes
        self._partial: list[bytes] = []
        self._size = 0
        self._at_start = True
        self._after_cr = False
        self._broken = False
        self._clear()

    def _clear(self) -> None:
        self._lines: list[bytes] = []
        self._event = ""
        self._id: str | None = None
        self._retry_ms: int | None = None
        self._size = 0

    def feed(self, data: bytes) -> list[SSEEvent]:
        """
        Take bytes and give the events that are now complete.

        :raises BadBackendAnswer: an event crossed the bound; the stream can not be read on.
        """
        if self._broken:
            raise self._too_large()
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        events: list[SSEEvent] = []
        if b"\n" not in data and b"\r" not in data:
            self._partial.append(data)
            self._grow(len(data))
            return events
        if self._partial:
            # What waited is counted again with the line it became a part of.
            self._size -= sum(map(len, self._partial))
            self._partial.append(data)
            data = b"".join(self._partial)
            self._partial = []
        lines = data.splitlines()
        self._after_cr = data.endswith(b"\r")
        rest = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            self._take(line, events)
        if rest:
            self._partial.append(rest)
            self._grow(len(rest))
        return events

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > self._limit_bytes:
            self._broken = True
            raise self._too_large()

    def _too_large(self) -> BadBackendAnswer:
        return BadBackendAnswer(f"The server sent an event of more than {self._limit_bytes} bytes.")

    def _take(self, line: bytes, events: list[SSEEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._lines:
                data = b"\n".join(self._lines)
                events.append(SSEEvent(data, self._event or "message", self._id, self._retry_ms))
            self._clear()
            return
        if line.startswith(b":"):
            return
        self._grow(len(line))
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._lines.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = self.last_event_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 9:
            self._retry_ms = self.retry_ms = int(value)


def sse_event(
    data: bytes, *, event: str = "message", id: str | None = None, retry_ms: int | None = None
) -> bytes:
    """
    Write one event, lines ended by LF.

    :param event: the type; an empty text leaves the line out, as priming events do.
    :raises ValueError: ``event`` or ``id`` with a line break or NUL.
    """
    if event == "message" and id is None and retry_ms is None:
        head = b"event: message\n"
    else:
        head = b""
        if event:
            head += b"event: " + _one_line(event) + b"\n"
        if id is not None:
            head += b"id: " + _one_line(id) + b"\n"
        if retry_ms is not None:
            head += b"retry: %d\n" % retry_ms
    if b"\n" in data or b"\r" in data:
        body = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
        return b"%bdata: %b\n\n" % (head, body)
    return b"%bdata: %b\n\n" % (head, data)


def sse_comment(text: str = "keepalive") -> bytes:
    """Write a comment: readers skip it, connections stay warm.  Same errors as `sse_event`."""
    return b": %b\n\n" % _one_line(text)


def _one_line(text: str) -> bytes:
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError("a line break or NUL in an SSE field")
    return text.encode("utf-8")
