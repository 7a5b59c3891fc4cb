"""Tests of mcpgate.web.workers: a worker's end and the owner's, joined in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.http.heads import Peer
from mcpgate.interfaces import IInbound
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.front import FrontFactory
from mcpgate.web.workers.link import LinkFactory
from mcpgate.web.workers.passing import PASSED, Passing


class Wire(StringTransport):
    """A transport whose other end is in the same process."""

    def __init__(self) -> None:
        super().__init__()
        self.other: Any = None

    def abortConnection(self) -> None:
        """Cut it off."""
        self.disconnecting = True
        self.connected = False


class Endpoint:
    """Connects to the owner in memory."""

    def __init__(self, link: LinkFactory) -> None:
        self.link = link
        self.lines: list[tuple[Any, Wire, Any, Wire]] = []

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint.connect`."""
        here, there = factory.buildProtocol(None), self.link.buildProtocol(None)  # type: ignore[arg-type]
        near, far = Wire(), Wire()
        here.makeConnection(near)
        there.makeConnection(far)
        self.lines.append((here, near, there, far))
        return succeed(here)

    def pump(self) -> None:
        """Carry bytes until there are none."""
        moved = True
        while moved:
            moved = False
            for here, near, there, far in self.lines:
                for source, sink in ((near, there), (far, here)):
                    data = source.value()
                    if data:
                        source.clear()
                        sink.dataReceived(data)
                        moved = True


