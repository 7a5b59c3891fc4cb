"""
WebSocket and the like: after 101 two connections become one pipe.

Bytes pass unread both ways, each side's transport being the other's producer, so a slow reader
pauses the writer.  When one side ends the other is ended too, what was written first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProtocol,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.timing.wheel import Deadline, DeadlineWheel

# How long a side may take to read what is left for it when the other has ended.
LINGER_S: Final = 30.0


class Pipe:
    """
    The two ends of an upgraded connection; the server's end is connected first.

    :param open_client: has the client's end connected, at once; when that is not possible any
        more the server's end is cut off.
    :param touched: called with every piece that passes.
    :param over: called once when both ends are gone.
    """

    def __init__(
        self,
        wheel: DeadlineWheel,
        *,
        open_client: Callable[[IProtocol], None],
        touched: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._open_client = open_client
        self.touched = touched
        self._wheel = wheel
        self._over: Callable[[], None] | None = over
        self._linger: Deadline | None = None
        self.client = PipeEnd(self)
        self.server = PipeEnd(self)
        self.client.other = self.server
        self.server.other = self.client

    def connected(self, end: PipeEnd) -> None:
        """Take note of a side's connection; let each side's reading follow the other's writing."""
        if end is self.client:
            return
        self._open_client(self.client)
        if self.client.open:
            self.client.producing(self.server.transport)
            self.server.producing(self.client.transport)
        else:
            self.abort()

    def ending(self) -> None:
        """Give the side that is left a limited time."""
        if self._linger is None:
            self._linger = self._wheel.arm(LINGER_S, self.abort)

    def abort(self) -> None:
        """Cut both sides off."""
        for end in (self.client, self.server):
            end.abort()
        self.ended()

    def ended(self) -> None:
        """Take note that a side is gone."""
        if self.client.open or self.server.open:
            return
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        over, self._over = self._over, None
        if over is not None:
            over()


@implementer(IHalfCloseableProtocol)
class PipeEnd(Protocol):
    """
    One end of a `Pipe`.

    :ivar open: connected.
    """

    other: PipeEnd

    def __init__(self, pipe: Pipe) -> None:
        self.open = False
        self._pipe = pipe
        self._read_ended = False
        self._produced = False

    @property
    def _transport(self) -> Any:
        return self.transport

    def producing(self, source: Any) -> None:
        """Pause ``source`` while this end is written faster than it is read."""
        self._produced = True
        self._transport.registerProducer(source, True)

    @override
    def connectionMade(self) -> None:
        self.open = True
        self._pipe.connected(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        self._pipe.touched()
        if self.other.open:
            self.other._transport.write(data)

    def readConnectionLost(self) -> None:
        """This side has said everything; the other may still be answering."""
        self._read_ended = True
        if self.other._read_ended:
            self.close()
            self.other.close()
        else:
            self.other.end_writing()
        self._pipe.ending()

    def writeConnectionLost(self) -> None:
        """Our half was closed as `end_writing` asked; what this side says is still read."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        self.other.close()
        self._pipe.ending()
        self._pipe.ended()

    def end_writing(self) -> None:
        """Tell this side that nothing more will come."""
        if not self.open:
            return
        self._release()
        transport: Any = self.transport
        # A TLS transport would pass the call through to the socket below it.
        halves = IHalfCloseableDescriptor.providedBy(transport)
        if halves and not ISSLTransport.providedBy(transport):
            self._transport.loseWriteConnection()
        else:
            self._transport.loseConnection()

    def close(self) -> None:
        """End this side when everything is written."""
        if self.open:
            self._release()
            self._transport.loseConnection()

    def abort(self) -> None:
        """Cut this side off."""
        if self.open:
            self._release()
            self._transport.abortConnection()

    def _release(self) -> None:
        # A transport with a producer would wait for it before it closes.
        if self._produced:
            self._produced = False
            self._transport.unregisterProducer()
