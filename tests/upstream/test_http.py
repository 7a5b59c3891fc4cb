"""Tests for `mcpgate.upstream.http`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    ISSLTransport,
    IStreamClientEndpoint,
    ISystemHandle,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    BadBackendAnswer,
    BadRequest,
    Draining,
    GateError,
    Internal,
    Overloaded,
)
from mcpgate.http.responses import ResponseHeads
from mcpgate.interfaces import IHTTPUpstream, IUpstream, IUpstreamCall
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.connections import Connection
from mcpgate.upstream.exchange import Exchange
from mcpgate.upstream.http import HTTPUpstream, UpstreamLimits, encode_head
from mcpgate.upstream.remote import plain_endpoint, remote
from tests.upstream.receivers import RecordingReceiver

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire(StringTransport):
    """A transport that tells how it was closed."""

    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802  # Twisted's name
        """See `ITCPTransport`."""

    @override
    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


@implementer(IStreamClientEndpoint)
class Server:
    """An endpoint whose connections are made by the test."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Factory, Deferred[Any]]] = []
        self.cancelled = 0
        self.wires: list[Wire] = []
        self.protocols: list[Any] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        """See `IStreamClientEndpoint.connect`."""

        def cancelled(_: object) -> None:
            self.cancelled += 1

        connecting: Deferred[Any] = Deferred(cancelled)
        self.waiting.append((factory, connecting))
        return connecting

    def accept(self) -> Wire:
        """Complete the oldest connection."""
        factory, connecting = self.waiting.pop(0)
        protocol: Any = factory.buildProtocol(None)
        wire = Wire()
        protocol.makeConnection(wire)
        self.wires.append(wire)
        self.protocols.append(protocol)
        connecting.callback(protocol)
        return wire


class HTTPUpstreamTestCase(SynchronousTestCase):
    """An upstream with a server in the test's hand."""

    def setUp(self) -> None:
        """Make both."""
        self.clock = Clock()
        self.wheel = DeadlineWheel(self.clock)
        self.meters = Meters()
        self.server = Server()
        self.upstream = self.make()

    def make(self, **limits: Any) -> HTTPUpstream:
        """Make an upstream with the given bounds."""
        return HTTPUpstream(
            self.clock,
            lambda: self.server,
            authority=b"srv:1",
            wheel=self.wheel,
            meters=self.meters,
            limits=UpstreamLimits(**limits),
            heads=ResponseHeads(),
        )

    def get(self, **more: Any) -> tuple[Exchange, RecordingReceiver]:
        """Send a request."""
        receiver = RecordingReceiver()
        arguments: dict[str, Any] = {
            "method": "GET",
            "body": b"",
            "pool": "ann",
            "length": 0,
            "timeout_s": 60.0,
            "stream": False,
            "fields": [],
        }
        arguments.update(more)
        method, fields, body = (arguments.pop(name) for name in ("method", "fields", "body"))
        call = self.upstream.send(method, b"/x", fields, body, receiver, **arguments)
        return call, receiver

    def served(self, **more: Any) -> tuple[Exchange, RecordingReceiver, Wire, Connection]:
        """Send a request and connect it."""
        call, receiver = self.get(**more)
        wire = self.server.accept()
        return call, receiver, wire, self.server.protocols[-1]

    def kept(self) -> tuple[Wire, Connection]:
        """Make a connection that answered and is kept."""
        _, receiver, wire, connection = self.served()
        connection.dataReceived(OK)
        self.assertEqual(receiver.trailers, [])
        wire.clear()
        return wire, connection

    def failed(self, receiver: RecordingReceiver, kind: type[GateError], sent: bool) -> None:
        """Check how a request failed."""
        self.assertIsInstance(receiver.failure, kind)
        self.assertEqual(receiver.sent, sent)