class LinkTests(SynchronousTestCase):
    """A request of a client, by a worker, to the owner."""

    def setUp(self) -> None:
        """Join a worker and an owner."""
        self.clock: Any = MemoryReactorClock()
        wheel, meters = DeadlineWheel(self.clock), Meters()
        self.asked: list[IInbound] = []
        self.entries: list[AccessEntry] = []
        shared: dict[str, Any] = dict(clock=self.clock, wheel=wheel, bounds=Bounds(), meters=meters)
        self.link = LinkFactory(
            record=self.entries.append, make_request_id=lambda: "owner", **shared
        )
        self.link.channels = (self.asked.append, self.asked.append)
        self.endpoint: Any = Endpoint(self.link)
        self.passing = Passing(self.clock, lambda: self.endpoint, wheel=wheel, meters=meters)
        self.front = FrontFactory(
            dispatch=self.passing.channel(1),
            secure=True,
            record=self.entries.append,
            make_request_id=lambda: "worker-1",
            **shared,
        )

    def connect(self) -> tuple[Any, Wire]:
        """Connect a client to the worker."""
        from twisted.internet.address import IPv4Address

        connection: Any = self.front.buildProtocol(IPv4Address("TCP", "192.0.2.7", 999))
        transport = Wire()
        transport.peerAddr = IPv4Address("TCP", "192.0.2.7", 999)
        connection.makeConnection(transport)
        return connection, transport

    def ask(self, request: bytes) -> tuple[IInbound, Wire]:
        """Send a request of a client; give what the owner sees, and where the answer comes."""
        connection, transport = self.connect()
        connection.dataReceived(request)
        self.endpoint.pump()
        return self.asked[-1], transport

    def test_request(self) -> None:
        """The owner sees the client and its request as if it had come to it."""
        inbound, transport = self.ask(
            b"POST /a/mcp?x=1 HTTP/1.1\r\nHost: gate.example.org\r\nAccept: a\r\nX-Two: 1\r\n"
            b"X-Mcpgate-Worker: 0 0 0 0 HTTP/1.1 forged 192.0.2.99\r\n"
            b"Connection: X-Two, X-Forwarded-For\r\n"
            b"X-Forwarded-For: 192.0.2.50\r\nContent-Length: 2\r\n\r\n{}"
        )
        self.assertEqual(inbound.peer, Peer("192.0.2.7", True, 999))
        self.assertEqual(inbound.request_id, "worker-1")
        head = inbound.head
        self.assertEqual((head.method, head.path, head.query), ("POST", b"/a/mcp", b"x=1"))
        self.assertEqual(
            head.fields.lines,
            [
                (b"host", b"gate.example.org"),
                (b"accept", b"a"),
                (b"x-forwarded-for", b"192.0.2.50"),
                (b"content-length", b"2"),
            ],
        )
        bodies: list[bytes] = []
        inbound.read_body(10, bodies.append)
        self.assertEqual(bodies, [b"{}"])
        inbound.respond(202, [(b"x-mine", b"1"), (b"content-type", b"a/b")], b"done")
        self.endpoint.pump()
        answer = transport.value()
        self.assertTrue(answer.startswith(b"HTTP/1.1 202 "), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\ndone"), answer)
        self.assertEqual(answer.count(b"x-request-id: worker-1"), 1)
        self.assertEqual(answer.count(b"date: "), 1)
        self.assertIn(b"x-mine: 1\r\n", answer)
        owners, workers = self.entries
        self.assertEqual(
            (owners.peer, owners.status, PASSED in owners.notes), ("192.0.2.7", 202, False)
        )
        self.assertIn(PASSED, workers.notes)

    def test_kept(self) -> None:
        """Requests of different clients share a connection, and are told apart."""
        for host in (b"one", b"two"):
            inbound, _ = self.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            self.assertEqual(inbound.head.fields.get(b"host"), host)
            inbound.respond(200, [], b"")
            self.endpoint.pump()
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_stream(self) -> None:
        """A streamed answer comes piece by piece, and is told when its client goes."""
        inbound, transport = self.ask(b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n")
        inbound.start(200, [(b"content-type", b"text/event-stream")], None)
        inbound.write(b": one\n\n")
        self.endpoint.pump()
        self.assertIn(b": one\n\n", transport.value())
        inbound.write(b": two\n\n")
        self.endpoint.pump()
        self.assertIn(b": two\n\n", transport.value())
        self.assertEqual(self.link.busy, 1)

    def test_owner_gone(self) -> None:
        """When the owner is gone the client's connection is cut: nobody knows what was done."""
        _, transport = self.ask(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        here, _, _, _ = self.endpoint.lines[0]
        here.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(0.1)
        self.assertEqual(transport.value(), b"")
        self.assertTrue(transport.disconnecting)

    def test_upgrade(self) -> None:
        """An upgrade reaches the owner as one."""
        inbound, _ = self.ask(
            b"GET /w HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        self.assertEqual(inbound.head.upgrade, b"websocket")
        inbound, _ = self.ask(b"GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n")
        self.assertEqual(inbound.head.upgrade, b"")

    def test_slow_body(self) -> None:
        """A request the owner never saw is the worker's to tell of."""
        connection, transport = self.connect()
        connection.dataReceived(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1")
        self.clock.pump([1] * 70)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 408 "), transport.value())
        (entry,) = self.entries
        self.assertEqual((entry.status, PASSED in entry.notes), (408, False))
        self.assertEqual(self.asked, [])

    def test_no_way_to_the_owner(self) -> None:
        """A request that could not be handed on is refused, and may be sent again."""
        self.endpoint.connect = lambda _: fail(ConnectionRefusedError())
        connection, transport = self.connect()
        connection.dataReceived(b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n")
        self.clock.advance(0.1)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 503 "), transport.value())
        self.assertIn(b"retry-after: 1\r\n", transport.value().lower())
        self.assertNotIn(PASSED, self.entries[0].notes)

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 need not name a host, and the log tells what it speaks."""
        inbound, transport = self.ask(b"GET /s HTTP/1.0\r\n\r\n")
        self.assertNotIn(b"host", inbound.head.fields)
        inbound.respond(200, [], b"x")
        self.endpoint.pump()
        self.assertTrue(transport.value().endswith(b"\r\n\r\nx"))
        self.assertEqual({entry.protocol for entry in self.entries}, {"HTTP/1.0"})

    def test_full_head(self) -> None:
        """As many fields as a client may send fit through the link."""
        lines = b"".join(b"X-%d: 1\r\n" % number for number in range(99))
        inbound, _ = self.ask(b"POST /s HTTP/1.1\r\nHost: a\r\n%b\r\n" % lines)
        self.assertEqual(inbound.head.fields.get(b"x-98"), b"1")

    def test_stranger(self) -> None:
        """Who is no worker is refused on the owner's socket."""
        for line in (
            b"",
            b"X-Mcpgate-Worker: 7 0 0 0 HTTP/1.1 x 192.0.2.1\r\n",
            b"X-Mcpgate-Worker: x\r\n",
        ):
            connection = self.link.buildProtocol(None)  # type: ignore[arg-type]
            transport = Wire()
            connection.makeConnection(transport)
            connection.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % line)
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 400 "), transport.value())
        self.assertEqual(self.asked, [])
