"""
Names that lead where no server of anybody's is: to link-local addresses (R78).

There the clouds keep the keys of their machines (169.254.169.254).  Whoever answers for the name
of a server behind a URL could have the gate, with somebody's key, ask there.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from typing_extensions import override
from zope.interface import implementer


class LinkLocalError(ConnectError):
    """The name of a server led to a link-local address."""

    @override
    def __str__(self) -> str:
        return "its name leads to a link-local address; write the address into url if it is meant"


def is_link_local(address: str) -> bool:
    """Tell whether an address is link-local, also as IPv6 writes those of IPv4."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or parsed.sixtofour or parsed
    return parsed.is_link_local


@implementer(IStreamClientEndpoint)
class NamedEndpoint:
    """
    Refuses connections by name that ended up at a link-local address, before a byte is sent.

    The address connected to is looked at, not what the name resolves to: that may change.
    """

    def __init__(self, inner: IStreamClientEndpoint) -> None:
        self._inner = inner

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """See `IStreamClientEndpoint.connect`."""
        return self._inner.connect(_CheckedFactory(protocolFactory))


class _CheckedFactory(Factory):
    noisy = False

    def __init__(self, inner: IProtocolFactory) -> None:
        self._inner = inner

    @override
    def doStart(self) -> None:
        self._inner.doStart()

    @override
    def doStop(self) -> None:
        self._inner.doStop()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:
        if is_link_local(str(getattr(addr, "host", ""))):
            raise LinkLocalError
        return self._inner.buildProtocol(addr)  # type: ignore[arg-type]  # None never comes from TCP