class PreparedTests(HTTPUpstreamTestCase):
    """Heads that are used again."""

    def fields(self, request_id: bytes) -> list[tuple[bytes, bytes]]:
        """Give those of one request."""
        return [(b"accept", b"*/*"), (b"x-request-id", request_id), (b"via", b"1.1 mcpgate")]

    def test_as_sent(self) -> None:
        """Byte for byte what would have been sent without."""
        for method, body in (
            ("POST", b"one"),
            ("POST", b""),
            ("GET", b""),
            ("GET", b"one"),
            ("DELETE", b""),
            ("PUT", b"x" * 1000),
        ):
            *_, wire, connection = self.served(
                method=method, body=body, length=len(body), fields=self.fields(b"a-2")
            )
            connection.dataReceived(OK)
            prepared = self.upstream.prepare(method, b"/x", self.fields(b"a-1"), "a-1")
            assert prepared is not None
            written = wire.value()
            wire.clear()
            receiver = RecordingReceiver()
            self.upstream.send_prepared(prepared, "a-2", body, receiver, pool="ann", timeout_s=60.0)
            self.assertEqual(wire.value(), written)
            connection.dataReceived(OK)
            self.assertEqual(receiver.body, b"ok")
            connection.retire()

    def test_not_again(self) -> None:
        """An upgrade, or an id that is not there once, is written each time."""
        for fields in (
            [*self.fields(b"a-1"), (b"upgrade", b"websocket")],
            self.fields(b"other"),
            [*self.fields(b"a-1"), (b"x-request-id", b"theirs")],
        ):
            self.assertIsNone(self.upstream.prepare("GET", b"/x", fields, "a-1"))

    def test_refused(self) -> None:
        """What could be read as more than one line is refused here, too."""
        with self.assertRaises(BadRequest):
            self.upstream.prepare("GET", b"/x y", self.fields(b"a-1"), "a-1")


class SendTests(HTTPUpstreamTestCase):
    """Requests as they are written."""

    def test_interfaces(self) -> None:
        """It is what it says."""
        verifyObject(IHTTPUpstream, self.upstream)
        verifyObject(IUpstream, self.upstream)
        call, _ = self.get()
        verifyObject(IUpstreamCall, call)
        call.abort()

    def test_whole(self) -> None:
        """Head and body are one write, framing is ours."""
        _, receiver, wire, connection = self.served(
            method="POST",
            body=b"hello",
            length=None,
            fields=[(b"x-a", b"b"), (b"host", b"evil"), (b"transfer-encoding", b"chunked")],
        )
        self.assertEqual(
            wire.value(),
            b"POST /x HTTP/1.1\r\nHost: srv:1\r\nx-a: b\r\nContent-Length: 5\r\n\r\nhello",
        )
        connection.dataReceived(OK)
        assert receiver.head is not None
        self.assertEqual((receiver.head.status, receiver.body), (200, b"ok"))

    def test_bodiless(self) -> None:
        """GET without a body says nothing of a body, POST says it is empty."""
        self.assertNotIn(b"Content-Length", encode_head("GET", b"/", b"h", [], 0)[0])
        self.assertIn(b"Content-Length: 0\r\n", encode_head("POST", b"/", b"h", [], 0)[0])

    def test_breaking_out(self) -> None:
        """A value that would end its line is refused, and nothing is sent."""
        for field in ((b"a", b"b\r\nc: d"), (b"a", b"b\n"), (b"a\r", b"b"), (b"a", b"\0")):
            self.assertRaises(BadRequest, self.get, fields=[field])
        for target in (b"", b"/ x", b"/\tx", b"/\r\nA: b"):
            self.assertRaises(BadRequest, encode_head, "GET", target, b"h", [], 0)
        self.assertEqual(self.server.waiting, [])

    def test_streamed(self) -> None:
        """A streamed body of declared length is written as it comes."""
        flow: list[str] = []
        call, receiver = self.get(method="POST", body=None, length=6)
        call.register_flow(lambda: flow.append("pause"), lambda: flow.append("resume"))
        self.assertEqual(flow, ["pause"])
        call.write(b"ab")
        wire = self.server.accept()
        self.assertEqual(flow, ["pause", "resume"])
        self.assertTrue(wire.value().endswith(b"Content-Length: 6\r\n\r\nab"))
        self.assertIsNotNone(wire.producer)
        call.write(b"")
        call.write(b"cdef")
        call.end([(b"x", b"y")])
        call.end([])
        call.write(b"late")
        self.assertTrue(wire.value().endswith(b"\r\n\r\nabcdef"))
        self.assertIsNone(wire.producer)
        self.server.protocols[0].dataReceived(OK)
        self.assertEqual(receiver.trailers, [])
        self.assertFalse(wire.disconnecting)

    def test_chunked(self) -> None:
        """A body of unknown length goes in chunks, with its trailers."""
        call, _, wire, _ = self.served(method="POST", body=None, length=None)
        wire.clear()
        call.register_flow(lambda: None, lambda: None)
        assert wire.producer is not None
        wire.producer.stopProducing()
        call.write(b"abc")
        call.write(b"x" * 20000)
        call.end([(b"x-sum", b"1"), (b"bad", b"a\r\nb")])
        self.assertEqual(
            wire.value(), b"3\r\nabc\r\n4e20\r\n" + b"x" * 20000 + b"\r\n0\r\nx-sum: 1\r\n\r\n"
        )
        call.register_flow(lambda: None, lambda: None)
        self.assertIsNone(wire.producer)

    def test_wrong_length(self) -> None:
        """A body that is not as long as declared is not passed off as complete."""
        for action in (lambda call: call.write(b"abcd"), lambda call: call.end([])):
            call, receiver, wire, _ = self.served(method="POST", body=None, length=3)
            action(call)
            self.failed(receiver, Internal, True)
            self.assertTrue(wire.aborted)

    def test_early_answer(self) -> None:
        """An answer before the body is complete counts; the connection does not."""
        call, receiver, wire, connection = self.served(method="POST", body=None, length=3)
        connection.dataReceived(OK)
        self.assertEqual(receiver.trailers, [])
        self.assertTrue(wire.aborted)
        call.write(b"abc")
        call.end([])
        call.pause()
        call.resume()
        call.abort()
        self.assertNotIn(b"abc", wire.value())


