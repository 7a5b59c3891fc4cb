"""
What a request head must look like before anything believes it (R01-R10, RFC 9110, RFC 9112).

A well-formed head passes one compiled expression.  Whatever fails it is walked line by line only
to say why, and a head that arrives in pieces is walked the same way, so the verdict never depends
on how the network split the bytes.  Stricter than the RFCs wherever two readers could disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mcpgate.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotAllowed,
    NotImplementedHere,
    TargetTooLong,
    TooLarge,
    VersionNotSupported,
)
from mcpgate.http.fields import Fields
from mcpgate.http.heads import RequestHead
from mcpgate.model import KIB

Lines = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireBounds:
    """
    Sizes of an HTTP/1 request outside its body.

    :ivar line_bytes: request line (R10), without its line end.
    :ivar head_bytes: request line and fields, line ends included (R10).
    :ivar fields: field lines in a head, and in trailers (R10).
    :ivar chunk_extension_bytes: chunk extensions of one body, added up (R05).
    :ivar trailer_bytes: trailer section of one body (R05).
    :ivar declared_bytes: a ``Content-Length`` above this is never meant seriously (R02).
    """

    line_bytes: int = 8 * KIB
    head_bytes: int = 16 * KIB
    fields: int = 100
    chunk_extension_bytes: int = 4 * KIB
    trailer_bytes: int = 8 * KIB
    declared_bytes: int = 2**50


_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
# RFC 3986 without '#', and without the characters no URI holds but some readers mend.
_TARGET: Final = rb"""[!$-;=?-\[\]^_a-~]++"""
_LINE: Final = rb"[A-Z][A-Z-]{0,23}+ " + _TARGET + rb" HTTP/1\.[01]"

#: A whole head with its closing empty line.
HEAD: Final = re.compile(_LINE + rb"\r\n(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+\r\n")

#: A field line without its line end: name, value.
FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):(" + _VALUE + rb")")

#: Where a line ends, rightly or wrongly: a lone CR is known when the next byte is.
LINE_END: Final = re.compile(rb"\r\n|\n|\r[^\n]|\x00")

_REQUEST_LINE: Final = re.compile(_LINE)
_METHOD: Final = re.compile(rb"[A-Z][A-Z-]{0,23}")
_TARGET_ONLY: Final = re.compile(_TARGET)
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_LENGTH: Final = re.compile(rb"[0-9]++")
_CODING: Final = re.compile(rb"[A-Za-z0-9_-]+")
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?]*)(/[^?]*)?(\?.*)?")

#: Fields some rule of ours or of a server behind depends on.
SENSITIVE: Final = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"last-event-id",
        b"origin",
        b"proxy-authorization",
        b"proxy-connection",
        b"remote-user",
        b"sec-websocket-key",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-api-key",
        b"x-real-ip",
        b"x-request-id",
    }
)
_SENSITIVE_PREFIXES: Final = (b"mcp-", b"x-forwarded-", b"x-mcpgate-", b"x-auth-", b"sec-")
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})


def is_sensitive(name: bytes) -> bool:
    """Tell whether a lower-case field name, read with ``-`` for ``_``, carries trust or framing."""
    plain = name.replace(b"_", b"-")
    return plain in SENSITIVE or plain.startswith(_SENSITIVE_PREFIXES)


def check_request_line(line: bytes) -> None:
    """
    Refuse a request line that is not exactly ``METHOD SP target SP HTTP/1.x``.

    :raises GateError: 400, 405 (CONNECT, TRACE) or 505.
    """
    if _REQUEST_LINE.fullmatch(line) and line.split(b" ", 1)[0] not in _REFUSED_METHODS:
        return
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest("The request line must be: method, target, version, one space between.")
    method, target, version = parts
    if not _METHOD.fullmatch(method):
        raise BadRequest("The method is malformed.")
    if not _VERSION.fullmatch(version):
        raise BadRequest("The HTTP version is malformed.")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise VersionNotSupported
    if method in _REFUSED_METHODS:
        raise MethodNotAllowed
    if not _TARGET_ONLY.fullmatch(target):
        raise BadRequest("The request target holds characters that must be percent-encoded.")
    raise AssertionError("The parts of a request line are fine but the whole is not")


def check_field_line(line: bytes) -> None:
    """
    Refuse a field line that is not ``token ":" value``; folded lines are refused too.

    :raises BadRequest: with what is wrong.
    """
    if FIELD.fullmatch(line):
        return
    name, colon, _ = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        raise BadRequest("Folded header lines are obsolete and refused.")
    if not colon:
        raise BadRequest("A header line has no colon.")
    if not name:
        raise BadRequest("A header has no name.")
    if name[-1:] in (b" ", b"\t"):
        raise BadRequest("A header has white space before its colon.")
    if not re.fullmatch(_TOKEN, name):
        raise BadRequest("A header name holds characters it must not hold.")
    raise BadRequest("A header value holds control characters.")


class HeadWalk:
    """
    Walks a head line by line as it arrives.

    Errors are those of the first bad line, whatever the split.
    """

    __slots__ = ("_bounds", "_count", "_position", "_seen")

    def __init__(self, bounds: WireBounds) -> None:
        self._bounds = bounds
        self._position = 0
        self._seen = 0
        self._count = -1

    def walk(self, head: bytes) -> bool:
        """
        Look at what is new.

        :param head: everything of the head so far, perhaps more.
        :return: whether the closing empty line was reached.
        :raises GateError: for the first bad line.
        """
        bounds = self._bounds
        while True:
            # The last byte seen may have been a CR whose successor was missing.
            end = LINE_END.search(head, max(self._position, self._seen - 1))
            reached = end.start() if end is not None else len(head) - 1
            if self._count < 0 and reached - self._position > bounds.line_bytes:
                raise TargetTooLong
            if reached + 2 > bounds.head_bytes:
                raise HeadTooLarge
            if end is None:
                self._seen = len(head)
                return False
            if end[0] != b"\r\n":
                raise BadRequest("Lines must end with CR LF, and hold no other CR, LF or NUL.")
            line = head[self._position : reached]
            if self._count >= 0 and not line:
                return True
            if self._count >= bounds.fields:
                raise HeadTooLarge
            if self._count < 0:
                check_request_line(line)
            else:
                check_field_line(line)
            self._count += 1
            self._position = reached + 2


def make_head(method: bytes, target: bytes, minor: int, lines: Lines, limit: int) -> RequestHead:
    """
    Check what the fields say together, and build the head.

    :param minor: 0 or 1, of HTTP/1.x.
    :param lines: lower-case names, stripped values.
    :param limit: largest believable ``Content-Length``, bytes.
    :raises GateError: 400, 405, 413, 417 or 501.
    """
    if method in _REFUSED_METHODS:
        raise MethodNotAllowed
    for name, _ in lines:
        if b"_" in name and is_sensitive(name):
            raise BadRequest("A header name with '_' collides with one that has a meaning here.")
    fields = Fields(lines)
    host = _host(fields, minor)
    if target[:1] != b"/":
        target = _origin_form(target, host)
    path, question, query = target.partition(b"?")
    length, chunked = _framing(fields, minor, limit)
    _check_expectation(fields)
    return RequestHead(
        method=method.decode("ascii"),
        path=path,
        query=query if question else None,
        version=(1, minor),
        fields=fields,
        content_length=length,
        chunked=chunked,
        upgrade=_upgrade(fields, minor),
    )


def connection_tokens(fields: Fields) -> list[bytes]:
    """Give what ``Connection`` lists, lower-case."""
    value = b",".join(fields.get_all(b"connection"))
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def _host(fields: Fields, minor: int) -> bytes | None:
    count = fields.count(b"host")
    if count > 1:
        raise BadRequest("There must be one Host header.")
    host = fields.get(b"host")
    if host is None:
        if minor:
            raise BadRequest("There must be one Host header.")
        return None
    match = _HOST.fullmatch(host)
    if match is None or (match[1] is not None and int(match[1]) > 65535):
        raise BadRequest("The Host header is not a host name or address.")
    return host


def _origin_form(target: bytes, host: bytes | None) -> bytes:
    # RFC 9112 3.2.2: servers must accept the absolute form; ours only if it says nothing new.
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("The request target must begin with a slash.")
    authority, path, query = match.groups(b"")
    if host is None or authority.lower() != host.lower():
        raise BadRequest("The request target names another host than the Host header.")
    return (path or b"/") + query


def _framing(fields: Fields, minor: int, limit: int) -> tuple[int | None, bool]:
    lengths = fields.get_all(b"content-length")
    codings = fields.get_all(b"transfer-encoding")
    if codings:
        if lengths:
            raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
        if minor == 0:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding.")
        if len(codings) > 1:
            raise BadRequest("There must be one Transfer-Encoding header.")
        coding = codings[0].lower()
        if coding == b"chunked":
            return None, True
        if _CODING.fullmatch(coding) and coding not in (b"identity",):
            raise NotImplementedHere("The only transfer coding known here is chunked.")
        raise BadRequest("The only transfer coding known here is chunked.")
    if not lengths:
        return None, False
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest("Content-Length must be one decimal number.")
    digits = lengths[0].lstrip(b"0") or b"0"
    if len(digits) > 18 or int(digits) > limit:
        raise TooLarge
    return int(digits), False


def _check_expectation(fields: Fields) -> None:
    values = fields.get_all(b"expect")
    if values and (len(values) > 1 or values[0].lower() != b"100-continue"):
        raise ExpectationFailed


def _upgrade(fields: Fields, minor: int) -> bytes:
    # RFC 9110 7.8: not on HTTP/1.0, and only when Connection lists it.
    values = fields.get_all(b"upgrade")
    if len(values) != 1 or minor == 0 or b"upgrade" not in connection_tokens(fields):
        return b""
    return values[0].lower()


def trailer_line(line: bytes) -> tuple[bytes, bytes]:
    """
    Read one trailer field.

    :raises BadRequest: malformed, or a field that must not come after the body (RFC 9110 6.5.1).
    """
    check_field_line(line)
    name, _, value = line.partition(b":")
    name = name.lower()
    if is_sensitive(name):
        raise BadRequest("A trailer holds a header that must stand in the head.")
    return name, value.strip(b" \t")


def strip_lines(pairs: Iterable[tuple[bytes, bytes]]) -> Lines:
    """Bring field lines into the form `Fields` wants."""
    return [(name.lower(), value.strip(b" \t")) for name, value in pairs]
