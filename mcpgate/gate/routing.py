"""Which server a path belongs to.  Knows names and paths only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mcpgate.gate.server_hosts import ServerHosts, host_name
from mcpgate.http.heads import RequestHead
from mcpgate.model import ServerSpec


@dataclass(frozen=True, slots=True)
class Route:
    """
    Where a request goes.

    :ivar rest: what follows the server's name, raw, beginning with ``/``; empty when nothing does;
        the whole path where the host names the server.
    :ivar is_endpoint: the path is the server's MCP endpoint.
    :ivar is_sse: the path is one of the two of HTTP+SSE, and the gate serves them.
    """

    spec: ServerSpec
    rest: bytes
    is_endpoint: bool
    is_sse: bool = False


_TOGETHER: Final = frozenset((b"mcp", b"sse", b"messages"))
#: Clients look here for an authorization server after a 401: the gate answers, on every host.
_WELL_KNOWN: Final = b"/.well-known/"
_SSE_PATHS: Final = frozenset((b"sse", b"sse/", b"messages", b"messages/"))


class Routes:
    """
    ``/{server}/...`` and its alias ``/servers/{server}/...``; the group named ``mcp`` has ``/mcp``,
    ``/sse`` and ``/messages`` to itself.

    Where ``hosts`` tells a server by the name of the host, all its paths are that server's.

    Names hold only ``[a-z0-9-]``, so an encoded, dotted or doubled path never matches one (R81).
    """

    def __init__(self, specs: Iterable[ServerSpec], hosts: ServerHosts | None = None) -> None:
        self._hosts = hosts or None
        self.replace(specs)

    def replace(self, specs: Iterable[ServerSpec]) -> None:
        """Route to these from now on."""
        self._specs = {spec.name.encode("ascii"): spec for spec in specs}
        self._together = self._specs.get(b"mcp")

    def of(self, head: RequestHead) -> Route | None:
        """Find the route of a request: the same one for the same head, as long as it holds."""
        memo = head.memo
        if memo is not None:
            known = memo.get("route")
            if known is not None and known[0] is self._specs:
                route: Route = known[1]
                return route
        found = self.find(head.path, head.fields.get(b"host"))
        if memo is not None and found is not None:
            memo["route"] = (self._specs, found)
        return found

    def find(self, path: bytes, host: bytes | None = None) -> Route | None:
        """Find the route of a raw path, asked of a Host; None when no server has it."""
        if self._hosts is not None and host and (spec := self._at(host)) is not None:
            if path.startswith(_WELL_KNOWN):
                return None
            is_sse = path[1:] in _SSE_PATHS and spec.sse
            return Route(spec, path, path in (b"/mcp", b"/mcp/"), is_sse)
        name, slash, rest = path[1:].partition(b"/")
        if not slash and self._together is not None and name in _TOGETHER:
            # /mcp, /sse and /messages: every server at once.
            return Route(self._together, path, name == b"mcp", name != b"mcp")
        if name == b"servers":
            name, slash, rest = rest.partition(b"/")
        spec = self._specs.get(name)
        if spec is None:
            return None
        is_sse = rest in _SSE_PATHS and spec.sse
        return Route(spec, slash + rest, rest in (b"mcp", b"mcp/"), is_sse)

    def _at(self, host: bytes) -> ServerSpec | None:
        assert self._hosts is not None
        name = self._hosts.server_of(host_name(host.decode("latin-1")))
        spec = self._specs.get(name.encode("latin-1"))
        # All servers at once are at /mcp of every other host, the gate's pages beside them.
        return None if spec is self._together else spec

    def specs(self) -> list[ServerSpec]:
        """Give every server, in the order of the configuration."""
        return list(self._specs.values())
