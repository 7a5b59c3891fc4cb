"""One handshake for many sessions."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BadBackendAnswer,
    BadRequest,
    Overloaded,
)
from mcpgate.mcp.jsonrpc import ErrorResponse, Response
from mcpgate.model import Exit
from mcpgate.upstream.stdio_handshake import InitializeRefused
from tests.upstream.stdio_fakes import FakePeer, Stage

RESULT: dict[str, object] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "serverInfo": {},
}


class HandshakeTests(SynchronousTestCase):
    """One initialize for everybody."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()

    def begin(self, timeout_s: float = 10.0) -> Deferred[dict[str, object]]:
        """Have one more session ask for the handshake."""
        return self.stage.upstream.handshake({"capabilities": {}}, timeout_s)

    def test_once(self) -> None:
        """Several sessions at once cause one initialize and one initialized."""
        first, second = self.begin(), self.begin()
        (sent,) = self.stage.channel.take()
        self.assertEqual((sent["method"], sent["params"]), ("initialize", {"capabilities": {}}))
        self.stage.channel.say(id=sent["id"], result=RESULT)
        self.assertEqual(self.successResultOf(first), RESULT)
        self.assertEqual(self.successResultOf(second), RESULT)
        self.assertEqual(self.stage.upstream.initialize_result, RESULT)
        self.assertEqual(
            self.stage.channel.take(), [{"jsonrpc": "2.0", "method": "notifications/initialized"}]
        )

    def test_remembered(self) -> None:
        """A session that comes later gets the same answer and the server hears nothing."""
        first = self.begin()
        self.stage.channel.say(id=1, result=RESULT)
        self.successResultOf(first)
        self.stage.channel.take()
        self.assertEqual(self.successResultOf(self.begin()), RESULT)
        sink, minted = self.stage.call(FakePeer(), "initialize", {}, id="x")
        self.assertEqual((sink.answer, minted), (Response("x", RESULT), 0))

    def test_initialize_before_the_handshake(self) -> None:
        """An initialize among the calls never reaches the server."""
        sink, minted = self.stage.call(FakePeer(), "initialize", {})
        self.assertIsInstance(sink.error, BadRequest)
        self.assertEqual(minted, 0)

    def test_refused(self) -> None:
        """The server's error is passed on, and it may be tried again."""
        first, second = self.begin(), self.begin()
        self.stage.channel.say(id=1, error={"code": -32602, "message": "no", "data": [1]})
        error = self.failureResultOf(first, InitializeRefused).value
        self.assertEqual(error.response, ErrorResponse(1, -32602, "no", [1]))
        self.failureResultOf(second, InitializeRefused)
        again = self.begin()
        self.stage.channel.say(id=2, result=RESULT)
        self.successResultOf(again)

    def test_timeout(self) -> None:
        """No answer in time fails everyone; nothing is cancelled at the server."""
        first, second = self.begin(), self.begin(99)
        self.stage.clock.pump([0.5] * 22)
        self.failureResultOf(first, BackendTimeout)
        self.failureResultOf(second, BackendTimeout)
        self.assertEqual(len(self.stage.channel.take()), 1)

    def test_late_answer(self) -> None:
        """An answer that comes after the time is as good; a second one is ignored."""
        self.begin().addErrback(lambda failure: None)
        self.stage.clock.pump([0.5] * 22)
        again = self.begin()
        self.stage.channel.say(id=1, result=RESULT)
        self.assertEqual(self.successResultOf(again), RESULT)
        self.stage.channel.say(id=2, error={"code": 1, "message": "twice"})
        self.assertEqual(self.successResultOf(self.begin()), RESULT)

    def test_late_refusal(self) -> None:
        """A refusal of an attempt given up does not fail the next one."""
        self.begin().addErrback(lambda failure: None)
        self.stage.clock.pump([0.5] * 22)
        again = self.begin()
        self.stage.channel.say(id=1, error={"code": 1, "message": "no"})
        self.assertNoResult(again)
        self.stage.channel.say(id=2, result=RESULT)
        self.successResultOf(again)

    def test_cancel_one(self) -> None:
        """One session that gives up does not disturb the others, nor start a second initialize."""
        first, second = self.begin(), self.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.addErrback(lambda failure: None).cancel()
        third, fourth = self.begin(), self.begin()
        third.addCallback(lambda result: fourth.cancel())
        self.stage.channel.say(id=1, result=RESULT)
        self.successResultOf(third)
        self.failureResultOf(fourth, CancelledError)
        self.assertEqual(len(self.stage.channel.take()), 2)

    def test_cancel_while_failing(self) -> None:
        """A session that gives up because another's wait failed is not told twice."""
        first, second = self.begin(), self.begin()
        first.addErrback(lambda failure: second.cancel())
        self.stage.channel.say(id=1, error={"code": 1, "message": "no"})
        self.failureResultOf(second, CancelledError)

    def test_nonsense(self) -> None:
        """An answer without a version, or an unreadable one, fails the handshake."""
        first = self.begin()
        self.stage.channel.say(id=1, result={})
        self.failureResultOf(first, BadBackendAnswer)
        second = self.begin()
        self.stage.channel.print(b'{"jsonrpc":"2.0","id":2,"result":{"a":NaN}}')
        self.failureResultOf(second, BadBackendAnswer)

    def test_full_and_ended(self) -> None:
        """A server that does not read, or has ended, fails the handshake at once."""
        self.stage.channel.full = True
        self.failureResultOf(self.begin(), Overloaded)
        self.stage.channel.full = False
        waiting = self.begin()
        self.stage.ended.callback(Exit(code=1))
        self.failureResultOf(waiting, BackendDied)
        self.failureResultOf(self.begin(), BackendDied)