class KeepTests(HTTPUpstreamTestCase):
    """Which connections are used again."""

    def test_reused(self) -> None:
        """The next request of the same principal takes the kept connection, another's never."""
        wire, _ = self.kept()
        self.get()
        self.assertIn(b"GET", wire.value())
        self.kept_other()

    def kept_other(self) -> None:
        """Another principal's request needs a connection of its own."""
        self.get(pool="bob")
        self.assertEqual(len(self.server.waiting), 1)
        self.server.accept()

    def test_not_kept(self) -> None:
        """A server that says close is believed."""
        _, receiver, wire, connection = self.served()
        connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual(receiver.trailers, [])
        self.assertTrue(wire.disconnecting)

    def test_idle(self) -> None:
        """An unused connection is closed after its time."""
        wire, connection = self.kept()
        self.clock.pump([1.0] * 20)
        self.assertFalse(wire.disconnecting)
        self.clock.pump([1.0] * 12)
        self.assertTrue(wire.disconnecting)
        connection.connectionLost(Failure(ConnectionDone()))
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_server_says_how_long(self) -> None:
        """A connection is closed before the server does it, if it said when."""
        _, _, wire, connection = self.served()
        connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout=5\r\nContent-Length: 0\r\n\r\n"
        )
        self.clock.pump([1.0] * 3)
        self.assertFalse(wire.disconnecting)
        self.clock.pump([1.0] * 3)
        self.assertTrue(wire.disconnecting)

    def test_unreadable_keep_alive(self) -> None:
        """A keep-alive time that can not be read is none."""
        _, _, _, connection = self.served()
        connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=soon\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual(connection.keep_s, 0.0)

    def test_too_many_idle(self) -> None:
        """Only so many connections are kept."""
        self.upstream = self.make(idle_connections=1)
        first, second = self.served(), self.served()
        first[3].dataReceived(OK)
        second[3].dataReceived(OK)
        self.assertEqual([first[2].disconnecting, second[2].disconnecting], [False, True])

    def test_too_many(self) -> None:
        """Beyond the cap a request is refused, not queued."""
        self.upstream = self.make(connections=1)
        self.served()
        _, receiver = self.get()
        self.assertIsNone(receiver.failure)
        self.clock.advance(0)
        self.failed(receiver, Overloaded, False)

    def test_unasked_bytes(self) -> None:
        """A kept connection whose server speaks unasked is dropped."""
        wire, connection = self.kept()
        connection.dataReceived(OK)
        self.assertTrue(wire.aborted)
        self.assertEqual(self.meters.events["upstream_bad_answer"], 1)
        self.get()
        self.assertEqual(len(self.server.waiting), 1)
        connection.dataReceived(OK)

    def test_closed_by_server(self) -> None:
        """A kept connection the server closes is forgotten."""
        wire, connection = self.kept()
        connection.readConnectionLost()
        self.assertTrue(wire.disconnecting)
        self.get()
        self.assertEqual(len(self.server.waiting), 1)
        connection.writeConnectionLost()
        connection.connectionLost(Failure(ConnectionDone()))

    def test_paused_while_ending(self) -> None:
        """A connection paused by its last reader reads again when it is kept."""
        call, _, wire, connection = self.served()
        call.pause()
        self.assertEqual(wire.producerState, "paused")
        connection.dataReceived(OK)
        self.assertEqual(wire.producerState, "producing")


