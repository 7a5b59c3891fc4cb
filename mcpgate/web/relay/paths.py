"""Where a request for one of a server's other paths leads, if anywhere.  Pure."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit

from mcpgate.errors import NotFound
from mcpgate.gate.routing import Route
from mcpgate.interfaces import IInbound
from mcpgate.model import Isolation, ServerSpec


def whereto(inbound: IInbound, route: Route) -> tuple[bytes, bytes]:
    """
    Give path and query towards the server, and what was cut off the front of the client's path.

    :raises NotFound: the server has no such paths, or none for this request.
    """
    spec, head = route.spec, inbound.head
    prefix = inbound.peer.prefix + head.path[: len(head.path) - len(route.rest)]
    if not (spec.transport.listens and spec.relay):
        raise NotFound(f"The MCP endpoint is {prefix.decode('latin-1')}/mcp.")
    if climbs(route.rest):
        raise NotFound("A path must not hold '.' or '..' as a segment.")
    if spec.isolation is Isolation.PER_SESSION:
        raise NotFound("This server has no paths beside sessions.")
    target = _base(spec) + route.rest
    if head.query is not None:
        target += b"?" + head.query
    return target, prefix


def climbs(path: bytes) -> bool:
    """
    Tell whether a path could mean one outside of what it begins with, to anybody (R81).

    A server may decode once more than we, take a backslash for a slash or cut parameters off
    (``..;x``).
    """
    for _ in range(3):
        if b"\0" in path:
            return True
        segments = path.replace(b"\\", b"/").split(b"/")
        if any(segment.partition(b";")[0] in (b".", b"..") for segment in segments):
            return True
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return False
        path = decoded
    return True


def _base(spec: ServerSpec) -> bytes:
    """Give the path below which a remote server's other paths are: beside its MCP endpoint."""
    if not spec.url:
        return b""
    return urlsplit(spec.url).path.rpartition("/")[0].encode("ascii")
