"""
Where one event of a byte stream of Server-Sent Events ends and the next begins.

Nothing is decoded: blocks of lines pass as they came.  Lines end with LF, CRLF or CR, and a CRLF
may straddle two reads (protocol: WHATWG HTML 9.2.5).
"""

from __future__ import annotations

import re
from typing import Final

from mcpgate.errors import BadBackendAnswer
from mcpgate.http.heads import ResponseHead
from mcpgate.model import MIB

KEEPALIVE: Final = b": keepalive\n\n"

# A line end followed by an empty line.  CR counts alone only where no LF follows.
_BLANK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_BLANK_START: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))+")
_USUAL: Final = (b"\n\n", b"\r\n\r\n")
# The longest piece of a blank line that may lie before a read: CR LF CR of CR LF CR LF.
_OVERLAP: Final = 3


def is_event_stream(head: ResponseHead) -> bool:
    """Tell whether a body is Server-Sent Events."""
    kind = head.fields.get(b"content-type")
    return kind is not None and kind.partition(b";")[0].strip().lower() == b"text/event-stream"


class EventBoundary:
    """
    Tells whether what has passed so far ends between two events.

    :ivar at_boundary: a comment or an event may be put in here.
    """

    __slots__ = ("_last", "at_boundary")

    def __init__(self) -> None:
        self._last = b"\n"
        self.at_boundary = True

    def passed(self, data: bytes) -> None:
        """Take note of bytes that were passed on."""
        if not data:
            return
        if data.endswith(_USUAL):
            self._last = b"\n\n"
            self.at_boundary = True
            return
        last = (self._last + data[-4:])[-4:]
        blank = None
        for blank in _BLANK.finditer(last):  # noqa: B007  # the last match is what counts
            pass
        ended = blank is not None and blank.end() == len(last)
        # An empty line more after a boundary leaves it one.
        self.at_boundary = ended or (
            self.at_boundary and _BLANK_START.fullmatch(data[:8]) is not None and len(data) <= 8
        )
        self._last = last


class EventAligner:
    """
    Lets complete events pass and holds the beginning of the next one back.

    So whatever happens to the source, what was passed on ends between two events, and one more
    can be added.

    :param limit_bytes: of one event.
    :ivar tail: what is held back.
    """

    __slots__ = ("_limit_bytes", "_tail")

    def __init__(self, limit_bytes: int = 4 * MIB) -> None:
        self._limit_bytes = limit_bytes
        self._tail = bytearray()

    @property
    def tail(self) -> bytes:
        """Give the beginning of an event that is not complete."""
        return bytes(self._tail)

    @property
    def at_boundary(self) -> bool:
        """Tell whether nothing is held back."""
        return not self._tail

    def feed(self, data: bytes) -> bytes:
        """
        Take bytes; give those that can be sent now, mostly all or none.

        :raises BadBackendAnswer: an event is larger than the bound.
        """
        tail = self._tail
        if data.endswith(_USUAL):
            if not tail:
                return data
            tail += data
            return self._take(len(tail))
        searched = max(0, len(tail) - _OVERLAP)
        tail += data
        end = 0
        # What follows an event that was passed on begins at a boundary.
        start = _BLANK_START.match(tail)
        if start is not None:
            end = start.end()
        for blank in _BLANK.finditer(tail, searched):
            end = max(end, blank.end())
        if len(tail) - end > self._limit_bytes:
            raise BadBackendAnswer("The server sent an event that is too large.")
        return self._take(end)

    def _take(self, end: int) -> bytes:
        if not end:
            return b""
        out = bytes(self._tail[:end])
        del self._tail[:end]
        return out