class FailureTests(HTTPUpstreamTestCase):
    """What happens to requests that get no answer."""

    def test_refused(self) -> None:
        """A server that can not be reached is unavailable, and nothing was sent."""
        _, receiver = self.get()
        self.server.waiting.pop()[1].errback(ConnectionRefusedError())
        self.failed(receiver, BackendUnavailable, False)

    def test_connect_timeout(self) -> None:
        """Connecting has its own deadline."""
        _, receiver = self.get()
        self.clock.advance(5)
        self.failed(receiver, BackendUnavailable, False)

    def test_short_timeout(self) -> None:
        """A request may have less time than connecting."""
        _, receiver = self.get(timeout_s=1.0)
        self.clock.pump([0.5] * 5)
        self.failed(receiver, BackendUnavailable, False)
        self.assertEqual(self.server.cancelled, 1)

    def test_silence(self) -> None:
        """No head in time is a timeout; the connection is not used again."""
        _, receiver, wire, _ = self.served()
        self.clock.pump([1.0] * 59)
        self.assertIsNone(receiver.failure)
        self.clock.pump([1.0] * 3)
        self.failed(receiver, BackendTimeout, True)
        self.assertTrue(wire.aborted)

    def test_silence_in_body(self) -> None:
        """Time counts anew from each piece of a body."""
        _, receiver, _, connection = self.served(timeout_s=10.0)
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(4):
            self.clock.pump([1.0] * 8)
            connection.dataReceived(b"x")
        self.assertIsNone(receiver.failure)
        self.clock.pump([1.0] * 13)
        self.failed(receiver, BackendTimeout, True)

    def test_paused_reader(self) -> None:
        """While our client does not read, the server's silence is not its fault."""
        call, receiver, _, connection = self.served(timeout_s=10.0)
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        call.pause()
        call.pause()
        self.clock.pump([1.0] * 30)
        self.assertIsNone(receiver.failure)
        call.resume()
        call.resume()
        self.clock.pump([1.0] * 25)
        self.failed(receiver, BackendTimeout, True)

    def test_upload(self) -> None:
        """While a body is still being sent, the server owes no answer yet."""
        call, receiver, _, _ = self.served(method="POST", body=None, length=None, timeout_s=10.0)
        for _ in range(4):
            self.clock.pump([1.0] * 8)
            call.write(b"x")
        call.end([])
        self.clock.pump([1.0] * 8)
        self.assertIsNone(receiver.failure)
        self.clock.pump([1.0] * 5)
        self.failed(receiver, BackendTimeout, True)

    def test_stream(self) -> None:
        """Once begun, a stream may be silent for ever; event streams are recognised."""
        for more, kind in (({"stream": True}, b"text/plain"), ({}, b"Text/Event-Stream")):
            _, receiver, _, connection = self.served(timeout_s=10.0, **more)
            connection.dataReceived(
                b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
            )
            self.clock.pump([10.0] * 20)
            self.assertIsNone(receiver.failure)

    def test_bad_answer(self) -> None:
        """An answer that breaks HTTP costs the connection."""
        _, receiver, wire, _ = self.served()
        self.server.protocols[0].dataReceived(b"nonsense\r\n\r\n")
        self.failed(receiver, BadBackendAnswer, True)
        self.assertTrue(wire.aborted)

    def test_death(self) -> None:
        """A connection lost inside an answer, however it ends, leaves no answer."""
        for reason in (ConnectionDone(), ConnectionLost()):
            _, receiver, _, connection = self.served()
            connection.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nabc" if reason.args else OK[:-1])
            connection.connectionLost(Failure(reason))
            self.failed(receiver, BackendDied, True)

    def test_cut_until_close(self) -> None:
        """A body that ends with its connection is complete only if that ended in order."""
        for reason, complete in ((ConnectionDone(), True), (ConnectionLost(), False)):
            _, receiver, _, connection = self.served()
            connection.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nabc")
            connection.connectionLost(Failure(reason))
            self.assertEqual(receiver.trailers == [], complete)
            self.assertEqual(receiver.failure is None, complete)

    def test_retry(self) -> None:
        """A harmless request on a kept connection that was dead is sent once more, elsewhere."""
        _, connection = self.kept()
        _, receiver = self.get()
        connection.connectionLost(Failure(ConnectionLost()))
        self.assertIsNone(receiver.failure)
        wire = self.server.accept()
        self.assertIn(b"GET", wire.value())
        self.server.protocols[-1].dataReceived(OK)
        self.assertEqual(receiver.body, b"ok")

    def test_one_retry(self) -> None:
        """Once more, not for ever."""
        _, connection = self.kept()
        _, receiver = self.get()
        connection.readConnectionLost()
        self.server.accept()
        self.server.protocols[-1].connectionLost(Failure(ConnectionDone()))
        self.failed(receiver, BackendDied, True)
        self.assertEqual(self.server.waiting, [])

    def test_no_retry(self) -> None:
        """A call that may have had an effect is never sent twice."""
        _, connection = self.kept()
        _, receiver = self.get(method="POST", body=b"x")
        connection.connectionLost(Failure(ConnectionLost()))
        self.failed(receiver, BackendDied, True)
        self.assertEqual(self.server.waiting, [])

    def test_abort(self) -> None:
        """A request given up is cut off, and its receiver hears nothing."""
        call, receiver, wire, connection = self.served()
        call.abort()
        call.abort()
        self.assertTrue(wire.aborted)
        connection.dataReceived(OK)
        connection.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((receiver.head, receiver.failure), (None, None))
        self.assertEqual(self.clock.getDelayedCalls(), self.clock.getDelayedCalls()[:1])

    def test_abort_while_connecting(self) -> None:
        """A request given up before it was connected stops connecting."""
        call, receiver = self.get()
        call.pause()
        call.resume()
        call.abort()
        self.assertEqual(self.server.cancelled, 1)
        self.assertIsNone(receiver.failure)

    def test_abort_within(self) -> None:
        """A receiver may give up from within any call."""
        for name in ("head", "data"):
            call, receiver, wire, connection = self.served()
            receiver.hooks[name] = call.abort
            connection.dataReceived(OK)
            self.assertIsNone(receiver.trailers)
            self.assertTrue(wire.aborted)

    def test_receiver_raises(self) -> None:
        """A receiver's bug ends its own request."""

        def bug() -> None:
            raise RuntimeError

        _, receiver, wire, connection = self.served()
        receiver.hooks["head"] = bug
        connection.dataReceived(OK)
        self.failed(receiver, Internal, True)
        self.assertTrue(wire.aborted)
        _, receiver, wire, connection = self.served()
        connection.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nabc")
        receiver.hooks["end"] = bug
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_close(self) -> None:
        """Closing tells every request, and those that come later."""
        self.served(pool="eve")
        wire, _ = self.kept()
        _, busy = self.get()
        _, connecting = self.get()
        self.upstream.close(Draining())
        self.failed(busy, Draining, True)
        self.failed(connecting, Draining, False)
        self.assertTrue(wire.aborted)
        _, late = self.get()
        self.clock.advance(0)
        self.failed(late, Draining, False)

    def test_close_idle(self) -> None:
        """Closing leaves no timer behind."""
        wire, connection = self.kept()
        self.upstream.close(Draining())
        self.assertTrue(wire.aborted)
        connection.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UpgradeTests(HTTPUpstreamTestCase):
    """Connections that change hands."""

    SWITCH = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"

    def upgraded(self) -> tuple[RecordingReceiver, Wire, Connection]:
        """Upgrade a connection."""
        call, receiver, wire, connection = self.served(fields=[(b"upgrade", b"websocket")])
        self.assertIn(b"\r\nConnection: Upgrade\r\n", wire.value())
        connection.dataReceived(self.SWITCH + b"hi")
        call.abort()
        self.assertFalse(wire.disconnecting)
        return receiver, wire, connection

    def test_guest(self) -> None:
        """After 101 the guest gets the bytes, and the end."""
        receiver, _, connection = self.upgraded()
        connection.dataReceived(b" there")
        assert receiver.guest is not None
        self.assertEqual(receiver.guest.received, b"hi there")
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(receiver.guest.lost)
        self.clock.pump([30.0] * 10)
        self.assertIsNone(receiver.failure)

    def test_half_close(self) -> None:
        """A guest that knows no half-closed connections sees a closed one."""
        _, wire, connection = self.upgraded()
        connection.readConnectionLost()
        self.assertTrue(wire.disconnecting)


