"""
Reads the answers of an HTTP/1 server, strictly, from any split of bytes.

The head is parsed by llhttp and checked again for what llhttp leaves open; the body's framing is
ours, because bytes of a body are passed on as they came.  Sans-IO: bytes in, calls out.  Whatever
makes the end of an answer doubtful is `BadBackendAnswer`, and the connection must then be dropped
(R43): a byte too many belongs to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from mcpgate.errors import BackendDied, BadBackendAnswer
from mcpgate.http.fields import Fields
from mcpgate.http.heads import ResponseHead
from mcpgate.model import KIB

# Control characters, and line ends that are not CRLF (RFC 9112 2.2): llhttp is of several minds.
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
# RFC 9112 7.1: size, then extensions we ignore.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CRLF: Final = b"\r\n"
_BODILESS: Final = frozenset({204, 304})
_VERSIONS: Final = ((1, 1), (1, 0))
_START: Final = b"HTTP/1."

Trailers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseLimits:
    """
    What an answer's framing may be.

    :ivar head_bytes: status line and fields.
    :ivar fields: field lines in a head, and in trailers.
    :ivar trailer_bytes: the whole trailer section.
    :ivar chunk_line_bytes: one chunk's size with its extensions.
    :ivar interim: 1xx answers before the final one.
    """

    head_bytes: int = 64 * KIB
    fields: int = 200
    trailer_bytes: int = 8 * KIB
    chunk_line_bytes: int = 1 * KIB
    interim: int = 16


class ResponseSink(Protocol):
    """Hears what a `ResponseParser` reads."""

    def on_head(self, head: ResponseHead) -> None:
        """Take the final head."""

    def on_end(self, trailers: Trailers) -> None:
        """Take the end; the parser is idle, `ResponseParser.begin` may be called from here."""

    def on_upgrade(self, head: ResponseHead, rest: bytes) -> None:
        """Take a 101 and the bytes of the other protocol that came with it."""


class _HeadLines:
    """Collects what llhttp reads of one head."""

    __slots__ = ("lines", "reason")

    def __init__(self) -> None:
        self.reason = b""
        self.lines: list[tuple[bytes, bytes]] = []

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name.lower(), value.strip(b" \t")))


class ResponseHeads:
    """
    Parses heads and remembers short ones: servers send the same head again and again.

    What a head means depends on its bytes alone, so the memory is safe to share between callers.

    :param remember: heads kept; 0 keeps none.  All are forgotten when there are more.
    """

    def __init__(self, limits: ResponseLimits | None = None, *, remember: int = 64) -> None:
        self.limits = limits or ResponseLimits()
        self._remember = remember
        self._known: dict[bytes, ResponseHead] = {}

    def clear(self) -> None:
        """Forget."""
        self._known.clear()

    def parse(self, raw: bytes) -> ResponseHead:
        """
        Parse a head, final empty line included.

        :raises BadBackendAnswer: it is not a head, or its framing is ambiguous.
        """
        head = self._known.get(raw)
        if head is not None:
            head.came_again()
            return head
        head = self._parse(raw)
        if len(raw) <= KIB and self._remember:
            if len(self._known) >= self._remember:
                self._known.clear()
            self._known[raw] = head
        return head

    def _parse(self, raw: bytes) -> ResponseHead:
        if _FORBIDDEN.search(raw):
            raise BadBackendAnswer
        lines = _HeadLines()
        parser = HttpResponseParser(lines)
        try:
            parser.feed_data(raw)
        except HttpParserUpgrade:
            pass  # 101: the caller decides whether it was asked for.
        except HttpParserError:
            raise BadBackendAnswer from None
        major, _, minor = parser.get_http_version().partition(".")
        fields = Fields(lines.lines)
        if len(fields) > self.limits.fields:
            raise BadBackendAnswer
        version = (int(major), int(minor))
        if version not in _VERSIONS:
            raise BadBackendAnswer
        length, chunked = _framing(fields, version)
        return ResponseHead(
            status=parser.get_status_code(),
            reason=lines.reason,
            version=version,
            fields=fields,
            content_length=length,
            chunked=chunked,
        )


def _framing(fields: Fields, version: tuple[int, int]) -> tuple[int | None, bool]:
    """Tell declared length and chunkedness; anything two readers could read two ways is bad."""
    lengths = fields.count(b"content-length")
    codings = fields.get_all(b"transfer-encoding")
    if codings:
        if lengths or version != (1, 1) or [c.lower() for c in codings] != [b"chunked"]:
            raise BadBackendAnswer
        return None, True
    if not lengths:
        return None, False
    value = fields.get(b"content-length") or b""
    if lengths > 1 or not _LENGTH.fullmatch(value):
        raise BadBackendAnswer
    return int(value), False


def _keeps_alive(head: ResponseHead) -> bool:
    """Tell whether the server will answer another request on this connection (RFC 9112 9.3)."""
    if head.version != (1, 1):
        return False
    connection = head.fields.get(b"connection")
    if connection is None:
        return True
    values = b",".join(head.fields.get_all(b"connection")).lower().split(b",")
    return b"close" not in [value.strip() for value in values]


class ResponseParser:
    """
    The reading half of one connection to a server; one answer after another.

    After `BadBackendAnswer` or `BackendDied` was raised it is of no more use.

    :ivar keep_alive: after an answer's end: the connection may carry another request.
    :ivar idle: no answer is awaited.
    :ivar touched: at least one byte of the awaited answer came.
    """

    __slots__ = (
        "_bodiless",
        "_feed",
        "_heads",
        "_held",
        "_interim",
        "_left",
        "_limits",
        "_may_upgrade",
        "_on_data",
        "_sink",
        "idle",
        "keep_alive",
        "touched",
    )

    def __init__(self, sink: ResponseSink, heads: ResponseHeads) -> None:
        self._sink = sink
        self._heads = heads
        self._limits = heads.limits
        self._feed: Callable[[bytes], None] = self._feed_idle
        self._on_data: Callable[[bytes], None] = _nowhere
        self._held = bytearray()
        self._left = 0
        self._interim = 0
        self._bodiless = False
        self._may_upgrade = False
        self.idle = True
        self.keep_alive = False
        self.touched = False

    def begin(self, on_data: Callable[[bytes], None], *, head_only: bool, upgrade: bool) -> None:
        """
        Await the answer to a request.

        :param on_data: gets the body's bytes.
        :param head_only: the request was HEAD.
        :param upgrade: the request asked for an upgrade, 101 is welcome.
        """
        self._on_data = on_data
        self._bodiless = head_only
        self._may_upgrade = upgrade
        self._interim = 0
        self._feed = self._feed_head
        self.idle = False
        self.keep_alive = False
        self.touched = False

    def feed(self, data: bytes) -> None:
        """
        Take bytes from the server.

        :raises BadBackendAnswer: they break HTTP or a bound.
        """
        self.touched = True
        self._feed(data)

    def eof(self) -> None:
        """
        Take the server's end of the connection.

        :raises BackendDied: the answer is not complete.
        """
        if self._feed == self._feed_until_close:
            self._end([])
        elif not self.idle:
            raise BackendDied

    def _feed_idle(self, data: bytes) -> None:
        raise BadBackendAnswer

    def _feed_head(self, data: bytes) -> None:
        held = self._held
        if held:
            searched = max(0, len(held) - 3)
            held += data
            end = held.find(b"\r\n\r\n", searched)
            if end >= 0:
                data = bytes(held)
                held.clear()
        else:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                held += data
        if end < 0:
            if len(held) > self._limits.head_bytes or not held.startswith(_START[: len(held)]):
                raise BadBackendAnswer
            return
        end += 4
        if end > self._limits.head_bytes:
            raise BadBackendAnswer
        if end == len(data):
            self._take_head(self._heads.parse(data), b"")
        else:
            self._take_head(self._heads.parse(data[:end]), data[end:])

    def _take_head(self, head: ResponseHead, rest: bytes) -> None:
        status = head.status
        if status < 200:
            self._take_interim(head, rest)
            return
        if self._bodiless or status in _BODILESS:
            left = 0
        elif head.chunked:
            self.keep_alive = _keeps_alive(head)
            self._left = 0
            self._feed = self._feed_chunked
            self._sink.on_head(head)
            if rest and not self.idle:
                self._feed(rest)
            return
        elif head.content_length is None:
            self._feed = self._feed_until_close
            self._sink.on_head(head)
            if rest and not self.idle:
                self._on_data(rest)
            return
        else:
            left = head.content_length
        # Known before anything is passed on: more bytes than the answer has.
        if len(rest) > left:
            raise BadBackendAnswer
        self.keep_alive = _keeps_alive(head)
        self._left = left
        self._feed = self._feed_length
        self._sink.on_head(head)
        if self.idle:
            return
        if left == 0:
            self._end([])
        elif rest:
            self._feed_length(rest)

    def _take_interim(self, head: ResponseHead, rest: bytes) -> None:
        if head.status == 101:
            if not self._may_upgrade:
                raise BadBackendAnswer
            self.idle = True
            self._feed = self._feed_idle
            self._sink.on_upgrade(head, rest)
            return
        self._interim += 1
        if self._interim > self._limits.interim or head.content_length or head.chunked:
            raise BadBackendAnswer
        if rest:
            self._feed_head(rest)

    def _feed_length(self, data: bytes) -> None:
        left = self._left - len(data)
        if left < 0:
            raise BadBackendAnswer
        self._left = left
        self._on_data(data)
        if left == 0 and not self.idle:
            self._end([])

    def _feed_until_close(self, data: bytes) -> None:
        self._on_data(data)

    def _feed_chunked(self, data: bytes) -> None:
        """``_left`` > 0: inside a chunk; 0: before a size line; -1: before a chunk's CRLF."""
        if self._held:
            self._held += data
            data = bytes(self._held)
            self._held.clear()
        pieces: list[bytes] = []
        at, end = 0, len(data)
        last = False
        while at < end:
            if self._left > 0:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._left = -1
            elif self._left < 0:
                if not _CRLF.startswith(data[at : at + 2]):
                    raise BadBackendAnswer
                if end - at < 2:
                    break
                at += 2
                self._left = 0
            else:
                line_end = data.find(_CRLF, at, at + self._limits.chunk_line_bytes)
                if line_end < 0:
                    if end - at >= self._limits.chunk_line_bytes or b"\n" in data[at:]:
                        raise BadBackendAnswer
                    break
                size = _chunk_size(data[at:line_end])
                at = line_end + 2
                if size == 0:
                    last = True
                    break
                until = at + size
                if data[until : until + 2] == _CRLF:
                    # All of it is here, mostly with the next one behind it.
                    pieces.append(data[at:until])
                    at = until + 2
                else:
                    self._left = size
        if pieces:
            self._on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            if self.idle:
                return
        if last:
            self._feed = self._feed_trailers
            self._feed_trailers(data[at:])
        elif at < end:
            self._held += data[at:]

    def _feed_trailers(self, data: bytes) -> None:
        held = self._held
        held += data
        if held.startswith(_CRLF):
            end = 2
        else:
            found = held.find(b"\r\n\r\n")
            if found < 0:
                if len(held) > self._limits.trailer_bytes:
                    raise BadBackendAnswer
                return
            end = found + 4
        if end > self._limits.trailer_bytes or end != len(held):
            raise BadBackendAnswer
        raw = bytes(held[:-2])
        held.clear()
        self._end(self._trailers(raw))

    def _trailers(self, raw: bytes) -> Trailers:
        if _FORBIDDEN.search(raw):
            raise BadBackendAnswer
        trailers: Trailers = []
        for line in raw.split(_CRLF)[:-1]:
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.fullmatch(name):
                raise BadBackendAnswer
            trailers.append((name.lower(), value.strip(b" \t")))
        if len(trailers) > self._limits.fields:
            raise BadBackendAnswer
        return trailers

    def drop(self) -> None:
        """Read nothing more: the exchange was given up, from inside one of the calls out."""
        self.idle = True
        self.keep_alive = False
        self._feed = self._feed_idle
        self._on_data = _nowhere

    def _end(self, trailers: Trailers) -> None:
        self.idle = True
        self._feed = self._feed_idle
        self._on_data = _nowhere
        self._sink.on_end(trailers)


def _chunk_size(line: bytes) -> int:
    """Read the line before a chunk; :raises BadBackendAnswer: it is none."""
    # Of letters and digits `int` takes what the rule does, but for 0x before them.
    if line.isalnum() and len(line) < 16 and line[1:2] not in (b"x", b"X"):
        try:
            return int(line, 16)
        except ValueError:
            raise BadBackendAnswer from None
    found = _CHUNK_LINE.fullmatch(line)
    if found is None:
        raise BadBackendAnswer
    return int(found[1], 16)


def _nowhere(data: bytes) -> None:
    """Take body bytes that nobody waits for: there are none."""
