"""Tests for `mcpgate.web.relay.relay`; over real sockets: `tests.functional.test_relay`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendDied, BackendUnavailable, BadBackendAnswer, BadRequest
from mcpgate.gate.access.revocation import Revocations
from mcpgate.http.fields import Fields
from mcpgate.http.forwarding import Forwarding
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IResponseReceiver
from mcpgate.model import Caller, Principal, Secret, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.relay.relay import SMALL_BYTES, Kept, Relay
from tests.web.relayed import FakeInbound, FakeLease, FakeUpstream, RepeatingUpstream, Wire

PRINCIPAL = Principal("i", "ann", "0" * 32)
CALLER = Caller(PRINCIPAL, Secret("k"))


def answer(status: int = 200, *lines: tuple[bytes, bytes], **more: Any) -> ResponseHead:
    """Make a response head."""
    return ResponseHead(status=status, reason=b"", version=(1, 1), fields=Fields(lines), **more)


class RelayTests(SynchronousTestCase):
    """One request through the relay."""

    def setUp(self) -> None:
        """Make the relay."""
        self.clock = Clock()
        self.meters = Meters()
        self.lease = FakeLease()
        self.spec = ServerSpec(name="srv", transport=Transport.HTTP)
        self.revocations = Revocations()
        self.upstream = self.lease.upstream
        self.ended = 0

    def relay(
        self,
        inbound: FakeInbound,
        *,
        keepalive_s: float = 15.0,
        kept: Kept | None = None,
        **spec: Any,
    ) -> None:
        """Relay a request."""

        def ended() -> None:
            self.ended += 1

        wheel = DeadlineWheel(self.clock)
        watch = self.revocations.watch
        Relay(
            self.clock, wheel, Forwarding(), self.meters, keepalive_s=keepalive_s, watch=watch
        ).relay(
            inbound,
            self.lease,
            replace(self.spec, **spec) if spec else self.spec,
            CALLER,
            target=b"/x",
            prefix=b"/srv",
            ended=ended,
            kept=kept,
        )

    def test_the_same_again(self) -> None:
        """A head that came again is written for the server once, as long as it is the same one."""
        upstream, kept = RepeatingUpstream(), Kept()
        self.upstream = self.lease.upstream = upstream
        for number in (1, 2):
            inbound = FakeInbound()
            inbound.request_id = f"r{number}"
            self.relay(inbound, kept=kept)
            head = answer(200, (b"x", b"y"), (b"server", b"s"), content_length=2)
            head.came_again()
            upstream.receiver.response_head(head)
            upstream.receiver.response_data(b"ok")
            upstream.receiver.response_end([])
            self.assertEqual(inbound.events, [("respond", 200, [(b"x", b"y")], b"ok")])
        self.assertEqual(upstream.prepared, ["r1"])
        self.assertEqual(
            [(one, options["pool"]) for one, _, options in upstream.again],
            [("r1", PRINCIPAL), ("r2", PRINCIPAL)],
        )
        self.lease.upstream = other = RepeatingUpstream()
        self.relay(FakeInbound(), kept=kept)
        self.assertEqual(other.prepared, ["r1"])
        # One that can not write it again has it each time.
        self.lease.upstream = FakeUpstream()
        self.relay(FakeInbound(), kept=kept)
        self.assertEqual(len(self.lease.upstream.sent), 1)

    def test_answers_that_came_again(self) -> None:
        """Their fields are made once, but for redirects and what is said of a stream."""
        heads = [
            answer(200, (b"x", b"y"), content_length=0),
            answer(302, (b"location", b"/a"), content_length=0),
            answer(200, (b"content-type", b"text/event-stream")),
        ]
        for head in heads:
            head.came_again()
        told = []
        for _ in range(2):
            for head in heads:
                inbound = FakeInbound()
                self.relay(inbound)
                self.upstream.receiver.response_head(head)
                self.upstream.receiver.response_end([])
                told.append(inbound.events[0][2])
        self.assertEqual(told[:3], told[3:])
        self.assertIs(told[0], told[3])
        self.assertEqual(told[1], [(b"location", b"/srv/a")])
        self.assertEqual(len(told[5]), 3)

    def over(self) -> None:
        """Check that everything was given back, once."""
        self.assertEqual((self.lease.released, self.ended, self.meters.streams), (1, 1, 0))
        self.assertFalse(self.revocations.watches(PRINCIPAL))

    def test_bodiless(self) -> None:
        """A request without a body is sent at once; a small answer is one write."""
        inbound = FakeInbound()
        self.relay(inbound)
        method, target, _, body, options = self.upstream.sent[0]
        self.assertEqual((method, target, body), ("GET", b"/x", b""))
        self.assertEqual((options["pool"], options["length"]), (PRINCIPAL, 0))
        receiver = self.upstream.receiver
        verifyObject(IResponseReceiver, receiver)
        receiver.response_head(answer(200, (b"x", b"y"), content_length=2))
        receiver.response_data(b"ok")
        self.assertEqual(inbound.events, [])
        receiver.response_end([])
        self.assertEqual(inbound.events, [("respond", 200, [(b"x", b"y")], b"ok")])
        self.over()
        self.assertEqual(self.lease.touched, 1)

    def test_split_small_answer(self) -> None:
        """A small answer in pieces is passed on in pieces."""
        inbound = FakeInbound()
        self.relay(inbound)
        receiver = self.upstream.receiver
        receiver.response_head(answer(content_length=4))
        receiver.response_data(b"ab")
        receiver.response_data(b"cd")
        receiver.response_end([])
        self.assertEqual(inbound.events, [("start", 200, [], 4), ("finish", None)])
        self.assertEqual(inbound.written, b"abcd")

    def test_collected_body(self) -> None:
        """A small body is collected and sent with its head."""
        inbound = FakeInbound("POST", content_length=5)
        self.relay(inbound)
        self.assertEqual(self.upstream.sent, [])
        assert inbound.done is not None
        inbound.done(b"hello")
        self.assertEqual(self.upstream.sent[0][3], b"hello")

    def test_client_goes_while_collecting(self) -> None:
        """A client that goes before its body is there is not relayed at all."""
        inbound = FakeInbound("POST", content_length=5)
        self.relay(inbound)
        inbound.gone()
        assert inbound.done is not None
        inbound.done(b"hello")
        self.assertEqual(self.upstream.sent, [])
        self.over()

    def test_streamed_body(self) -> None:
        """A large or chunked body is streamed, with its trailers, pausing its source."""
        for head, length in (
            ({"content_length": SMALL_BYTES + 1}, SMALL_BYTES + 1),
            ({"chunked": True}, None),
        ):
            self.setUp()
            inbound = FakeInbound("POST", **head)
            self.relay(inbound)
            self.assertEqual(self.upstream.sent[0][4]["length"], length)
            call = self.upstream.call
            self.assertEqual(call.flow, (inbound.pause_body, inbound.resume_body))
            assert inbound.data is not None and inbound.ended is not None
            inbound.data(b"abc")
            inbound.ended([(b"x-sum", b"1"), (b"host", b"evil")])
            self.assertEqual((call.written, call.trailers), (b"abc", [(b"x-sum", b"1")]))

    def test_early_answer(self) -> None:
        """When the answer is over before the body, the rest of it is left to the front door."""
        inbound = FakeInbound("POST", chunked=True)
        self.relay(inbound)
        receiver = self.upstream.receiver
        receiver.response_head(answer(403, content_length=0))
        receiver.response_end([])
        self.assertEqual(inbound.events, [("respond", 403, [], b""), ("resume",)])
        self.over()

    def test_too_large(self) -> None:
        """A body declared too large is refused."""
        inbound = FakeInbound("POST", content_length=11)
        self.relay(inbound, relay_body_bytes=10)
        self.assertEqual(inbound.events[0][:2], ("respond", 413))
        self.over()

    def test_unsendable(self) -> None:
        """A request the upstream will not write is refused."""
        for head in ({}, {"chunked": True}):
            self.setUp()
            self.upstream.error = BadRequest()
            inbound = FakeInbound("POST", **head)
            self.relay(inbound)
            self.assertEqual(inbound.events[0][:2], ("respond", 400))
            self.over()

    def test_large_answer(self) -> None:
        """A large answer is passed on as it comes, its source paused by the client."""
        inbound = FakeInbound()
        self.relay(inbound)
        receiver = self.upstream.receiver
        receiver.response_head(answer(content_length=None, chunked=True))
        self.assertEqual(inbound.events, [("start", 200, [], None)])
        self.assertEqual(inbound.flow, (self.upstream.call.pause, self.upstream.call.resume))
        receiver.response_data(b"ab")
        self.assertEqual(inbound.written, b"ab")
        receiver.response_end([(b"x-t", b"1"), (b"set-cookie", b"2")])
        self.assertEqual(inbound.events[-1], ("finish", [(b"x-t", b"1")]))
        self.over()

    def test_bodiless_answers(self) -> None:
        """HEAD and 304 tell the length of a body that is not there; 204 has none."""
        for method, status, length, expected in (
            ("HEAD", 200, 9, ("start", 200, [], 9)),
            ("HEAD", 200, None, ("start", 200, [], None)),
            ("GET", 304, 9, ("start", 304, [], 9)),
            ("GET", 204, None, ("respond", 204, [], b"")),
        ):
            self.setUp()
            inbound = FakeInbound(method)
            self.relay(inbound)
            self.upstream.receiver.response_head(answer(status, content_length=length))
            self.upstream.receiver.response_end([])
            self.assertEqual(inbound.events[0], expected)
            self.over()

    def test_failure(self) -> None:
        """Before the answer began a failure is told, after that the answer is cut."""
        inbound = FakeInbound()
        self.relay(inbound)
        self.upstream.receiver.response_failed(BackendUnavailable(), False)
        self.assertEqual(inbound.events[0][:2], ("respond", 503))
        self.over()
        self.setUp()
        inbound = FakeInbound()
        self.relay(inbound)
        self.upstream.receiver.response_head(answer(content_length=None))
        self.upstream.receiver.response_failed(BackendDied(), True)
        self.assertEqual(inbound.events[-1], ("abort",))
        self.assertEqual(inbound.notes["reason"], "backend_died")
        self.over()

    def test_client_goes(self) -> None:
        """When the client goes the server's work is given up."""
        inbound = FakeInbound()
        self.relay(inbound)
        inbound.gone()
        inbound.gone()
        self.assertTrue(self.upstream.call.aborted)
        self.over()
        self.upstream.receiver.response_failed(BackendDied(), True)
        self.assertEqual(inbound.events, [])

    def test_answered_elsewhere(self) -> None:
        """A request refused at the front door meanwhile is given up when the server answers."""
        inbound = FakeInbound("POST", chunked=True)
        self.relay(inbound)
        inbound.finished = True
        self.upstream.receiver.response_head(answer())
        self.assertTrue(self.upstream.call.aborted)
        self.over()

    def events(self, *lines: tuple[bytes, bytes], keepalive_s: float = 15.0) -> FakeInbound:
        """Begin an event stream."""
        inbound = FakeInbound()
        self.relay(inbound, keepalive_s=keepalive_s)
        kind = (b"content-type", b"text/event-stream")
        self.upstream.receiver.response_head(answer(200, kind, *lines, content_length=99))
        return inbound

    def test_event_stream(self) -> None:
        """An event stream has no length, is not buffered, and kept alive between events."""
        inbound = self.events((b"cache-control", b"no-store"))
        _, _, fields, length = inbound.events[0]
        self.assertIsNone(length)
        self.assertIn((b"x-accel-buffering", b"no"), fields)
        self.assertIn((b"cache-control", b"no-store"), fields)
        self.assertNotIn((b"cache-control", b"no-cache, no-transform"), fields)
        self.assertEqual(self.meters.streams, 1)
        receiver = self.upstream.receiver
        self.clock.pump([1.0] * 10)
        receiver.response_data(b"data: 1\n\n")
        self.clock.pump([1.0] * 10)
        self.assertEqual(inbound.written, b"data: 1\n\n")
        self.clock.pump([1.0] * 8)
        self.assertEqual(inbound.written, b"data: 1\n\n: keepalive\n\n")
        receiver.response_data(b"data: ")
        self.clock.pump([1.0] * 40)
        self.assertTrue(inbound.written.endswith(b"data: "))
        receiver.response_end([])
        self.over()
        self.clock.advance(20)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_keepalive(self) -> None:
        """Nothing is put into a coded stream, or where the configuration says never."""
        for lines, keepalive_s in (([(b"content-encoding", b"gzip")], 15.0), ([], 0.0)):
            self.setUp()
            inbound = self.events(*lines, keepalive_s=keepalive_s)
            self.clock.pump([1.0] * 60)
            self.assertEqual(inbound.written, b"")

    def upgrade(self, token: bytes = b"websocket") -> tuple[FakeInbound, Any, Wire]:
        """Upgrade a connection."""
        inbound = FakeInbound("GET", (b"upgrade", b"websocket"), upgrade=b"websocket")
        self.relay(inbound)
        wire = Wire()
        head = answer(101, (b"upgrade", token), (b"sec-websocket-accept", b"x"))
        protocol = self.upstream.receiver.response_upgraded(head, wire)
        protocol.makeConnection(wire)
        return inbound, protocol, wire

    def test_upgrade(self) -> None:
        """After 101 both connections are one pipe, until both have ended."""
        inbound, protocol, wire = self.upgrade()
        self.assertEqual(inbound.events[0][:2], ("take_over", 101))
        self.assertIn((b"sec-websocket-accept", b"x"), inbound.events[0][2])
        protocol.dataReceived(b"hi")
        self.assertEqual(inbound.wire.value(), b"hi")
        self.assertEqual((self.lease.touched, self.meters.streams), (1, 1))
        inbound.gone()
        self.assertFalse(wire.disconnecting)
        self.assertEqual(self.lease.released, 0)

    def test_a_revoked_key_ends_its_streams(self) -> None:
        """An event stream and a WebSocket are cut when their key is good no more (R58)."""
        inbound = FakeInbound()
        self.relay(inbound)
        self.upstream.receiver.response_head(answer(200, (b"content-type", b"text/event-stream")))
        self.assertEqual(self.revocations.watched("i"), [CALLER])
        self.revocations.announce(PRINCIPAL)
        self.assertEqual(inbound.events[-1], ("abort",))
        self.assertTrue(self.upstream.call.aborted)
        self.over()

    def test_a_revoked_key_ends_its_pipes(self) -> None:
        """Both sides of a WebSocket are cut off."""
        inbound, _, wire = self.upgrade()
        self.revocations.announce(PRINCIPAL)
        self.assertTrue(inbound.wire.aborted)
        self.assertTrue(wire.aborted)

    def test_wrong_upgrade(self) -> None:
        """An upgrade to something else is a bad answer."""
        self.assertRaises(BadBackendAnswer, self.upgrade, b"h2c")
        self.over()

    def test_upgrade_too_late(self) -> None:
        """A client that went meanwhile ends the server's connection."""
        inbound = FakeInbound("GET", upgrade=b"websocket")
        self.relay(inbound)
        wire = Wire()
        protocol = self.upstream.receiver.response_upgraded(
            answer(101, (b"upgrade", b"WebSocket")), wire
        )
        inbound.finished = True
        protocol.makeConnection(wire)
        self.assertTrue(wire.aborted)