class Socket:
    """A kernel socket: takes ``room`` bytes a call; ``server`` is its real other end."""

    def __init__(self) -> None:
        self.taken = b""
        self.room = 10**6
        self.error: OSError | None = None
        self._real, self.server = socket.socketpair()

    def send(self, data: bytes) -> int:
        """Take some."""
        if self.error is not None:
            raise self.error
        self.taken += data[: self.room]
        return min(self.room, len(data))

    def fileno(self) -> int:
        """Give the number of a real one."""
        return self._real.fileno()

    def reset(self) -> None:
        """Let the server cut the connection off."""
        self._real.send(b"unread")
        self.server.close()

    def close(self) -> None:
        """Close both ends."""
        self._real.close()
        self.server.close()


@implementer(ISystemHandle)
class SocketWire(Wire):
    """A plain transport with a kernel socket."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = Socket()

    def getHandle(self) -> Socket:
        """See `ISystemHandle`."""
        return self.socket


class KernelTests(HTTPUpstreamTestCase):
    """Requests handed to the kernel at once."""

    def wire(self) -> SocketWire:
        """Make a transport with a socket."""
        wire = SocketWire()
        self.addCleanup(wire.socket.close)
        return wire

    def accepted(self) -> SocketWire:
        """Complete the oldest connection with a socket."""
        factory, connecting = self.server.waiting.pop(0)
        protocol: Any = factory.buildProtocol(None)
        wire = self.wire()
        protocol.makeConnection(wire)
        self.server.protocols.append(protocol)
        connecting.callback(protocol)
        return wire

    def test_at_once(self) -> None:
        """A request the kernel takes whole never waits for the reactor."""
        self.get()
        wire = self.accepted()
        self.assertIn(b"GET", wire.socket.taken)
        self.assertEqual(wire.value(), b"")

    def test_partly(self) -> None:
        """What the kernel does not take follows by the reactor, in order, as does all later."""
        _, receiver = self.get(method="POST", body=b"x" * 50)
        factory_wire = self.wire()
        factory_wire.socket.room = 7
        factory, connecting = self.server.waiting.pop(0)
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(factory_wire)
        connecting.callback(protocol)
        whole = factory_wire.socket.taken + factory_wire.value()
        self.assertEqual(len(factory_wire.socket.taken), 7)
        self.assertTrue(whole.startswith(b"POST") and whole.endswith(b"x" * 50))
        protocol.dataReceived(OK)
        self.assertEqual(receiver.body, b"ok")
        factory_wire.clear()
        self.get()
        self.assertTrue(factory_wire.value().startswith(b"GET"))

    def test_full(self) -> None:
        """A kernel that takes nothing now gets all by the reactor."""
        self.get()
        wire = self.accepted()
        self.server.protocols[-1].dataReceived(OK)
        wire.socket.error = BlockingIOError()
        self.get(method="POST", body=b"x")
        self.assertTrue(wire.value().startswith(b"POST"))

    def test_dead(self) -> None:
        """Where the kernel refuses, nothing was sent: even a call goes to another connection."""
        self.get()
        wire = self.accepted()
        self.server.protocols[-1].dataReceived(OK)
        wire.socket.error = BrokenPipeError()
        _, receiver = self.get(method="POST", body=b"x")
        self.assertTrue(wire.aborted)
        second = self.accepted()
        self.assertIn(b"POST", second.socket.taken)
        self.server.protocols[-1].dataReceived(OK)
        self.assertEqual(receiver.body, b"ok")

    def test_dead_at_once(self) -> None:
        """A new connection that is dead already is no server."""
        _, receiver = self.get(method="POST", body=b"x")
        wire = self.wire()
        wire.socket.error = ConnectionResetError()
        factory, connecting = self.server.waiting.pop(0)
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(wire)
        connecting.callback(protocol)
        self.failed(receiver, BackendUnavailable, False)

    def test_stale(self) -> None:
        """A kept connection with an end, an error or unasked bytes waiting is not used."""
        ways: tuple[Callable[[Socket], object], ...] = (
            lambda one: one.server.close(),
            lambda one: one.server.shutdown(socket.SHUT_WR),
            lambda one: one.server.send(b"x"),
            Socket.reset,
        )
        for way in ways:
            self.get()
            wire = self.accepted()
            self.server.protocols[-1].dataReceived(OK)
            way(wire.socket)
            self.get(method="POST", body=b"x")
            self.assertTrue(wire.aborted)
            self.assertNotIn(b"POST", wire.socket.taken)
            self.accepted()

    def test_late_handshake(self) -> None:
        """A TLS connection carries nothing before the server proved who it is."""
        _, receiver = self.get()
        for end in (True, False):
            factory, connecting = self.server.waiting.pop(0)
            protocol: Any = factory.buildProtocol(None)
            wire = Wire()
            directlyProvides(wire, ISSLTransport)
            protocol.makeConnection(wire)
            connecting.callback(protocol)
            self.assertEqual(wire.value(), b"")
            if end:
                protocol.connectionLost(Failure(ConnectionLost()))
                self.failed(receiver, BackendUnavailable, False)
                self.get()
            else:
                protocol.handshakeCompleted()
                protocol.handshakeCompleted()
                self.assertIn(b"GET", wire.value())
        call, _ = self.get()
        factory, connecting = self.server.waiting.pop(0)
        protocol = factory.buildProtocol(None)
        wire = Wire()
        directlyProvides(wire, ISSLTransport)
        protocol.makeConnection(wire)
        connecting.callback(protocol)
        call.abort()
        self.assertTrue(wire.aborted)


class RemoteTests(SynchronousTestCase):
    """Servers by URL."""

    def test_read(self) -> None:
        """A URL gives host, port and path; default ports are not told."""
        clock = Clock()
        for url, authority, target in (
            ("http://a.test/mcp?x=1", b"a.test", b"/mcp?x=1"),
            ("http://a.test:8080", b"a.test:8080", b"/"),
            ("https://a.test:443/m", b"a.test", b"/m"),
            ("http://[::1]:8/m", b"[::1]:8", b"/m"),
        ):
            found = remote(clock, url)
            self.assertEqual((found.authority, found.target), (authority, target))
            self.assertTrue(IStreamClientEndpoint.providedBy(found.make_endpoint()))

    def test_refused(self) -> None:
        """What is not an absolute http URL without credentials is refused."""
        for url in ("ftp://a/", "/mcp", "http://u:p@a/", "http:///x"):
            self.assertRaises(ValueError, remote, Clock(), url)

    def test_endpoints(self) -> None:
        """Addresses need no name resolution."""
        clock = Clock()
        self.assertIsInstance(plain_endpoint(clock, "127.0.0.1", 1), TCP4ClientEndpoint)
        self.assertIsInstance(plain_endpoint(clock, "::1", 1), TCP6ClientEndpoint)
        self.assertIsInstance(plain_endpoint(clock, "a.test", 1), HostnameEndpoint)
