"""
Puts heads and chunks on the wire.

A field that could end its line early is never written: response splitting ends here.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

Lines = list[tuple[bytes, bytes]]

LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
PROCESSING: Final = b"HTTP/1.1 102 Processing\r\n\r\n"


class KeptFields(Lines):
    """
    Fields of answers that are given again and again; not to be changed.

    :ivar wire: what they were on the wire the first time, without those that are written anew.
    """

    wire: bytes | None = None


_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}


_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++: [\t\x20-\x7e\x80-\xff]*+\r\n)*+")


def status_line(status: int) -> bytes:
    """Give the status line; a status nobody named has no phrase."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def field_lines(fields: Lines) -> bytes:
    """
    Give field lines.

    :raises ValueError: a name is no token, or a value holds control characters.
    """
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    if _FIELDS.fullmatch(lines) is None or lines.count(b"\n") != len(fields):
        raise ValueError("A field's name is no token, or its value holds control characters")
    return lines


def request_head(method: str, target: bytes, fields: Lines) -> bytes:
    """
    Give a request head with its closing empty line.

    :raises ValueError: a field or the target could be read as more than one.
    """
    if not target or any(byte <= 32 or byte == 127 for byte in target):
        raise ValueError("The target holds white space or control characters")
    start = b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target)
    return start + field_lines(fields) + b"\r\n"


def chunk(data: bytes) -> bytes:
    """Give one chunk; of no data nothing, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Lines | None) -> bytes:
    """Give the end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + field_lines(trailers) + b"\r\n"
