"""Conversations with an HTTP+SSE server, one stream after the other."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendDied, BackendUnavailable, BadRequest
from mcpgate.interfaces import IHTTPUpstream, IStdioChannel, IUpstream
from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import Exit
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.sse import ENDING_S, ENDPOINT_S, SSEUpstream
from mcpgate.upstream.sse_channel import SSEPlace
from mcpgate.upstream.stdio import StdioUpstream
from tests.upstream.sse_fakes import FakeSSEServer
from tests.upstream.stdio_fakes import FakePeer, FakeSink

INIT: dict[str, object] = {"protocolVersion": "2025-11-25"}


class UpstreamTests(SynchronousTestCase):
    """What the pool keeps."""

    def setUp(self) -> None:
        """Make one of a process; nothing is asked for yet."""
        self.begin(is_process=True)

    def begin(self, *, is_process: bool) -> None:
        """Make one."""
        self.clock = Clock()
        self.wheel = DeadlineWheel(self.clock, 0.5)
        self.server = FakeSSEServer(self.clock)
        self.ended: Deferred[Exit] = Deferred()
        self.names: list[str] = []
        self.upstream = SSEUpstream(
            self.server,  # type: ignore[arg-type]  # a stand-in with all that is used
            SSEPlace(origin="http://h", target=b"/sse"),
            make=self.make,
            name="i1",
            clock=self.clock,
            wheel=self.wheel,
            ended=self.ended,
            is_process=is_process,
            message_s=60,
        )
        verifyObject(IUpstream, self.upstream)
        verifyObject(IHTTPUpstream, self.upstream)

    def make(self, channel: IStdioChannel, ended: Deferred[Exit], name: str) -> StdioUpstream:
        """Make a conversation."""
        self.names.append(name)
        return StdioUpstream(
            channel,
            clock=self.clock,
            wheel=self.wheel,
            ended=ended,
            meters=Meters(),
            name=name,
        )

    def open(self) -> StdioUpstream:
        """Open the conversation."""
        return self.upstream.open([], [])

    def test_one_stream_at_a_time(self) -> None:
        """Whoever comes later gets the same conversation; after its end there is another."""
        self.assertEqual(self.server.streams, [])
        first = self.open()
        self.assertIs(self.open(), first)
        self.server.begin().done()
        self.assertIsNone(self.upstream.current)
        self.assertIsNot(self.open(), first)
        self.assertEqual(self.names, ["i1.1", "i1.2"])
        self.assertEqual(self.server.pools, ["i1.1", "i1.2"])

    def test_a_stream_that_breaks(self) -> None:
        """Fails what is in work as a death would, when the process lives on."""
        shaking = self.open().handshake(INIT, 30)
        self.server.begin().receiver.response_end([])
        self.assertIsNone(self.upstream.current)
        self.assertNoResult(shaking)
        self.clock.advance(ENDING_S)
        error = self.failureResultOf(shaking, BackendDied).value
        self.assertEqual(
            (error.detail, error.data), ("The server ended its event stream.", {"sent": True})
        )
        self.ended.callback(Exit(code=3))

    def test_a_stream_that_breaks_elsewhere(self) -> None:
        """Fails what is in work at once: there is no process whose end could be told."""
        self.begin(is_process=False)
        shaking = self.open().handshake(INIT, 30)
        self.server.begin().receiver.response_end([])
        self.assertEqual(self.failureResultOf(shaking, BackendDied).value.data, {"sent": True})

    def test_a_call_that_never_reached_the_server(self) -> None:
        """Says so when the process has ended, and when only its port is closed; others do not."""
        for is_dead in (True, False):
            self.begin(is_process=True)
            conversation = self.open()
            self.server.begin()
            sinks = [FakeSink(), FakeSink()]
            for number, sink in enumerate(sinks):
                request = Request(number, "tools/call", {})
                conversation.call(FakePeer(), request, sink, timeout_s=60, max_s=60)
            self.server.posts[0].fail(BackendUnavailable(), sent=False)
            if is_dead:
                self.ended.callback(Exit(signal=9))
            self.clock.advance(ENDING_S)
            told = [sink.error.data["sent"] for sink in sinks if sink.error is not None]
            self.assertEqual(told, [False, True])

    def test_a_stream_that_breaks_with_its_process(self) -> None:
        """Exit code and last words come a moment after; whoever is at work hears them."""
        shaking = self.open().handshake(INIT, 30)
        self.server.begin().receiver.response_end([])
        other = self.open().handshake(INIT, 30)
        self.ended.callback(Exit(code=3, stderr_tail=("Out of cheese",)))
        for waiting in (shaking, other):
            data = self.failureResultOf(waiting, BackendDied).value.data
            self.assertEqual((data["exitCode"], data["stderr"]), (3, ["Out of cheese"]))
            self.assertTrue(data["sent"])
        self.clock.advance(ENDING_S)

    def test_closed_while_the_end_is_waited_for(self) -> None:
        """Nobody waits any longer."""
        shaking = self.open().handshake(INIT, 30)
        self.server.begin().receiver.response_end([])
        error = BackendUnavailable("stopped")
        self.upstream.close(error)
        self.assertIs(self.failureResultOf(shaking, BackendUnavailable).value, error)
        self.clock.advance(ENDING_S)
        self.ended.callback(Exit())

    def test_a_server_that_refuses(self) -> None:
        """Is told as it was said."""
        shaking = self.open().handshake(INIT, 30)
        self.server.streams[0].head(403, b"")
        self.assertEqual(
            self.failureResultOf(shaking, BackendUnavailable).value.data, {"status": 403}
        )

    def test_no_endpoint(self) -> None:
        """Whoever waits hears it in time."""
        shaking = self.open().handshake(INIT, 300)
        self.clock.pump([0.5] * round(2 * ENDPOINT_S + 2))
        self.failureResultOf(shaking)
        self.assertIsNone(self.upstream.current)

    def test_what_can_not_be_asked_for(self) -> None:
        """Fails at once and leaves nothing behind."""
        self.server.error = BadRequest()
        self.assertRaises(BadRequest, self.open)
        self.assertIsNone(self.upstream.current)
        self.clock.pump([0.5] * 100)
        self.server.error = None
        self.assertIs(self.open(), self.upstream.current)

    def test_the_end_of_the_instance(self) -> None:
        """Is told to whoever is at work, with how it ended."""
        shaking = self.open().handshake(INIT, 30)
        stream = self.server.begin()
        self.ended.callback(Exit(code=3))
        self.assertEqual(self.failureResultOf(shaking, BackendDied).value.data["exitCode"], 3)
        self.assertTrue(stream.aborted)

    def test_an_end_that_is_not_known(self) -> None:
        """Ends what is in work all the same, and is told in the log."""
        shaking = self.open().handshake(INIT, 30)
        stream = self.server.begin()
        self.ended.errback(RuntimeError())
        data = self.failureResultOf(shaking, BackendDied).value.data
        self.assertEqual(data["exitReason"], "lost")
        self.assertTrue(stream.aborted)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_end_of_an_instance_nobody_uses(self) -> None:
        """Is nobody's business."""
        self.ended.callback(Exit())
        self.assertIsNone(self.upstream.current)

    def test_close(self) -> None:
        """Ends the conversation and the connections."""
        shaking = self.open().handshake(INIT, 30)
        stream = self.server.begin()
        error = BackendUnavailable("stopped")
        self.upstream.close(error)
        self.assertIs(self.failureResultOf(shaking, BackendUnavailable).value, error)
        self.assertTrue(stream.aborted)
        self.assertIs(self.server.closed, error)
        self.upstream.close(error)

    def test_relay(self) -> None:
        """Other requests go straight to the server."""
        receiver: Any = self
        sent = self.upstream.send(
            "POST", b"/x", [], b"", receiver, pool="p", length=0, timeout_s=1, stream=False
        )
        self.assertIs(sent, self.server.posts[0])

    def test_asked_within_the_conversation(self) -> None:
        """How it is, it is asked where it can answer; without a conversation over HTTP alone."""
        self.server.heard_s = 7.0
        self.assertEqual(self.upstream.heard_s, 7.0)
        self.assertFalse(self.upstream.unreachable)
        self.assertTrue(self.upstream.ask_alive(5.0))
        self.assertEqual(self.server.asked, [5.0])
        conversation = self.open()
        self.assertTrue(self.upstream.ask_alive(6.0))
        self.assertEqual(self.server.asked, [5.0, 6.0])
        conversation._handshake.result = INIT
        self.assertTrue(self.upstream.ask_alive(7.0))
        self.assertEqual(self.server.asked, [5.0, 6.0])
