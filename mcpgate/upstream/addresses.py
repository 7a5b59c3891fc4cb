"""
Names that lead where no server of anybody's is: to link-local addresses (R78).

There the clouds keep the keys of their machines (169.254.169.254).  Whoever answers for the name
of a server behind a URL could have the gate, with somebody's key, ask there.
"""

from __future__ import annotations

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from typing_extensions import override

from mcpgate.checked_endpoint import CheckedEndpoint, numeric


class LinkLocalError(ConnectError):
    """The name of a server led to a link-local address."""

    @override
    def __str__(self) -> str:
        return "its name leads to a link-local address; write the address into url if it is meant"


def is_link_local(address: str) -> bool:
    """Tell whether an address is link-local, also as IPv6 writes those of IPv4."""
    parsed = numeric(address)
    return parsed is not None and parsed.is_link_local


def _check(address: str) -> None:
    if is_link_local(address):
        raise LinkLocalError


class NamedEndpoint(CheckedEndpoint):
    """Refuses connections by name that ended up at a link-local address."""

    def __init__(self, inner: IStreamClientEndpoint) -> None:
        super().__init__(inner, _check)
