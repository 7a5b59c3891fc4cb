"""An HTTP/2 client in memory, for tests."""

from __future__ import annotations

from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mcpgate.interfaces import IInbound
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.http2 import HTTP2Factory
from tests.web.memory_tls import CLIENT, Wire

HEADERS = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "gate.example.org"),
    (":path", "/a/mcp"),
]


class Stage:
    """
    A factory with a clock, its requests and its access log.

    :ivar asked: every inbound dispatched; ``answer`` is called with each.
    """

    def __init__(self, **bounds: object) -> None:
        self.clock = Clock()
        self.meters = Meters()
        self.entries: list[AccessEntry] = []
        self.asked: list[IInbound] = []
        self.answer: Callable[[IInbound], None] = lambda inbound: None
        self.factory = HTTP2Factory(
            clock=self.clock,
            wheel=DeadlineWheel(self.clock),
            bounds=Bounds(**{"connections": 0, **bounds}),  # type: ignore[arg-type]  # tests pass right ones
            dispatch=self._dispatch,
            make_request_id=lambda: f"id-{len(self.asked)}",
            record=self.entries.append,
            meters=self.meters,
        )

    def _dispatch(self, inbound: IInbound) -> None:
        self.asked.append(inbound)
        self.answer(inbound)

    def advance(self, seconds: float) -> None:
        """Let time pass in steps of the wheel."""
        self.clock.pump([0.25] * int(seconds * 4))


class Client:
    """
    A client of one connection.

    :ivar events: what it was told, in order.
    """

    def __init__(self, stage: Stage, window: int | None = None) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.wire = Wire()
        protocol = stage.factory.buildProtocol(CLIENT)
        assert protocol is not None
        self.server: IProtocol = protocol
        self.events: list[Event] = []
        self.closed = False
        protocol.makeConnection(self.wire)
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({4: window})
        self.pump()

    def pump(self) -> None:
        """Carry bytes both ways until nobody has anything to say."""
        for _ in range(500):
            out = self.h2.data_to_send()
            if out and not self.closed:
                self.server.dataReceived(out)
            back = self.wire.value()
            self.wire.clear()
            if back:
                self.events += self.h2.receive_data(back)
            if not out and not back:
                return

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self.server.connectionLost(Failure(ConnectionDone()))

    def ask(self, *more: tuple[str, str], end: bool = True, **pseudo: str) -> int:
        """Send a request; give its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers = [(name, pseudo.get(name[1:], value)) for name, value in HEADERS]
        self.h2.send_headers(stream, [*headers, *more], end_stream=end)
        self.pump()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send body bytes."""
        self.h2.send_data(stream, data, end_stream=end)
        self.pump()

    def take(self, stream: int) -> None:
        """Open the windows again for everything received."""
        for event in self.events:
            if isinstance(event, DataReceived) and event.stream_id == stream and not self.closed:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        self.pump()

    def status(self, stream: int) -> int:
        """Give the status of an answer; 0 when there is none."""
        return int(dict(self.fields(stream)).get(b":status", b"0"))

    def fields(self, stream: int) -> list[tuple[bytes, bytes]]:
        """Give the fields of an answer."""
        for event in self.events:
            if isinstance(event, ResponseReceived) and event.stream_id == stream:
                return [(bytes(name), bytes(value)) for name, value in event.headers]
        return []

    def body(self, stream: int) -> bytes:
        """Give the body so far."""
        return b"".join(
            event.data
            for event in self.events
            if isinstance(event, DataReceived) and event.stream_id == stream
        )

    def ended(self, stream: int) -> bool:
        """Tell whether the answer is complete."""
        return any(
            isinstance(event, StreamEnded) and event.stream_id == stream for event in self.events
        )

    def reset(self, stream: int) -> int | None:
        """Give the code a stream was reset with."""
        for event in self.events:
            if isinstance(event, StreamReset) and event.stream_id == stream:
                return int(event.error_code)
        return None
