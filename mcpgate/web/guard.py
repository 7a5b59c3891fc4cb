"""
Who may ask at all: Host, Origin and forwarding fields, looked at before anything else.

Keeps DNS rebinding and foreign web pages out (R06, R77), answers CORS preflights, and finds the
client's address behind trusted proxies.  Knows nothing of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from mcpgate.errors import ForbiddenOrigin, MisdirectedRequest
from mcpgate.gate.server_hosts import ServerHosts, host_name
from mcpgate.http.fields import Fields
from mcpgate.interfaces import IInbound
from mcpgate.web.forwarding import TrustedProxies

# Positive answers remembered; ports in Host make them many.
_REMEMBERED = 256

_MAX_AGE_S = 7200

ALLOWED_METHODS = ("GET", "POST", "DELETE", "OPTIONS")

ALLOWED_FIELDS = (
    "Content-Type",
    "Accept",
    "Authorization",
    "X-API-Key",
    "Last-Event-ID",
    "Mcp-Session-Id",
    "MCP-Protocol-Version",
    "Mcp-Method",
    "Mcp-Name",
    "traceparent",
    "tracestate",
)

_EXPOSED = b"Mcp-Session-Id, WWW-Authenticate, MCP-Protocol-Version"

_PARAM = re.compile(rb"mcp-param-[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.IGNORECASE)
_MAX_PARAMS = 64


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """
    Called by the dispatcher first, for every request.

    :param allowed_hosts: names accepted in Host beside the gate's own; ``*.example.org`` covers one
        label, ``*`` everything.  Ports are ignored.
    :param server_hosts: names that stand for a server each; accepted as well.
    :param allowed_origins: origins of web pages that may call: ``https://app.example.org``,
        ``https://*.example.org`` (one label), ``http://localhost:*`` (any port), ``*`` (any).
        A page of the very host it calls is always allowed.
    :param trusted_proxies: networks whose forwarding fields are believed, ``unix`` for whoever
        connects by unix socket.
    :param public_url: the gate's own URL; its host and origin are allowed.
    :param key_fields: further request fields that may carry keys; pages may send them.
    :param methods: what a preflight allows.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Iterable[str] = (),
        server_hosts: ServerHosts | None = None,
        allowed_origins: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        public_url: str = "",
        key_fields: Iterable[str] = (),
        methods: Iterable[str] = ALLOWED_METHODS,
    ) -> None:
        self._server_hosts = server_hosts or ServerHosts()
        self._configured = {host_name(name) for name in allowed_hosts}
        self._origins = {origin.lower().removesuffix("/") for origin in allowed_origins}
        if public_url:
            scheme, _, rest = public_url.partition("://")
            authority = rest.partition("/")[0]
            self._configured.add(host_name(authority))
            self._origins.add(f"{scheme}://{authority}".lower())
        self._own: frozenset[str] = frozenset()
        self._any_address = False
        self._proxies = TrustedProxies(trusted_proxies)
        self._known_hosts: set[bytes] = set()
        self._known_origins: set[bytes] = set()
        self._methods = ", ".join(methods).encode()
        self._fields = ", ".join((*ALLOWED_FIELDS, *key_fields)).encode()

    def own_hosts(self, names: Iterable[str], *, any_address: bool = False) -> None:
        """
        Tell the gate's own names: of its certificates, its bound addresses, ``localhost``.

        To be told again after other certificates are served.

        :param any_address: it listens on every address of the machine, so that a Host which is a
            numeric address is accepted.  Rebinding needs a name: such a Host is no way in.
        """
        self._own = frozenset(host_name(name) for name in names)
        self._any_address = any_address
        self._known_hosts.clear()

    def check(self, inbound: IInbound) -> bool:
        """
        Look at one request.

        Sets ``inbound.peer`` (and Host, in ``inbound.head``) to what a trusted proxy tells, and
        ``inbound.extra_fields`` to what a browser needs to see.

        :return: whether it has been answered here (CORS preflight).
        :raises MisdirectedRequest: the Host is not one of ours.
        :raises ForbiddenOrigin: a web page that may not call.
        """
        if self._proxies.any and self._proxies.trusts(inbound.peer.address):
            self._apply_forwarding(inbound)
        fields = inbound.head.fields
        host = fields.get(b"host")
        if host not in self._known_hosts and not self.allows_host(host):
            raise MisdirectedRequest
        origin = fields.get(b"origin")
        if origin is None:
            return False
        return self._check_origin(inbound, origin, host or b"")

    def allows_host(self, host: bytes | None) -> bool:
        """Tell whether a Host value names this gate; absent never does, but where all do."""
        if "*" in self._configured:
            return True
        if not host:
            return False
        name = host_name(host.decode("latin-1"))
        parent = "*." + name.partition(".")[2]
        allowed = (
            name in self._own
            or name in self._configured
            or parent in self._own
            or parent in self._configured
            or self._server_hosts.server_of(name) != ""
            or (self._any_address and _is_address(name))
        )
        if allowed and len(self._known_hosts) < _REMEMBERED:
            self._known_hosts.add(host)
        return allowed

    def allows_origin(self, origin: bytes, host: bytes) -> bool:
        """
        Tell whether a page of this origin may call.

        The page's own host is compared by name and port only: a proxy in front may have ended TLS.
        """
        if origin in self._known_origins:
            return True
        text = origin.decode("latin-1").lower()
        scheme, _, authority = text.partition("://")
        if (
            scheme in ("http", "https")
            and authority
            and authority == host.decode("latin-1").lower()
        ):
            return True
        allowed = (
            "*" in self._origins
            or text in self._origins
            or f"{scheme}://*.{authority.partition('.')[2]}" in self._origins
            or f"{scheme}://{authority.rpartition(':')[0] or authority}:*" in self._origins
        )
        if allowed and len(self._known_origins) < _REMEMBERED:
            self._known_origins.add(origin)
        return allowed

    def _check_origin(self, inbound: IInbound, origin: bytes, host: bytes) -> bool:
        fields = inbound.head.fields
        if fields.count(b"origin") != 1 or not self.allows_origin(origin, host):
            raise ForbiddenOrigin
        answer = [
            (b"access-control-allow-origin", origin),
            (b"vary", b"Origin"),
            (b"access-control-expose-headers", _EXPOSED),
        ]
        if inbound.head.method == "OPTIONS" and b"access-control-request-method" in fields:
            inbound.extra_fields = []
            inbound.respond(204, answer[:2] + self._preflight(fields), b"")
            return True
        inbound.extra_fields = answer
        return False

    def _preflight(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """Say what may be sent; names of tool parameters can not be listed, so they are echoed."""
        asked = b",".join(fields.get_all(b"access-control-request-headers")).split(b",", 256)
        names = [name.strip() for name in asked[:256]]
        echoed = [name for name in names if _is_param(name)][:_MAX_PARAMS]
        return [
            (b"access-control-allow-methods", self._methods),
            (b"access-control-allow-headers", b", ".join([self._fields, *echoed])),
            (b"access-control-max-age", b"%d" % _MAX_AGE_S),
        ]

    def _apply_forwarding(self, inbound: IInbound) -> None:
        head = inbound.head
        forwarded = self._proxies.read(head.fields, inbound.peer)
        if forwarded is None:
            return
        inbound.peer = forwarded.peer
        if forwarded.host:
            lines = [line for line in head.fields if line[0] != b"host"]
            inbound.head = replace(head, fields=Fields([(b"host", forwarded.host), *lines]))


def _is_param(name: bytes) -> bool:
    # Only what can stand in a field name: it is written into ours.
    return len(name) <= 128 and _PARAM.fullmatch(name) is not None


def own_names(
    certificate_names: Iterable[str], bound_hosts: Iterable[str]
) -> tuple[tuple[str, ...], bool]:
    """
    Give what `Guard.own_hosts` wants: the names, and whether a listener takes every address.

    :param bound_hosts: numeric addresses the listeners got; empty ones (unix sockets) are left out.
    """
    hosts = tuple(bound_hosts)
    everything = any(host in ("0.0.0.0", "::") for host in hosts)  # noqa: S104 - compared
    bound = (host for host in hosts if host)
    return (*certificate_names, *bound, "localhost", "127.0.0.1", "::1"), everything
