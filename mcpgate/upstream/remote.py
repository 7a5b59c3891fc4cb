"""Where an HTTP server is: read from its URL, or from the address of the copy that was started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from mcpgate.errors import BackendUnavailable
from mcpgate.model import ServerSpec
from mcpgate.upstream.addresses import NamedEndpoint


def plain_endpoint(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    """Make the endpoint of a server that listens on ``host``, a name or a numeric address."""
    try:
        version = ip_address(host).version
    except ValueError:
        return HostnameEndpoint(reactor, host, port)
    if version == 6:
        return TCP6ClientEndpoint(reactor, host, port)
    return TCP4ClientEndpoint(reactor, host, port)


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """
    Where a remote server is, as its URL says.

    :ivar target: request target of the URL itself.
    """

    make_endpoint: Callable[[], IStreamClientEndpoint]
    authority: bytes
    target: bytes


def remote(reactor: Any, url: str, *, trust_root: Any = None) -> Remote:
    """
    Read a server's URL.  With ``https`` the certificate is verified for the URL's host; a name
    that leads to a link-local address is not connected to.

    :param trust_root: instead of the platform's certificate authorities.
    :raises ValueError: it is not an absolute http or https URL, or it holds a user name.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise ValueError(f"not an absolute http or https URL without user: {url!r}")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    shown = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    default = port == (443 if secure else 80)
    authority = (shown if default else f"{shown}:{port}").encode("ascii")
    target = parts.path or "/"
    if parts.query:
        target += "?" + parts.query

    named = not _is_numeric(host)

    def make_endpoint() -> IStreamClientEndpoint:
        endpoint = plain_endpoint(reactor, host, port)
        if named:
            endpoint = NamedEndpoint(endpoint)
        if not secure:
            return endpoint
        options = optionsForClientTLS(host, **({"trustRoot": trust_root} if trust_root else {}))
        return wrapClientTLS(options, endpoint)

    return Remote(make_endpoint=make_endpoint, authority=authority, target=target.encode("ascii"))


def reach(reactor: Any, spec: ServerSpec, address: tuple[str, int] | None) -> Remote:
    """
    Tell where a server listens: where its URL says, or where it was started.

    :raises BackendUnavailable: it has neither.
    """
    if spec.url:
        return remote(reactor, spec.url)
    if address is None:
        raise BackendUnavailable("The server has no address.")
    host, port = address
    return Remote(
        make_endpoint=lambda: plain_endpoint(reactor, host, port),
        authority=f"{host}:{port}".encode("ascii"),
        target=spec.mcp_path.encode("ascii"),
    )
