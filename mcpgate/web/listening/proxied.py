"""
PROXY protocol, versions 1 and 2 (HAProxy ``doc/proxy-protocol.txt``), in front of any factory.

Twisted's own wrapper connects the wrapped protocol before the header has come, so that HTTP or TLS
would see the load balancer as its peer; it has no deadline, and wants the header's first bytes in
one piece.  Here the wrapped protocol is built when the header is complete.

Whoever reaches such a listener may claim any address: it is for a load balancer's network only.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvides, providedBy

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel

HEADER_S = 10.0

_V1 = b"PROXY "
_V1_MAX = 107
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = 16
# Addresses take 36 bytes; the rest are TLVs (TLS details, a connection id).
_V2_MAX = 4096
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21

Endpoint = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """
    A complete header.

    :ivar source: the client; None when the balancer speaks for itself (health checks).
    :ivar destination: what the client connected to.
    :ivar size: bytes the header took.
    """

    source: Endpoint | None
    destination: Endpoint | None
    size: int


def read_header(data: bytes) -> ProxyHeader | None:
    """
    Read a header from the beginning of ``data``; None when more bytes are needed.

    :raises ValueError: it is none, or a malformed one.
    """
    if data[:12] == _V2[: len(data)]:
        return _read_v2(data)
    if data[:6] == _V1[: len(data)]:
        return _read_v1(data)
    raise ValueError("no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:_V1_MAX].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_MAX:
            raise ValueError("line too long")
        return None
    size = len(line) + 2
    words = line.decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(None, None, size)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ValueError("malformed line")
    _, _, source, destination, source_port, destination_port = words
    return ProxyHeader(
        _endpoint(source, _port(source_port)), _endpoint(destination, _port(destination_port)), size
    )


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    size = _V2_HEAD + length
    if command not in (_V2_LOCAL, _V2_PROXY) or size > _V2_MAX:
        raise ValueError("unknown command, or too long")
    if len(data) < size:
        return None
    if command == _V2_LOCAL or family not in (_TCP4, _TCP6):
        return ProxyHeader(None, None, size)
    width = 4 if family == _TCP4 else 16
    if length < 2 * width + 4:
        raise ValueError("addresses cut short")
    addresses = data[_V2_HEAD : _V2_HEAD + 2 * width]
    ports = struct.unpack_from("!HH", data, _V2_HEAD + 2 * width)
    source, destination = (
        str(ipaddress.ip_address(packed)) for packed in (addresses[:width], addresses[width:])
    )
    return ProxyHeader(_endpoint(source, ports[0]), _endpoint(destination, ports[1]), size)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError("not a port")
    return int(text)


def _endpoint(host: str, port: int) -> Endpoint:
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return IPv4Address("TCP", str(address), port)
    return IPv6Address("TCP", str(address), port)


class ProxiedConnection(ProtocolWrapper):
    """One connection: first its header, then the wrapped protocol as if the client were here."""

    factory: ProxiedFactory

    def __init__(self, factory: ProxiedFactory, address: IAddress) -> None:
        # Nothing is wrapped yet; this stands in.
        super().__init__(factory, Protocol())
        self._address = address
        self._buffer = b""
        self._header: ProxyHeader | None = None
        self._deadline: Deadline | None = None

    @override
    def makeConnection(self, transport: ITransport) -> None:
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self._deadline = self.factory.wheel.arm(HEADER_S, self._refuse)

    def _refuse(self) -> None:
        self.factory.meters.events["proxy_header_refused"] += 1
        self._over()
        self.abortConnection()

    def _over(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._header is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        if self._deadline is None:
            # Refused; what still comes is not looked at.
            return
        self._buffer += data
        try:
            header = read_header(self._buffer)
        except ValueError:
            self._refuse()
            return
        if header is not None:
            self._begin(header)

    def _begin(self, header: ProxyHeader) -> None:
        self._over()
        self._header = header
        rest, self._buffer = self._buffer[header.size :], b""
        protocol = self.factory.wrappedFactory.buildProtocol(header.source or self._address)
        if protocol is None:
            self.loseConnection()
            return
        self.wrappedProtocol = protocol
        protocol.makeConnection(self)
        if rest:
            protocol.dataReceived(rest)

    @override
    def getPeer(self) -> IAddress:
        if self._header is not None and self._header.source is not None:
            return self._header.source
        return cast(IAddress, super().getPeer())

    @override
    def getHost(self) -> IAddress:
        if self._header is not None and self._header.destination is not None:
            return self._header.destination
        return cast(IAddress, super().getHost())

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over()
        super().connectionLost(reason)


class ProxiedFactory(WrappingFactory[ProxiedConnection]):
    """Puts the PROXY protocol before a factory; ``buildProtocol`` gets the client's address."""

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, *, wheel: DeadlineWheel, meters: Meters) -> None:
        super().__init__(wrapped)
        self.wheel = wheel
        self.meters = meters

    @override
    def buildProtocol(self, addr: IAddress) -> ProxiedConnection:  # type: ignore[override]
        # The address is always known to us; Twisted allows for None.
        return ProxiedConnection(self, addr)
