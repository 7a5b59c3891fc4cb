"""
Reads the requests of one HTTP/1 connection, strictly, from any split of bytes.

Sans-IO and pulled: `receive` takes bytes, `head` gives the next request when it is complete, then
`body` its bytes as they come.  Nothing of the next request is looked at before this one's body was
read to its end, which is how pipelining waits its turn (R11).

Heads are parsed by llhttp after our own check (`mcpgate.http.strictness`) passed them: what only
one of the two accepts is refused.  Body framing is ours, because body bytes are passed on as they
came.  The first error ends the connection's parsing for good (R12).
"""

from __future__ import annotations

import re
from typing import Final

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from mcpgate.errors import BadRequest, GateError, NotImplementedHere
from mcpgate.http.heads import RequestHead
from mcpgate.http.strictness import (
    HEAD,
    LINE_END,
    HeadWalk,
    Lines,
    WireBounds,
    make_head,
    strip_lines,
    trailer_line,
)

_END: Final = b"\r\n\r\n"
# RFC 9112 7.1; no white space, which readers judge differently.
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,12})(;[\t\x20-\x7e\x80-\xff]*+)?")
_SIZE_DIGITS: Final = 12

# Where the reader stands in a body.
_NONE, _LENGTH, _SIZE, _CONTENT, _CONTENT_END, _TRAILER = range(6)


class NotHTTPError(Exception):
    """The first bytes are no text of HTTP, such as a TLS handshake: nothing is answered (R13)."""


class _HeadLines:
    """Collects what llhttp reads of one head."""

    __slots__ = ("lines", "target")

    def __init__(self) -> None:
        self.target = b""
        self.lines: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))


def parse_head(raw: bytes, bounds: WireBounds) -> RequestHead:
    """
    Read one complete head that passed `HEAD`.

    :raises GateError: for what the fields say, or what llhttp does not like.
    """
    collected = _HeadLines()
    parser = HttpRequestParser(collected)
    complaint: GateError | None = None
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade:
        pass
    except HttpParserInvalidMethodError:
        complaint = NotImplementedHere("This method is not known here.")
    except HttpParserError as error:
        complaint = BadRequest(f"The request is malformed: {error}.")
    method, target, rest = raw.split(b" ", 2)
    lines = strip_lines(collected.lines)
    if complaint is not None:
        # Our own words are better than llhttp's, where we have any.
        lines = [
            (name.lower(), value.strip(b" \t"))
            for name, _, value in (line.partition(b":") for line in raw.split(b"\r\n")[1:-2])
        ]
    head = make_head(method, target, rest[7] - 48, lines, bounds.declared_bytes)
    if complaint is not None:
        raise complaint
    if collected.target != target:
        raise BadRequest
    return head


