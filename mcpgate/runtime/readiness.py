"""
Is the server there?  Asked by trying, never by waiting a fixed time.

A stdio server is ready when exec succeeded: what it writes before it reads waits in the pipe.  A
server on HTTP is ready when anything answers a GET with a status below 500, be it 404 or 405.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.interfaces import IInstance
from mcpgate.model import ServerSpec
from mcpgate.timing.deferreds import deferred

# A refused try costs a tenth of a millisecond; what is waited too long is about a tenth of the
# start.
FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.25
PAUSE_GROWTH: Final = 1.1
TRY_S: Final = 2.0

_HEAD_BYTES: Final = 4096


class _StatusProbe(Protocol):
    """Sends one GET and reads no further than the status line."""

    def __init__(self, request: bytes) -> None:
        self.status: Deferred[int] = Deferred(lambda _: self.transport.abortConnection())
        self._request = request
        self._read = b""

    transport: Any

    @override
    def connectionMade(self) -> None:
        self.transport.write(self._request)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self.status.called:
            return
        self._read += data
        line, end, _ = self._read.partition(b"\r\n")
        if not end and len(line) < _HEAD_BYTES:
            return
        words = line.split(None, 2)
        spoken = len(words) >= 2 and words[0].startswith(b"HTTP/1.") and words[1].isdigit()
        self.status.callback(int(words[1]) if spoken else 599)
        self.transport.abortConnection()

    @override
    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008  # as declared
        if not self.status.called:
            self.status.errback(reason)


class ReadinessProbe:
    """
    Waits until an instance answers.

    :param reactor: clock and TCP connections.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    @deferred
    async def wait(self, spec: ServerSpec, instance: IInstance) -> None:
        """Fire when the instance answers; try for ever: the deadline is the caller's."""
        if instance.address is None:
            return
        pause_s = FIRST_PAUSE_S
        while not await self._answers(spec, instance.address):
            await deferLater(self._reactor, pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * PAUSE_GROWTH)

    async def _answers(self, spec: ServerSpec, address: tuple[str, int]) -> bool:
        host, port = address
        path = spec.ready_path or spec.mcp_path
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/json\r\n"
            "User-Agent: mcpgate-readiness\r\nConnection: close\r\n\r\n"
        ).encode()
        try:
            probe = await self._connect(host, port, request)
            status = await probe.status.addTimeout(TRY_S, self._reactor)
        except (ConnectError, ConnectionDone, ConnectionLost, DeferredTimeout, OSError):
            return False
        except ConnectingCancelledError:
            # What an endpoint says of being cancelled, which nobody else takes for that.
            raise CancelledError from None
        return status < 500

    def _connect(self, host: str, port: int, request: bytes) -> Deferred[_StatusProbe]:
        endpoint = TCP4ClientEndpoint(self._reactor, host, port, timeout=TRY_S)
        factory = Factory.forProtocol(lambda: _StatusProbe(request))
        factory.noisy = False
        connecting: Deferred[Any] = endpoint.connect(factory)
        return connecting
