"""Modern requests of many callers on one child."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface.verify import verifyObject

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BadBackendAnswer,
    CallCancelled,
    Draining,
    Overloaded,
    TooLarge,
)
from mcpgate.interfaces import ISessionPeer, IUpstream
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.modern import META_LOG_LEVEL, META_SUBSCRIPTION
from mcpgate.model import Exit, Principal
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.modern_stdio import ModernPeer, ModernStdioUpstream
from tests.upstream.stdio_fakes import FakeChannel, FakeSink

ANN = Principal("file", "ann", "a" * 32)
BOB = Principal("file", "bob", "b" * 32)
LISTEN = "subscriptions/listen"
TOOLS = "notifications/tools/list_changed"


class ModernStdioTests(SynchronousTestCase):
    """One child."""

    @override
    def setUp(self) -> None:
        self.begin()

    def begin(self, **options: Any) -> None:
        """Start a child."""
        self.clock = Clock()
        self.channel = FakeChannel()
        self.ended: Deferred[Exit] = Deferred()
        self.meters = Meters()
        self.upstream = ModernStdioUpstream(
            self.channel,
            clock=self.clock,
            wheel=DeadlineWheel(self.clock, 0.5),
            ended=self.ended,
            meters=self.meters,
            name="i1",
            **options,
        )
        verifyObject(IUpstream, self.upstream)

    def call(
        self, method: str = "tools/call", id: int | str = 1, who: Principal = ANN, **params: object
    ) -> tuple[FakeSink, Any]:
        """Send a request; gives its sink and the id the child knows it by."""
        sink = FakeSink()
        self.upstream.call(who, Request(id, method, params), sink, timeout_s=60, max_s=600)
        sent = self.channel.take()
        return sink, sent[0]["id"] if sent else None

    def listen(self, id: int | str, who: Principal = ANN) -> tuple[FakeSink, Any]:
        """Open a subscription."""
        return self.call(LISTEN, id, who, notifications={"toolsListChanged": True})

    def test_ids_and_tokens_are_the_gates_own(self) -> None:
        """Everybody may send the same id and token; each hears what is its own."""
        first, one = self.call(_meta={"progressToken": "p"})
        second, two = self.call(who=BOB, _meta={"progressToken": "p"})
        self.assertNotEqual(one, two)
        self.channel.say(
            method="notifications/progress", params={"progressToken": two, "progress": 1}
        )
        self.channel.say(id=two, result={"a": 2})
        self.channel.say(id=one, error={"code": -32602, "message": "no"})
        self.assertEqual(
            second.delivered,
            [Notification("notifications/progress", {"progressToken": "p", "progress": 1})],
        )
        self.assertEqual(second.answer, Response(1, {"a": 2}))
        self.assertEqual((first.answer, first.delivered), (ErrorResponse(1, -32602, "no"), []))
        self.assertEqual(self.upstream.calls_in_work, 0)

    def test_subscriptions_are_told_apart(self) -> None:
        """By the id each frame names, in the type the listener chose."""
        ann, one = self.listen(7)
        bob, two = self.listen("7", BOB)
        for identity in (one, two):
            self.channel.say(
                method="notifications/subscriptions/acknowledged",
                params={"notifications": {}, "_meta": {META_SUBSCRIPTION: identity}},
            )
        self.channel.say(method=TOOLS, params={"_meta": {META_SUBSCRIPTION: two, "a/b": 1}})
        self.channel.say(method=TOOLS, params={"_meta": {META_SUBSCRIPTION: 99}})
        self.channel.say(method=TOOLS)
        self.assertEqual(len(ann.delivered), 1)
        self.assertEqual(
            bob.delivered[1], Notification(TOOLS, {"_meta": {META_SUBSCRIPTION: "7", "a/b": 1}})
        )
        self.channel.say(
            id=one, result={"resultType": "complete", "_meta": {META_SUBSCRIPTION: one}}
        )
        self.assertEqual(
            ann.answer,
            Response(7, {"resultType": "complete", "_meta": {META_SUBSCRIPTION: 7}}),
        )
        # Some servers end one this way (protocol.md 7).
        self.channel.say(method="notifications/cancelled", params={"requestId": two})
        self.assertEqual(bob.answer, Response("7", {}))
        self.channel.say(method="notifications/cancelled", params={"requestId": "x"})
        self.assertEqual(self.meters.events["stray_reply"], 1)
        self.assertEqual(self.meters.events["stdio_unattributed"], 1)

    def test_a_subscription_has_no_deadline(self) -> None:
        """It is silent for as long as nothing changes; a call is not."""
        listening, _ = self.listen(1)
        called, number = self.call()
        self.clock.pump([1.0] * 62)
        self.assertIsInstance(called.error, BackendTimeout)
        self.assertFalse(listening.over)
        self.assertEqual(self.channel.take()[0]["params"]["requestId"], number, "the child is told")

    def test_cancelling(self) -> None:
        """The child is told, under the id it knows."""
        sink = FakeSink()
        call = self.upstream.call(ANN, Request(5, LISTEN, {}), sink, timeout_s=60, max_s=600)
        call.cancel("gone")
        self.assertIsInstance(sink.error, CallCancelled)
        sent = self.channel.take()
        self.assertEqual(sent[1]["method"], "notifications/cancelled")
        self.assertEqual(sent[1]["params"]["requestId"], sent[0]["id"])
        self.channel.say(id=sent[0]["id"], result={})
        self.assertEqual(self.meters.events["stray_reply"], 1)

    def test_log_lines(self) -> None:
        """They go to the one call that asked for some, never to a stranger's."""
        line: dict[str, object] = {"level": "info", "data": "x"}
        quiet, _ = self.call()
        sink, number = self.call(_meta={META_LOG_LEVEL: "info"})
        self.channel.say(method="notifications/message", params=line)
        self.assertEqual(sink.delivered, [Notification("notifications/message", line)])
        self.assertEqual(quiet.delivered, [])
        other, _ = self.call(_meta={META_LOG_LEVEL: "info"})
        self.channel.say(method="notifications/message", params=line)
        self.assertEqual((len(sink.delivered), other.delivered), (1, []))
        self.channel.say(id=number, result={})
        self.channel.say(method="notifications/message", params=line)
        self.assertEqual(len(other.delivered), 1)

        self.begin(strangers=True)
        sink, _ = self.call(_meta={META_LOG_LEVEL: "info"})
        self.channel.say(method="notifications/message", params=line)
        self.assertEqual(len(sink.delivered), 1)
        self.call(who=BOB)
        self.channel.say(method="notifications/message", params=line)
        self.assertEqual(len(sink.delivered), 1)

    def test_what_the_child_must_not_say(self) -> None:
        """Requests are refused to it; noise and strange answers are passed over."""
        sink, number = self.call()
        self.channel.say(id="q", method="roots/list")
        self.assertEqual(self.channel.take()[0]["error"]["code"], -32601)
        self.channel.print(b"Listening ..")
        self.channel.print(b"")
        self.channel.say(id=99, error={"code": 1, "message": "x"})
        self.channel.say(id="s", result={})
        self.assertEqual(self.meters.events["stdio_noise"], 1)
        self.assertEqual(self.meters.events["stray_reply"], 2)
        self.channel.print(b'[{"jsonrpc":"2.0","id":%d,"result":{}}]' % number)
        self.assertEqual(sink.answer, Response(1, {}))

    def test_answers_that_can_not_be_read(self) -> None:
        """The call they belong to fails, the child lives."""
        sink, number = self.call()
        self.channel.print(b'{"jsonrpc":"2.0","id":%d,"result":{"a":NaN}}' % number)
        self.assertIsInstance(sink.error, BadBackendAnswer)
        sink, number = self.call()
        self.channel.print(b'{"jsonrpc":"2.0","id":%d,"result":{"a":\0}}' % number)
        self.assertIsInstance(sink.error, TooLarge)
        sink, number = self.call()
        self.channel.say(id=number, result={})
        self.assertTrue(sink.over)

    def test_bounds(self) -> None:
        """A child that has enough to do, or does not read, gets no more."""
        self.begin(max_calls=1)
        self.call()
        self.assertIsInstance(self.call()[0].error, Overloaded)
        self.assertFalse(self.listen(1)[0].over)
        self.channel.full = True
        self.assertIsInstance(self.listen(2)[0].error, Overloaded)

    def test_the_end(self) -> None:
        """Everybody hears how the child ended; who comes later hears that nothing was sent."""
        called, _ = self.call()
        listening, _ = self.listen(2)
        self.ended.callback(Exit(code=3, stderr_tail=("bad",)))
        for sink in (called, listening):
            assert isinstance(sink.error, BackendDied)
            self.assertEqual((sink.error.data["exitCode"], sink.error.data["sent"]), (3, True))
            self.assertEqual(sink.error.data["stderr"], ["bad"])
        late, _ = self.call()
        assert late.error is not None
        self.assertEqual(late.error.data["sent"], False)
        self.channel.say(id=1, result={})
        self.upstream.close(Draining())

    def test_closing(self) -> None:
        """The error of whoever closes is told; among strangers no words of the child."""
        called, _ = self.call()
        self.upstream.close(Draining())
        self.assertIsInstance(called.error, Draining)
        late, _ = self.call()
        self.assertIsInstance(late.error, BackendDied)
        self.begin(strangers=True)
        called, _ = self.call()
        self.ended.errback(Failure(ZeroDivisionError()))
        assert called.error is not None
        self.assertNotIn("stderr", called.error.data)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_bug_in_a_sink(self) -> None:
        """It takes the child from nobody else."""

        class Broken(FakeSink):
            @override
            def finish(self, response: object) -> None:
                raise ZeroDivisionError

            @override
            def fail(self, error: object) -> None:
                raise ZeroDivisionError

        for _ in range(2):
            request = Request(1, "tools/list")
            self.upstream.call(ANN, request, Broken(), timeout_s=60, max_s=600)
        self.channel.say(id=1, result={})
        sink, _ = self.call()
        self.ended.callback(Exit())
        self.assertTrue(sink.over)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_peers(self) -> None:
        """Whoever asks is known by his principal."""
        verifyObject(ISessionPeer, ModernPeer(ANN))
        self.assertEqual(ModernPeer(ANN), ModernPeer(ANN))
        self.assertNotEqual(ModernPeer(ANN), ModernPeer(BOB))
        ModernPeer(ANN).unsolicited(Notification("x"))
