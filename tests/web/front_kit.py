"""What tests of the front door share: a door, a client's end of it, a dispatcher to script."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.interfaces import IInbound, ISlots
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.connection import HTTP1Connection
from mcpgate.web.wire.front import FrontFactory

JSON = [(b"content-type", b"application/json")]


class ClientEnd(StringTransport):
    """
    The network as the connection sees it.

    :ivar ended: ``""``, ``half`` (our side closed), ``closed`` or ``aborted``.
    :ivar stuck: a half close, or a close after it, waits for a client that does not read.
    """

    def __init__(self, address: str = "192.0.2.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", address, 40000))
        self.ended = ""
        self.stuck = False
        self.protocol: HTTP1Connection | None = None

    def loseWriteConnection(self) -> None:  # of ITCPTransport
        """Note the half close; everything is with the network at once, unless `stuck`."""
        self.ended = "half"
        if self.protocol is not None and not self.stuck:
            self.protocol.writeConnectionLost()

    @override
    def loseConnection(self) -> None:
        if self.ended != "closed":
            self.ended = "closed"
            if not self.stuck:
                self._gone()

    @override
    def abortConnection(self) -> None:
        if self.ended != "aborted":
            self.ended = "aborted"
            self._gone()

    def _gone(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionError()))


class Door:
    """
    A front factory on a fake clock, and what it recorded.

    :ivar inbounds: what was dispatched.
    """

    def __init__(
        self,
        bounds: Bounds | None = None,
        *,
        dispatch: Callable[[IInbound], None] | None = None,
        secure: bool = False,
        proxied: bool = False,
        slots: ISlots | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.meters = Meters()
        self.inbounds: list[IInbound] = []
        self.entries: list[AccessEntry] = []
        self._dispatch = dispatch
        numbers = count(1)
        self.factory = FrontFactory(
            clock=self.clock,
            wheel=DeadlineWheel(self.clock, 0.5),
            bounds=bounds or Bounds(connections=1000),
            dispatch=self.dispatch,
            make_request_id=lambda: f"id{next(numbers)}",
            record=self.entries.append,
            meters=self.meters,
            secure=secure,
            proxied=proxied,
            slots=slots,
        )

    def dispatch(self, inbound: IInbound) -> None:
        """Note the request, and do what the test wants."""
        self.inbounds.append(inbound)
        if self._dispatch is not None:
            self._dispatch(inbound)

    def visit(self, address: str = "192.0.2.1") -> ClientEnd:
        """Connect a client."""
        end = ClientEnd(address)
        protocol = self.factory.buildProtocol(IPv4Address("TCP", address, 40000))
        if protocol is None:
            end.ended = "aborted"
            return end
        assert isinstance(protocol, HTTP1Connection)
        end.protocol = protocol
        protocol.makeConnection(end)
        return end

    def send(self, data: bytes, end: ClientEnd | None = None) -> ClientEnd:
        """Send bytes, on a new connection if none is given."""
        end = end or self.visit()
        assert end.protocol is not None
        end.protocol.dataReceived(data)
        return end

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Let time go by in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)


def half_close(end: ClientEnd) -> None:
    """Close the client's sending side."""
    assert end.protocol is not None
    assert IHalfCloseableProtocol.providedBy(end.protocol)
    end.protocol.readConnectionLost()


def ok(inbound: IInbound) -> None:
    """Answer at once, without a look at the body."""
    inbound.respond(200, JSON, b"{}")


def echo(inbound: IInbound) -> None:
    """Answer with the body."""
    inbound.read_body(4 * 1024 * 1024, lambda body: inbound.respond(200, [], body))


def answers(raw: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Take answers with Content-Length (or none) apart: status, fields, body."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines)
        size = int(fields.get(b"content-length", b"0"))
        found.append((int(start.split(b" ")[1]), fields, raw[:size]))
        raw = raw[size:]
    return found
