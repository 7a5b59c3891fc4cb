"""
Connections refused for the address they ended up at, before a byte is sent (R78).

The address connected to is looked at, not what the name resolves to: that may change.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from typing_extensions import override
from zope.interface import implementer


def numeric(address: str) -> IPv4Address | IPv6Address | None:
    """Read an address, one of IPv4 also as IPv6 writes it; None where it is none."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or parsed.sixtofour or parsed
    return parsed


@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """
    Connects as another endpoint does.

    :param check: called with the address connected to; what it raises, connecting fails with.
    """

    def __init__(self, inner: IStreamClientEndpoint, check: Callable[[str], None]) -> None:
        self._inner = inner
        self._check = check

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """See `IStreamClientEndpoint.connect`."""
        return self._inner.connect(_CheckedFactory(protocolFactory, self._check))


class _CheckedFactory(Factory):
    noisy = False

    def __init__(self, inner: IProtocolFactory, check: Callable[[str], None]) -> None:
        self._inner = inner
        self._check = check

    @override
    def doStart(self) -> None:
        self._inner.doStart()

    @override
    def doStop(self) -> None:
        self._inner.doStop()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:
        self._check(str(getattr(addr, "host", "")))
        return self._inner.buildProtocol(addr)  # type: ignore[arg-type]  # None never comes from TCP
