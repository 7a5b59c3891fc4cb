"""
What trusted proxies tell of the client: ``X-Forwarded-*`` and ``Forwarded`` (RFC 7239).

Believed only from configured networks.  Each address in the chain is believed as long as the one
that reported it is trusted; the first that is not is the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer

UNIX = "unix"

_HOST = re.compile(rb"[A-Za-z0-9._\-\[\]:]{1,255}")

# It becomes part of paths we write, in headers, events and pages.
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~-]{1,64}){1,8}")

#: Whoever sends one of these passes on somebody else's request.
FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)

_MAX_HOPS = 32
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Forwarded:
    """
    The client as a proxy tells it.

    :ivar host: what the client asked for; empty when nobody says.
    """

    peer: Peer
    host: bytes


class TrustedProxies:
    """
    Networks whose word counts.

    :param networks: ``10.0.0.0/8``, ``192.0.2.7``, ``unix``.
    :raises ValueError: one of them is no network; the text names it.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for network in networks:
            if network == UNIX:
                self._unix = True
                continue
            try:
                self._networks.append(ip_network(network, strict=False))
            except ValueError as error:
                raise ValueError(
                    f"trusted_proxies: {network!r} is no network. "
                    "Write for example 10.0.0.0/8, 192.0.2.7 or unix."
                ) from error
        self.any = self._unix or bool(self._networks)
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Tell whether an address is a trusted proxy's; the empty one is a unix socket's."""
        if not address:
            return self._unix
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)

    def read(self, fields: Fields, peer: Peer) -> Forwarded | None:
        """
        Find the client in the fields of a request that came from a trusted proxy.

        None when the fields say nothing.  A proxy that writes one kind may let the client's own of
        the other kind pass: where both are there and name different clients, neither is believed.
        """
        ours = _x_forwarded(fields)
        standard = _forwarded(fields)
        prefix = _prefix(fields)
        if ours is None and standard is None:
            return Forwarded(replace(peer, prefix=prefix), b"") if prefix else None
        chains = [told for told in (ours, standard) if told is not None and told.chain]
        clients = {self._client(told.chain) for told in chains}
        if len(clients) > 1:
            return None
        told = ours or standard
        assert told is not None
        address, port = clients.pop() if clients else ("", 0)
        secure = peer.secure if not told.proto else told.proto == "https"
        if not address:
            address, port = peer.address, peer.port
        # It becomes part of URLs we write: what can not be a host and port is not believed.
        host = told.host if _HOST.fullmatch(told.host) else b""
        return Forwarded(Peer(address, secure, port, prefix), host)

    def _client(self, chain: list[str]) -> tuple[str, int]:
        """Walk from the nearest hop outwards; what is no address ends the walk."""
        found = ("", 0)
        for hop in reversed(chain):
            address = _address(hop)
            if address is None:
                break
            found = address
            if not self.trusts(found[0]):
                break
        return found


@dataclass(frozen=True, slots=True)
class _Told:
    chain: list[str]
    proto: str
    host: bytes


def _x_forwarded(fields: Fields) -> _Told | None:
    chain = _last_words(fields, b"x-forwarded-for")
    proto = _last_words(fields, b"x-forwarded-proto")
    host = _last_words(fields, b"x-forwarded-host")
    if not (chain or proto or host):
        return None
    return _Told(
        chain,
        proto[-1].lower() if proto else "",
        host[-1].encode("latin-1") if host else b"",
    )


def _prefix(fields: Fields) -> bytes:
    """Give what the nearest proxy has taken off the path; empty when that is no prefix."""
    words = _last_words(fields, b"x-forwarded-prefix")
    prefix = words[-1].encode("latin-1").rstrip(b"/") if words else b""
    good = _PREFIX.fullmatch(prefix) and not {b".", b".."} & set(prefix.split(b"/"))
    return prefix if good else b""


def _last_words(fields: Fields, name: bytes) -> list[str]:
    if name not in fields:
        return []
    text = b",".join(fields.get_all(name)).decode("latin-1")
    return [word.strip() for word in text.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:] if word.strip()]


def _forwarded(fields: Fields) -> _Told | None:
    words = _last_words(fields, b"forwarded")
    if not words:
        return None
    chain: list[str] = []
    proto = host = ""
    for word in words:
        # A comma or semicolon in quotes does not occur in addresses, hosts or schemes: what it
        # tears apart is no address, and ends the walk.
        pairs = dict(_pair(part) for part in word.split(";"))
        chain.append(pairs.get("for", ""))
        proto = pairs.get("proto", proto)
        host = pairs.get("host", host)
    return _Told(chain, proto.lower(), host.encode("latin-1"))


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.strip().partition("=")
    return name.strip().lower(), value.strip().strip('"')


def _address(hop: str) -> tuple[str, int] | None:
    """Read ``1.2.3.4``, ``1.2.3.4:567``, ``::1`` or ``[::1]:567``."""
    port = ""
    if hop.startswith("["):
        hop, _, rest = hop[1:].partition("]")
        port = rest.removeprefix(":")
    elif hop.count(":") == 1:
        hop, _, port = hop.partition(":")
    try:
        address = str(ip_address(hop))
    except ValueError:
        return None
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    return address, int(port or 0)