class RequestParser:
    """
    The requests of one connection.

    :ivar complete: the body of the current request was read to its end.
    :ivar trailers: of the current request's body, once complete; never part of the head (R05).
    :ivar failed: an error was raised; nothing will be parsed any more.
    """

    __slots__ = (
        "_bounds",
        "_buffer",
        "_extension_bytes",
        "_fresh",
        "_left",
        "_position",
        "_raw",
        "_raw_head",
        "_skipped",
        "_state",
        "_trailer_bytes",
        "_walk",
        "complete",
        "failed",
        "trailers",
    )

    def __init__(self, bounds: WireBounds) -> None:
        self._bounds = bounds
        self._buffer = b""
        self._position = 0
        self._walk: HeadWalk | None = None
        self._fresh = True
        self._skipped = False
        self._raw = b""
        self._raw_head: RequestHead | None = None
        self._state = _NONE
        self._left = 0
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self.complete = True
        self.failed = False
        self.trailers: Lines = []

    @property
    def buffered(self) -> int:
        """How many bytes wait to be read."""
        return len(self._buffer) - self._position

    def receive(self, data: bytes) -> None:
        """Take bytes from the network."""
        if self.failed:
            return
        if self._buffer:
            self._buffer = self._buffer[self._position :] + data
        else:
            self._buffer = data
        self._position = 0

    def rest(self) -> bytes:
        """Give up: hand out what was not read, for a protocol that takes the connection over."""
        data = self._buffer[self._position :]
        self.failed = True
        self._buffer = b""
        self._position = 0
        return data

    def head(self) -> RequestHead | None:
        """
        Give the next request when its head is complete.  Only while `complete`.

        :raises GateError: with the status it deserves.
        :raises NotHTTPError: before the first request only.
        """
        if self.failed or not self._buffer:
            return None
        try:
            return self._next_head()
        except (GateError, NotHTTPError):
            self._give_up()
            raise

    def body(self) -> bytes:
        """
        Give what there is of the current body; empty when nothing is there (or `complete`).

        :raises BadRequest: broken framing.
        """
        if self.complete or self.failed or not self._buffer:
            return b""
        if self._state == _LENGTH:
            return self._counted()
        try:
            return self._chunked()
        except GateError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self.failed = True
        self._buffer = b""
        self._position = 0

    # --- Heads

    def _next_head(self) -> RequestHead | None:
        buffer = self._buffer
        if self._position:
            buffer = self._buffer = buffer[self._position :]
            self._position = 0
        if self._walk is None:
            if self._fresh:
                self._check_first(buffer[0])
            if not self._skipped and buffer[0] == 13:
                # RFC 9112 2.2: one empty line before a request is forgiven.
                if len(buffer) < 2:
                    return None
                if buffer[1] == 10:
                    self._skipped = True
                    buffer = self._buffer = buffer[2:]
                    if not buffer:
                        return None
            end = buffer.find(_END) + 4
            if end > 3:
                raw = buffer[:end]
                if raw == self._raw and self._raw_head is not None:
                    self._raw_head.came_again()
                    return self._begin(self._raw_head, end)
                if self._well_formed(raw):
                    return self._parse(raw)
            self._walk = HeadWalk(self._bounds)
        if not self._walk.walk(buffer):
            return None
        return self._parse(buffer[: buffer.index(_END) + 4])

    def _check_first(self, byte: int) -> None:
        # Letters, and what is a typing error rather than another protocol, get an answer.
        if not (32 <= byte < 127 or byte in (9, 10, 13)):
            raise NotHTTPError
        self._fresh = False

    def _well_formed(self, raw: bytes) -> bool:
        bounds = self._bounds
        return (
            len(raw) <= bounds.head_bytes
            and raw.index(b"\r\n") <= bounds.line_bytes
            and raw.count(b"\r\n") - 2 <= bounds.fields
            and HEAD.fullmatch(raw) is not None
        )

    def _parse(self, raw: bytes) -> RequestHead:
        head = parse_head(raw, self._bounds)
        # A client's heads are mostly the same bytes again; what they mean depends on them alone.
        self._raw = raw
        self._raw_head = head
        return self._begin(head, len(raw))

    def _begin(self, head: RequestHead, size: int) -> RequestHead:
        if size == len(self._buffer):
            self._buffer = b""
        else:
            self._position = size
        self._walk = None
        self._skipped = False
        if self.trailers:
            self.trailers = []
        if head.chunked:
            self.complete = False
            self._state = _SIZE
            self._extension_bytes = self._trailer_bytes = 0
        elif head.content_length:
            self.complete = False
            self._state = _LENGTH
            self._left = head.content_length
        else:
            self.complete = True
        return head

    # --- Bodies

    def _counted(self) -> bytes:
        start = self._position
        buffer = self._buffer
        there = len(buffer) - start
        if there <= self._left:
            self._left -= there
            self._buffer = b""
            self._position = 0
            self.complete = not self._left
            return buffer[start:] if start else buffer
        end = self._position = start + self._left
        self._left = 0
        self.complete = True
        return buffer[start:end]

    def _chunked(self) -> bytes:
        pieces: list[bytes] = []
        buffer = self._buffer
        while not self.complete:
            if self._state == _CONTENT:
                there = min(len(buffer) - self._position, self._left)
                if not there:
                    break
                pieces.append(buffer[self._position : self._position + there])
                self._position += there
                self._left -= there
                if self._left:
                    break
                self._state = _CONTENT_END
            elif self._state == _CONTENT_END:
                mark = buffer[self._position : self._position + 2]
                if mark not in (b"\r\n", b"\r", b""):
                    raise BadRequest("A chunk does not end where its size says.")
                if len(mark) < 2:
                    break
                self._position += 2
                self._state = _SIZE
            elif not self._framing_line(buffer):
                break
        if self._position == len(buffer):
            self._buffer = b""
            self._position = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _framing_line(self, buffer: bytes) -> bool:
        """Read one line that is not content: a chunk's size or a trailer."""
        bounds = self._bounds
        start = self._position
        if self._state == _SIZE:
            room = _SIZE_DIGITS + bounds.chunk_extension_bytes - self._extension_bytes
            complaint = "Chunk sizes or extensions are too long."
        else:
            room = bounds.trailer_bytes - self._trailer_bytes
            complaint = "Trailers are too long."
        # Never looks further than the longest line that could be right.
        end = LINE_END.search(buffer, start, start + room + 2)
        if end is None:
            if len(buffer) - start > room + 1:
                raise BadRequest(complaint)
            return False
        if end[0] != b"\r\n":
            raise BadRequest("Lines must end with CR LF, and hold no other CR, LF or NUL.")
        line = buffer[start : end.start()]
        self._position = end.end()
        if self._state == _SIZE:
            self._size(line)
        elif not line:
            self.complete = True
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > bounds.trailer_bytes or len(self.trailers) >= bounds.fields:
                raise BadRequest(complaint)
            self.trailers.append(trailer_line(line))
        return True

    def _size(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise BadRequest("A chunk's size must be a hexadecimal number.")
        if match[2]:
            self._extension_bytes += len(match[2])
            if self._extension_bytes > self._bounds.chunk_extension_bytes:
                raise BadRequest("Chunk extensions are too long.")
        self._left = int(match[1], 16)
        self._state = _CONTENT if self._left else _TRAILER
