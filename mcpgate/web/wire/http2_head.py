"""
From an HTTP/2 header list to the head every room knows (RFC 9113 8.3), under the rules of HTTP/1.

Whatever could mean something else once it is written as HTTP/1 towards a server is refused (R15).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mcpgate.errors import BadRequest, HeadTooLarge
from mcpgate.http.fields import Fields
from mcpgate.http.heads import RequestHead
from mcpgate.http.strictness import WireBounds, check_field_line, check_request_line, make_head

#: Stands in the access log where no request could be read.
UNREAD = RequestHead(method="-", path=b"-", query=None, version=(2, 0), fields=Fields())


def read_head(
    headers: Iterable[tuple[bytes, bytes]], bounds: WireBounds, *, ended: bool
) -> RequestHead:
    """
    Check a header list and build the head.

    :param ended: no body follows.
    :raises GateError: 400, 405, 413, 417 or 431.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[tuple[bytes, bytes]] = []
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            check_field_line(b"%b:%b" % (name, value))
            lines.append((name, value.strip(b" \t")))
    if len(lines) > bounds.fields or size > bounds.head_bytes:
        raise HeadTooLarge
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    check_request_line(b"%b %b HTTP/1.1" % (method, target or b"/"))
    if not target.startswith(b"/"):
        raise BadRequest("The :path must begin with a slash.")
    authority = pseudo.get(b":authority")
    hosts = [value for name, value in lines if name == b"host"]
    if authority is not None:
        if any(host.lower() != authority.lower() for host in hosts):
            raise BadRequest("Host and :authority name different hosts.")
        lines = [(b"host", authority), *(line for line in lines if line[0] != b"host")]
    head = make_head(method, target, 1, _joined_cookies(lines), bounds.declared_bytes)
    return replace(head, version=(2, 0), chunked=not ended and head.content_length is None)


def _joined_cookies(lines: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Make one of several Cookie fields, as RFC 9113 8.2.3 asks before anything else reads them."""
    cookies = [value for name, value in lines if name == b"cookie"]
    if len(cookies) < 2:
        return lines
    return [*(line for line in lines if line[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]
