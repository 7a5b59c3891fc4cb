"""
One connection to an HTTP server.

A warm request is callbacks only: one write, no Deferred.  Small requests on plain sockets are
handed to the kernel at once: an error from it is proof that nothing reached the server (R35), and
the reactor's way (watch the socket, be told it is writable, write, unwatch) takes a turn longer.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import BackendDied, BackendTimeout, GateError, Internal
from mcpgate.http.heads import ResponseHead
from mcpgate.http.responses import ResponseHeads, ResponseParser
from mcpgate.upstream.exchange import BodySource, Exchange

if TYPE_CHECKING:
    from mcpgate.upstream.http import HTTPUpstream

log = Logger()


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Connection(Protocol):
    """
    A connection to the server: idle in its pool, or busy with one exchange.

    :ivar pool: the only pool key it serves.
    :ivar idle_since_s: clock reading when it became idle.
    :ivar used: it answered at least one request.
    :ivar keep_s: how long the server said it keeps idle connections; 0 = not said.
    """

    def __init__(self, upstream: HTTPUpstream, pool: Hashable, heads: ResponseHeads) -> None:
        self.pool = pool
        self.idle_since_s = 0.0
        self.used = False
        self.keep_s = 0.0
        self._upstream = upstream
        self._parser = ResponseParser(self, heads)
        self._exchange: Exchange | None = None
        self._socket: socket.socket | None = None
        self._poll: Callable[[int], list[tuple[int, int]]] | None = None
        self._buffered = False
        self._producing = False
        self._paused = False
        self._lost = False
        self._guest: IProtocol | None = None
        self._handshake: Deferred[Connection] | None = None

    def ready(self) -> Connection | Deferred[Connection]:
        """
        Give itself when requests may be sent: over TLS when the server proved who it is.

        Until then a request would wait in memory, and look as if it had been sent.
        """
        if not ISSLTransport.providedBy(self.transport):
            return self

        def cancelled(_: object) -> None:
            self._handshake = None
            self._transport.abortConnection()

        self._handshake = Deferred(cancelled)
        return self._handshake

    # --- Requests -----------------------------------------------------------------------------

    def start(self, exchange: Exchange) -> bool:
        """
        Send a request.

        False when the connection turned out to be dead and nothing was sent.
        """
        self._exchange = exchange
        self._parser.begin(
            exchange.receiver.response_data,
            head_only=exchange.method == "HEAD",
            upgrade=exchange.upgrade,
        )
        opening = exchange.opening()
        if self._socket is None or self._buffered:
            exchange.sent = True
            self._write(opening)
        else:
            try:
                count = self._socket.send(opening)
            except BlockingIOError:
                count = 0
            except OSError:
                self._exchange = None
                self.drop()
                return False
            exchange.sent = True
            if count < len(opening):
                self._buffered = True
                self._write(opening[count:])
        exchange.connected(self)
        return True

    def stale(self) -> bool:
        """
        Tell whether the server closed this idle connection, or spoke unasked.

        The reactor may not have had its turn since; the kernel knows.  A TLS connection's end can
        not be told from its other records: there the reactor's word has to do.
        """
        if self._lost:
            return True
        if self._socket is None:
            return False
        poll = self._poll
        if poll is None:
            look = select.poll()
            look.register(self._socket.fileno(), select.POLLIN)
            poll = self._poll = look.poll
        return bool(poll(0))

    def send(self, pieces: list[bytes]) -> None:
        """Send more of the request."""
        self._buffered = True
        if not self._lost:
            self._transport.writeSequence(pieces)

    def produce(self, source: BodySource) -> None:
        """Pause ``source`` while the server reads too slowly."""
        self._producing = True
        self._transport.registerProducer(source, True)

    def body_ended(self, exchange: Exchange) -> None:
        """Take note that the request is complete."""
        self._stop_producing()

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused:
            self._paused = True
            self._transport.pauseProducing()

    def resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            self._transport.resumeProducing()

    def drop(self) -> None:
        """Cut the connection off, and forget whose it was."""
        self._exchange = None
        self._parser.drop()
        self._stop_producing()
        self._close(abort=True)

    def retire(self) -> None:
        """Close an idle connection."""
        self._close(abort=False)

    def fail(self, error: GateError) -> None:
        """Cut the connection off and tell the exchange."""
        exchange = self._exchange
        self.drop()
        if exchange is not None:
            exchange.fail(error)

    @property
    def _transport(self) -> Any:
        return self.transport

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def _stop_producing(self) -> None:
        if self._producing:
            self._producing = False
            if not self._lost:
                self._transport.unregisterProducer()

    def _close(self, *, abort: bool) -> None:
        if not self._lost:
            self._lost = True
            self._upstream.closed(self)
            if abort:
                self._transport.abortConnection()
            else:
                self._transport.loseConnection()

    # --- ResponseSink -------------------------------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """See `ResponseSink.on_head`."""
        exchange = self._exchange
        assert exchange is not None
        exchange.answered = True
        if _is_event_stream(head):
            exchange.stream = True
        if exchange.stream and exchange.deadline is not None:
            exchange.deadline.cancel()
            exchange.deadline = None
        keep = head.fields.get(b"keep-alive")
        if keep is not None:
            self.keep_s = _keep_alive_s(keep)
        exchange.receiver.response_head(head)

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `ResponseSink.on_end`."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.finish()
        self._stop_producing()
        if not exchange.ended:
            # The server answered without the whole request: what it read of it is not known.
            self._close(abort=True)
        elif self._parser.keep_alive:
            self.used = True
            self.resume()
            self._upstream.released(self)
        else:
            self._close(abort=False)
        exchange.receiver.response_end(trailers)

    def on_upgrade(self, head: ResponseHead, rest: bytes) -> None:
        """See `ResponseSink.on_upgrade`."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.finish()
        self._stop_producing()
        guest = exchange.receiver.response_upgraded(head, self.transport)
        self._guest = guest
        self.resume()
        guest.makeConnection(self._transport)
        if rest:
            guest.dataReceived(rest)

    # --- IProtocol ----------------------------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if ISystemHandle.providedBy(transport) and not ISSLTransport.providedBy(transport):
            self._socket = transport.getHandle()  # type: ignore[assignment]  # declared as object

    @override
    def dataReceived(self, data: bytes) -> None:
        self._upstream.heard_s = self._upstream.seconds()
        if self._guest is not None:
            self._guest.dataReceived(data)
            return
        if self._lost:
            return
        try:
            self._parser.feed(data)
        except GateError as error:
            self._upstream.broken()
            self.fail(error)
        except Exception:
            log.failure("Passing on an answer failed")
            self.fail(Internal())
        else:
            exchange = self._exchange
            if exchange is not None and exchange.answered and not exchange.stream:
                exchange.progress_s = self._upstream.seconds()

    def handshakeCompleted(self) -> None:  # noqa: N802  # called by Twisted
        """See `IHandshakeListener`: the certificate was verified."""
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(self)

    def readConnectionLost(self) -> None:
        """Take the server's end of its half."""
        if self._guest is None:
            self._ended(ConnectionDone())
            self._close(abort=False)
        elif IHalfCloseableProtocol.providedBy(self._guest):
            IHalfCloseableProtocol(self._guest).readConnectionLost()
        else:
            self._transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing: what the server still says is read to its end."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._guest is not None:
            guest, self._guest = self._guest, None
            guest.connectionLost(reason)
        elif not self._lost:
            self._ended(reason.value)
        if not self._lost:
            self._lost = True
            self._upstream.closed(self)
        self._socket = self._poll = None
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.errback(reason)

    def _ended(self, reason: BaseException | None) -> None:
        """Tell the exchange that the connection is over; it may have been complete by that."""
        exchange = self._exchange
        if exchange is None:
            return
        if not self._parser.touched and self.used and exchange.repeatable and not exchange.retried:
            # The server closed it while the request was on its way: that happens to idle
            # connections, and this request is harmless.
            self._exchange = None
            exchange.retried = True
            exchange.connection = None
            self._upstream.again(exchange)
            return
        try:
            if not isinstance(reason, ConnectionDone):
                raise BackendDied
            self._parser.eof()
        except GateError as error:
            self.fail(error)
        except Exception:
            log.failure("Passing on an answer's end failed")
            self.fail(Internal())

    @property
    def paused(self) -> bool:
        """Nothing is read of it because somebody does not take what comes."""
        return self._exchange is not None and self._exchange.paused

    def expired(self, exchange: Exchange) -> None:
        """Take note that the server was silent for too long."""
        if self._exchange is exchange:
            self.fail(BackendTimeout())


def _is_event_stream(head: ResponseHead) -> bool:
    kind = head.fields.get(b"content-type")
    return kind is not None and kind[:17].lower() == b"text/event-stream"


def _keep_alive_s(value: bytes) -> float:
    """Read ``timeout=N`` of a Keep-Alive field; 0 when it is not there."""
    for part in value.lower().split(b","):
        name, _, number = part.strip().partition(b"=")
        if name == b"timeout" and number.isdigit() and len(number) < 9:
            return float(number)
    return 0.0
