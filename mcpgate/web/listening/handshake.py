"""
TLS in front of an HTTP factory: the handshake under a deadline, then the protocol it agreed on.

The wrapped protocol is built only when the handshake is complete, so that a half-open connection
costs no HTTP state, and is chosen by ALPN.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping

from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.listening.tls import HTTP1, HTTP2, CertificateStore
from mcpgate.web.listening.tls_socket import take_over

HANDSHAKE_S = 10.0

_HANDSHAKE_RECORD = 0x16

_PLAIN_TEXT = b"This port speaks HTTPS: write https:// instead of http:// in the URL.\n"
PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s" % (len(_PLAIN_TEXT), _PLAIN_TEXT)
)


class GateTLS(TLSMemoryBIOProtocol):
    """
    One TLS connection; plain HTTP is told so and closed at once (R13).

    It is there for the handshake.  Then the connection goes on by itself, with TLS on its socket,
    or where that can not be (HTTP/2, a unix socket, behind the PROXY protocol) through here.
    """

    _begun = False
    _shaking = True

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            if data[0] != _HANDSHAKE_RECORD:
                if data[:1].isalpha() and self.transport is not None:
                    self.transport.write(PLAIN_ANSWER)
                self._tlsShutdownFinished(None)
                return
        super().dataReceived(data)
        if self._shaking and self._handshakeDone and not self._aborted:
            self._shaking = False
            handshake = self.wrappedProtocol
            assert isinstance(handshake, Handshake)
            self._go_on(handshake)

    def _go_on(self, handshake: Handshake) -> None:
        """Hand the connection to the protocol that was agreed on, with what came for it."""
        protocol = handshake.agreed()
        if protocol is None:
            self.loseConnection()
            return
        direct = None
        if self.negotiatedProtocol != HTTP2 and not self._lostTLSConnection:
            direct = take_over(self.transport, self._tlsConnection)
        if direct is None:
            # From here on it costs no call more than Twisted's own TLS.
            self.wrappedProtocol = protocol
        else:
            self.factory.unregisterProtocol(self)
            direct.protocol = protocol
        protocol.makeConnection(direct or self)
        if handshake.early:
            protocol.dataReceived(handshake.early)


class Handshake(Protocol):
    """
    Stands where the HTTP protocol will be until the handshake is complete.

    :ivar early: what came right behind it.
    """

    transport: GateTLS

    def __init__(self, factory: TLSFactory, address: IAddress, host: str) -> None:
        self.early = b""
        self._owner = factory
        self._address = address
        self._host = host
        self._deadline: Deadline | None = None

    @override
    def connectionMade(self) -> None:
        # Tickets leave just before the first answer, which must not wait until they are seen.
        if ITCPTransport.providedBy(self.transport):
            with contextlib.suppress(OSError):  # a unix socket
                self.transport.setTcpNoDelay(True)
        self._deadline = self._owner.wheel.arm(self._owner.handshake_s, self._late)

    def _late(self) -> None:
        self._owner.meters.events["tls_handshake_late"] += 1
        self.transport.abortConnection()

    def _over(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._owner.handshake_over(self._host)

    @override
    def dataReceived(self, data: bytes) -> None:
        self.early += data

    def agreed(self) -> IProtocol | None:
        """Give the protocol that was agreed on; None: it is refused."""
        self._over()
        return self._owner.choose(self.transport.negotiatedProtocol).buildProtocol(self._address)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None:
            self._owner.meters.events["tls_handshake_failed"] += 1
        self._over()


class TLSFactory(TLSMemoryBIOFactory):
    """
    Serves HTTP over TLS.

    :param protocols: factories by ALPN name; `tls.HTTP1` must be there, it serves whoever agrees
        on nothing.  Their ``buildProtocol`` is called after the handshake; None closes.
    :param handshake_s: seconds from accept to a complete handshake.
    :param max_handshakes: unfinished handshakes at once, over all clients.
    :param max_per_address: the same, from one address (R28); unix sockets are not counted.
    """

    protocol = GateTLS

    def __init__(
        self,
        store: CertificateStore,
        protocols: Mapping[bytes, IProtocolFactory],
        *,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        meters: Meters,
        handshake_s: float = HANDSHAKE_S,
        max_handshakes: int = 1024,
        max_per_address: int = 64,
    ) -> None:
        super().__init__(store, False, protocols[HTTP1], clock)
        self.wheel = wheel
        self.meters = meters
        self.handshake_s = handshake_s
        self._protocols = dict(protocols)
        self._max_handshakes = max_handshakes
        self._max_per_address = max_per_address
        self._pending: Counter[str] = Counter()
        self._pending_total = 0

    @override
    def doStart(self) -> None:
        super().doStart()
        for name, factory in self._protocols.items():
            if name != HTTP1:
                factory.doStart()

    @override
    def doStop(self) -> None:
        super().doStop()
        for name, factory in self._protocols.items():
            if name != HTTP1:
                factory.doStop()

    @override
    def buildProtocol(  # type: ignore[override]  # None closes: Twisted's annotation forgets it
        self, addr: IAddress
    ) -> GateTLS | None:
        host = str(getattr(addr, "host", ""))
        if self._pending_total >= self._max_handshakes or (
            host and self._pending[host] >= self._max_per_address
        ):
            self.meters.events["tls_handshakes_full"] += 1
            return None
        self._pending[host] += 1
        self._pending_total += 1
        return GateTLS(self, Handshake(self, addr, host))

    def choose(self, name: bytes | None) -> IProtocolFactory:
        """Give the factory for an ALPN name; HTTP/1.1 when nothing was agreed."""
        return self._protocols.get(name or HTTP1, self._protocols[HTTP1])

    def handshake_over(self, host: str) -> None:
        """Count one handshake less; `Handshake` calls it exactly once."""
        self._pending_total -= 1
        self._pending[host] -= 1
        if self._pending[host] <= 0:
            del self._pending[host]
