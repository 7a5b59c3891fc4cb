"""What servers are asked to see whether they answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendUnavailable, BadBackendAnswer, Draining
from mcpgate.model import ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.upstream.modern_stdio import ModernStdioUpstream
from mcpgate.upstream.questions import POOL, Unread, question
from tests.upstream.stdio_fakes import FakeChannel, FakePeer, Stage
from tests.upstream.test_http import HTTPUpstreamTestCase

WEB = ServerSpec(
    name="web",
    transport=Transport.HTTP,
    headers=(("X-Fixed", "yes"), ("X-User", "{user}"), ("Authorization", "Bearer {key}")),
)
INIT = {"protocolVersion": "2025-11-25", "capabilities": {"prompts": {}}}


class QuestionTests(SynchronousTestCase):
    """Over HTTP."""

    def test_legacy(self) -> None:
        """A legacy server is asked what it allows, in nobody's session and in nobody's name."""
        asked = question(WEB, b"/mcp", modern=False)
        self.assertEqual((asked.method, asked.target, asked.body), ("OPTIONS", b"/mcp", None))
        fields = dict(asked.fields)
        self.assertEqual(fields[b"x-fixed"], b"yes")
        self.assertEqual(fields[b"mcp-session-id"], b"mcpgate-health")
        self.assertNotIn(b"authorization", fields)
        self.assertNotIn(b"x-user", fields)

    def test_ready_path(self) -> None:
        """Where the configuration names a path for this, that is asked for."""
        asked = question(replace(WEB, ready_path="/up"), b"/mcp", modern=False)
        self.assertEqual((asked.method, asked.target), ("GET", b"/up"))

    def test_modern(self) -> None:
        """A modern server is asked what it speaks."""
        asked = question(WEB, b"/mcp", modern=True)
        self.assertEqual((asked.method, asked.target), ("POST", b"/mcp"))
        assert asked.body is not None
        message = json.loads(asked.body)
        self.assertEqual(message["method"], "server/discover")
        self.assertIn("_meta", message["params"])
        fields = dict(asked.fields)
        self.assertEqual(fields[b"mcp-method"], b"server/discover")
        self.assertEqual(fields[b"mcp-protocol-version"], b"2026-07-28")

    def test_rest(self) -> None:
        """A REST service knows nothing of MCP: it is not asked in the era it is served in."""
        asked = question(replace(WEB, transport=Transport.REST), b"/v1", modern=True)
        self.assertEqual((asked.method, asked.body), ("OPTIONS", None))
        self.assertNotIn(b"mcp-session-id", dict(asked.fields))


class HTTPTests(HTTPUpstreamTestCase):
    """An HTTP server is asked on a connection of its own."""

    @override
    def make(self, **limits: Any) -> HTTPUpstream:
        self.modern = False
        return HTTPUpstream(
            self.clock,
            lambda: self.server,
            authority=b"srv:1",
            wheel=self.wheel,
            meters=self.meters,
            question=lambda: question(WEB, b"/mcp", modern=self.modern),
        )

    def ask(self) -> Any:
        """Ask; gives wire and connection."""
        self.clock.advance(60.0)
        self.assertTrue(self.upstream.ask_alive(10.0))
        return self.server.accept(), self.server.protocols[-1]

    def heard_ago(self) -> float:
        """Tell how long nothing was heard."""
        return self.clock.seconds() - self.upstream.heard_s

    def test_answer(self) -> None:
        """Any answer will do, and leaves no connection behind."""
        wire, connection = self.ask()
        self.assertTrue(wire.value().startswith(b"OPTIONS /mcp HTTP/1.1\r\n"))
        self.assertEqual(self.heard_ago(), 60.0)
        connection.dataReceived(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual(self.heard_ago(), 0.0)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(self.upstream._idle.get(POOL), None)

    def test_one_at_a_time(self) -> None:
        """A server that serves one connection at a time is not kept busy by one without use."""
        wire, _ = self.kept()
        self.upstream.ask_alive(10.0)
        self.assertTrue(wire.disconnecting)

    def test_stream(self) -> None:
        """A stream is not read to its end."""
        self.modern = True
        wire, connection = self.ask()
        self.assertIn(b'"server/discover"', wire.value())
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: x")
        self.assertTrue(wire.aborted)
        self.assertEqual(self.heard_ago(), 0.0)

    def test_endless(self) -> None:
        """Nor is a body without end."""
        wire, connection = self.ask()
        connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"x" * 70_000
        )
        self.assertTrue(wire.aborted)

    def test_closed_without_a_word(self) -> None:
        """A server that closes the connection at such a question is there."""
        self.modern = True  # What is safe would be asked once more.
        _, connection = self.ask()
        connection.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0.1)
        self.assertLess(self.heard_ago(), 1.0)

    def test_not_asked_while_paused(self) -> None:
        """One whose answer a client does not take may stand still, and is not asked."""
        call, _, _, connection = self.served()
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12")
        call.pause()
        self.assertFalse(self.upstream.ask_alive(1.0))
        call.resume()
        self.assertTrue(self.upstream.ask_alive(1.0))

    def test_silence(self) -> None:
        """An accepted connection is no sign of life."""
        wire, _ = self.ask()
        self.clock.pump([0.5] * 22)
        self.assertTrue(wire.aborted)
        self.assertGreater(self.heard_ago(), 60.0)

    def test_unreachable(self) -> None:
        """Where no connection can be made, that is known without asking, until one answers."""
        self.clock.advance(5.0)
        _, receiver = self.get()
        _, connecting = self.server.waiting.pop()
        self.assertFalse(self.upstream.unreachable)
        connecting.errback(ConnectionRefusedError())
        self.assertIsInstance(receiver.failure, BackendUnavailable)
        self.assertTrue(self.upstream.unreachable)
        self.clock.advance(1.0)
        _, _, _, connection = self.served()
        self.assertTrue(self.upstream.unreachable)
        connection.dataReceived(b"HTTP/1.1 200 OK\r\n")
        self.assertFalse(self.upstream.unreachable)

    def test_not_asked(self) -> None:
        """What is closed is not asked, nor what nobody has a question for."""
        self.upstream.close(Draining())
        self.assertFalse(self.upstream.ask_alive(1.0))
        self.assertFalse(super().make().ask_alive(1.0))

    def test_traffic(self) -> None:
        """Whatever comes to callers counts, too."""
        self.clock.advance(5.0)
        _, _, _, connection = self.served()
        connection.dataReceived(b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(self.heard_ago(), 0.0)

    def test_upload(self) -> None:
        """So does what goes on of a body: who takes that in may be at nothing else."""
        call, _, _, _ = self.served(method="POST", body=None, length=10)
        self.clock.advance(60.0)
        call.write(b"12345")
        self.assertEqual(self.heard_ago(), 0.0)
        self.clock.advance(1.0)
        call.abort()
        self.assertEqual(self.heard_ago(), 1.0)


class UnreadTests(SynchronousTestCase):
    """What lets answers go by."""

    def test_odd_ends(self) -> None:
        """A failure shows by itself; an upgrade nobody asked for is refused."""
        unread = Unread(lambda: None, lambda: None)
        unread.response_failed(BackendUnavailable(), False)
        head: Any = None
        self.assertRaises(BadBackendAnswer, unread.response_upgraded, head, None)


class LegacyStdioTests(SynchronousTestCase):
    """A legacy server behind pipes."""

    @override
    def setUp(self) -> None:
        self.stage = Stage()
        self.upstream, self.channel = self.stage.upstream, self.stage.channel

    def shake(self) -> None:
        """Have the handshake."""
        self.upstream.handshake({}, 5.0)
        (first,) = self.channel.take()
        self.channel.say(id=first["id"], result=INIT)
        self.channel.take()

    def test_ping(self) -> None:
        """After the handshake it is pinged; nobody is told of the answer."""
        self.shake()
        self.stage.clock.advance(60.0)
        peer = FakePeer()
        self.upstream.join(peer)
        self.assertTrue(self.upstream.ask_alive(5.0))
        (ping,) = self.channel.take()
        self.assertEqual(ping["method"], "ping")
        self.assertEqual(self.upstream.calls_in_work, 0)
        self.channel.say(id=ping["id"], error={"code": -32601, "message": "ping?"})
        self.assertEqual(self.upstream.heard_s, 60.0)
        self.assertEqual(peer.heard, [])
        self.assertEqual(self.stage.meters.events["stray_reply"], 0)

    def test_no_ping_known(self) -> None:
        """Where ping is not answered a list is asked for: the server may not know ping."""
        self.shake()
        for method in ("ping", "prompts/list", "prompts/list"):
            self.stage.clock.advance(60.0)
            self.upstream.ask_alive(5.0)
            self.assertEqual([one["method"] for one in self.channel.take()], [method])
        self.stage.clock.advance(1.0)
        self.channel.say(method="notifications/message", params={})
        self.stage.clock.advance(60.0)
        self.upstream.ask_alive(5.0)
        self.assertEqual(self.channel.take()[0]["method"], "ping")

    def test_nothing_to_list(self) -> None:
        """A server without lists is pinged again."""
        self.upstream.handshake({}, 5.0)
        (first,) = self.channel.take()
        self.channel.say(id=first["id"], result={"protocolVersion": "2025-11-25"})
        self.channel.take()
        for _ in range(2):
            self.stage.clock.advance(60.0)
            self.upstream.ask_alive(5.0)
            self.assertEqual(self.channel.take()[0]["method"], "ping")

    def test_before_the_handshake(self) -> None:
        """Nothing is asked before it, nor while it is under way; given up, it is owed."""
        self.assertFalse(self.upstream.ask_alive(5.0))
        shaking = self.upstream.handshake({}, 90.0)
        shaking.addErrback(lambda _: None)
        self.assertFalse(self.upstream.ask_alive(5.0))
        self.channel.take()
        self.stage.clock.pump([0.5] * 190)
        self.assertTrue(self.upstream.ask_alive(5.0))
        self.assertEqual(self.channel.take(), [])

    def test_refused_handshake(self) -> None:
        """A refusal is an answer; nothing is owed."""
        shaking = self.upstream.handshake({}, 90.0)
        shaking.addErrback(lambda _: None)
        (first,) = self.channel.take()
        self.channel.say(id=first["id"], error={"code": -32000, "message": "no"})
        self.assertFalse(self.upstream.ask_alive(5.0))

    def test_waiting_for_a_client(self) -> None:
        """While a client is asked something the server owes nothing."""
        self.shake()
        peer = FakePeer("roots")
        self.upstream.join(peer)
        self.channel.say(id=1, method="roots/list")
        self.assertFalse(self.upstream.ask_alive(5.0))

    def test_full(self) -> None:
        """A server that does not read owes an answer all the same."""
        self.shake()
        self.channel.full = True
        self.assertTrue(self.upstream.ask_alive(5.0))

    def test_closed(self) -> None:
        """What is over is not asked."""
        self.shake()
        self.upstream.close(Draining())
        self.assertFalse(self.upstream.ask_alive(5.0))


class ModernStdioTests(SynchronousTestCase):
    """A modern server behind pipes."""

    @override
    def setUp(self) -> None:
        self.clock = Clock()
        self.channel = FakeChannel()
        self.meters = Meters()
        self.upstream = ModernStdioUpstream(
            self.channel,
            clock=self.clock,
            wheel=DeadlineWheel(self.clock, 0.5),
            ended=Deferred(),
            meters=self.meters,
            name="i1",
        )

    def test_discover(self) -> None:
        """It is asked what it speaks; the answer is nobody else's."""
        self.clock.advance(60.0)
        self.assertTrue(self.upstream.ask_alive(5.0))
        (asked,) = self.channel.take()
        self.assertEqual(asked["method"], "server/discover")
        self.assertEqual(self.upstream.heard_s, 0.0)
        self.channel.say(id=asked["id"], result={"supportedVersions": ["2026-07-28"]})
        self.assertEqual(self.upstream.heard_s, 60.0)
        self.assertEqual(self.meters.events["stray_reply"], 0)

    def test_closed(self) -> None:
        """What is over is not asked."""
        self.upstream.close(Draining())
        self.assertFalse(self.upstream.ask_alive(5.0))
