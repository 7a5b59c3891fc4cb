"""Conversations of many sessions with one stdio server."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BadBackendAnswer,
    BadRequest,
    CallCancelled,
    Draining,
    InvalidParams,
    Overloaded,
)
from mcpgate.interfaces import IUpstream
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.model import Exit
from mcpgate.upstream.stdio import was_sent
from mcpgate.upstream.stdio_handshake import InitializeRefused
from tests.upstream.stdio_fakes import FakePeer, FakeSink, Stage

RESULT: dict[str, object] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "serverInfo": {"name": "s"},
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


class CallTests(SynchronousTestCase):
    """Requests and their answers."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage(max_calls=4)
        self.channel = self.stage.channel
        self.ann, self.bob = FakePeer(), FakePeer()

    def test_interface(self) -> None:
        """The pool can close it."""
        verifyObject(IUpstream, self.stage.upstream)

    def test_same_ids(self) -> None:
        """Clients that all use id 1 get each their own answer, under their own id."""
        ann, first = self.stage.call(self.ann, id=1)
        bob, second = self.stage.call(self.bob, id=1)
        text, third = self.stage.call(self.bob, id="1")
        zero, fourth = self.stage.call(self.bob, id=0)
        self.assertEqual(self.stage.upstream.calls_in_work, 4)
        self.assertEqual(len({first, second, third, fourth}), 4)
        for minted in (third, second, fourth, first):
            self.channel.say(id=minted, result={"n": minted})
        self.assertEqual(ann.answer, Response(1, {"n": first}))
        self.assertEqual(bob.answer, Response(1, {"n": second}))
        self.assertEqual(text.answer, Response("1", {"n": third}))
        self.assertEqual(zero.answer, Response(0, {"n": fourth}))
        self.assertEqual(self.stage.meters.calls_in_work, 0)

    def test_fields_pass(self) -> None:
        """Everything but the id passes unchanged, in both directions."""
        params: dict[str, object] = {"name": "t", "x": [1.5, None], "_meta": {"a": "\u2028"}}
        sink, minted = self.stage.call(self.ann, "vendor/x", params)
        self.assertEqual(
            self.channel.take(),
            [{"jsonrpc": "2.0", "id": minted, "method": "vendor/x", "params": params}],
        )
        self.channel.say(id=minted, error={"code": 5, "message": "m", "data": {"y": 1}})
        self.assertEqual(sink.answer, ErrorResponse(1, 5, "m", {"y": 1}))

    def test_progress(self) -> None:
        """Progress comes under the client's own token, type kept, and stops with the answer."""
        tokens: list[int | str] = [7, "7", 0]
        for token in tokens:
            sink, minted = self.stage.call(
                self.ann, params={"_meta": {"progressToken": token, "k": 1}}
            )
            meta = self.channel.take()[0]["params"]["_meta"]
            self.assertEqual(meta, {"progressToken": minted, "k": 1})
            told = {"progressToken": minted, "progress": 1, "message": "half"}
            self.channel.say(method="notifications/progress", params=told)
            self.channel.say(id=minted, result={})
            self.channel.say(method="notifications/progress", params=told)
            self.assertEqual(
                sink.delivered,
                [Notification("notifications/progress", {**told, "progressToken": token})],
            )
        self.assertEqual(self.stage.meters.events["stray_reply"], 3)

    def test_strange_progress(self) -> None:
        """Progress nobody asked for is dropped; tokens that could be mistaken are refused."""
        sink, minted = self.stage.call(self.ann)
        for token in (minted, str(minted), float(minted), 99, None):
            self.channel.say(method="notifications/progress", params={"progressToken": token})
        self.channel.say(method="notifications/progress")
        self.assertEqual(sink.delivered, [])
        for bad in (7.0, None, True, [1]):
            refused, sent = self.stage.call(self.ann, params={"_meta": {"progressToken": bad}})
            self.assertIsInstance(refused.error, InvalidParams)
            self.assertEqual(sent, 0)
        odd, sent = self.stage.call(self.ann, params={"_meta": 5})
        self.assertFalse(odd.over)
        self.assertNotEqual(sent, 0)

    def test_timeout(self) -> None:
        """A call that is not answered in time fails and is cancelled at the server."""
        sink, minted = self.stage.call(self.ann, timeout_s=5)
        self.channel.take()
        self.stage.clock.pump([0.5] * 9)
        self.assertFalse(sink.over)
        self.stage.clock.pump([0.5] * 3)
        assert isinstance(sink.error, BackendTimeout)
        self.assertTrue(was_sent(sink.error))
        (told,) = self.channel.take()
        self.assertEqual(told["method"], "notifications/cancelled")
        self.assertEqual(told["params"]["requestId"], minted)
        self.channel.say(id=minted, result={})
        self.assertEqual(self.stage.meters.events["stray_reply"], 1)
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])

    def test_progress_keeps_alive(self) -> None:
        """Progress postpones the deadline, but not beyond the hard end."""
        sink, minted = self.stage.call(
            self.ann, params={"_meta": {"progressToken": 1}}, timeout_s=5, max_s=20
        )
        for _ in range(19):
            self.stage.clock.pump([0.5, 0.5])
            self.assertFalse(sink.over)
            self.channel.say(method="notifications/progress", params={"progressToken": minted})
        self.stage.clock.pump([0.5] * 4)
        self.assertIsInstance(sink.error, BackendTimeout)

    def test_max_calls(self) -> None:
        """More calls than allowed are refused at once, and nothing is sent."""
        for _ in range(4):
            self.stage.call(self.ann)
        sink, minted = self.stage.call(self.bob)
        assert isinstance(sink.error, Overloaded)
        self.assertFalse(was_sent(sink.error))
        self.assertEqual(minted, 0)
        self.channel.say(id=1, result={})
        sink, minted = self.stage.call(self.bob)
        self.assertFalse(sink.over)

    def test_server_does_not_read(self) -> None:
        """A full queue refuses calls, notifications and answers; no place stays taken."""
        self.channel.full = True
        sink, _minted = self.stage.call(self.ann)
        assert isinstance(sink.error, Overloaded)
        self.assertFalse(was_sent(sink.error))
        self.assertEqual(self.stage.upstream.calls_in_work, 0)
        self.assertRaises(
            Overloaded, self.stage.upstream.notify, self.ann, Notification("notifications/x")
        )

    def test_strays(self) -> None:
        """Duplicate, foreign and invented answers go nowhere and are counted."""
        sink, minted = self.stage.call(self.ann)
        self.channel.say(id=minted, result={})
        for id in (minted, 99, "1", str(minted), "server-error"):
            self.channel.say(id=id, result={"evil": 1})
        self.channel.say(id=None, error={"code": 1, "message": ""})
        self.assertEqual(sink.answer, Response(1, {}))
        self.assertEqual(self.stage.meters.events["stray_reply"], 6)

    def test_noise(self) -> None:
        """Banners are skipped, the server lives on."""
        sink, minted = self.stage.call(self.ann)
        for line in (b"Server running", b"", b"  \r", b"\xff\xfe", b"{}"):
            self.channel.print(line)
        self.assertEqual(self.stage.meters.events["stdio_noise"], 3)
        self.channel.say(id=minted, result={})
        self.assertEqual(sink.answer, Response(1, {}))

    def test_unreadable_answer(self) -> None:
        """An answer that can not be read fails its call at once, not after a minute."""
        for sink, detached in ((FakeSink(), False), (FakeSink(), True)):
            call = self.stage.upstream.call(
                self.ann, Request(1, "tools/call"), sink, timeout_s=9, max_s=9
            )
            if detached:
                call.detach()
            self.channel.print(b'{"jsonrpc":"2.0","id":%d,"result":{"a":NaN}}' % call.id)
            self.assertTrue(call.done)
            self.assertEqual(isinstance(sink.error, BadBackendAnswer), not detached)
        self.channel.print(b'{"jsonrpc":"2.0","id":99,"result":{"a":NaN}}')

    def test_batch(self) -> None:
        """A server may answer in arrays, as 2025-03-26 lets it."""
        ann, first = self.stage.call(self.ann)
        bob, second = self.stage.call(self.bob)
        self.channel.print(
            json.dumps(
                [{"jsonrpc": "2.0", "id": n, "result": {"n": n}} for n in (second, first)]
            ).encode()
        )
        self.assertEqual(ann.answer, Response(1, {"n": first}))
        self.assertEqual(bob.answer, Response(1, {"n": second}))

    def test_failing_sink(self) -> None:
        """A bug in one session's sink is logged and does not stop the others."""
        sink, minted = self.stage.call(self.ann)
        sink.answer = Response(0, {})  # a second answer makes it raise
        self.channel.say(id=minted, result={})
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        bob, minted = self.stage.call(self.bob)
        self.channel.say(id=minted, result={})
        self.assertEqual(bob.answer, Response(1, {}))


class CancelTests(SynchronousTestCase):
    """Taking calls back, and losing clients."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.channel = self.stage.channel
        self.ann, self.bob = FakePeer(), FakePeer()

    def cancelled(self, peer: FakePeer, id: object, **more: object) -> None:
        """Have a client say that it takes a request back."""
        self.stage.upstream.notify(
            peer, Notification("notifications/cancelled", {"requestId": id, **more})
        )

    def test_own_call(self) -> None:
        """A client cancels its own call: the server hears the right id, the exchange ends."""
        ann, _first = self.stage.call(self.ann, id=5)
        bob, second = self.stage.call(self.bob, id=5)
        self.channel.take()
        self.cancelled(self.bob, 5, reason="enough")
        self.assertEqual(
            self.channel.take(),
            [
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/cancelled",
                    "params": {"requestId": second, "reason": "enough"},
                }
            ],
        )
        self.assertIsInstance(bob.error, CallCancelled)
        self.assertFalse(ann.over)
        self.channel.say(id=second, result={})
        self.assertEqual(self.stage.meters.events["stray_reply"], 1)

    def test_not_own(self) -> None:
        """Nothing else can be cancelled: not another's call, not another type of id, no id."""
        ann, minted = self.stage.call(self.ann, id=5)
        self.channel.take()
        self.cancelled(self.bob, 5)
        for id in ("5", 5.0, None, 6, minted, [5], True):
            self.cancelled(self.ann, id)
        self.stage.upstream.notify(self.ann, Notification("notifications/cancelled"))
        self.assertEqual(self.channel.take(), [])
        self.assertFalse(ann.over)

    def test_ambiguous(self) -> None:
        """Of two calls under one id none is cancelled by id, but each by its handle."""
        first, second = FakeSink(), FakeSink()
        calls = [
            self.stage.upstream.call(
                self.ann, Request(1, "tools/call"), sink, timeout_s=60, max_s=60
            )
            for sink in (first, second)
        ]
        self.cancelled(self.ann, 1, reason=7)
        self.assertFalse(self.stage.upstream.cancel(self.ann, 1))
        calls[1].cancel()
        calls[1].cancel()
        self.assertFalse(first.over)
        self.assertIsInstance(second.error, CallCancelled)
        self.assertTrue(self.stage.upstream.cancel(self.ann, 1))
        self.assertIsInstance(first.error, CallCancelled)

    def test_detach(self) -> None:
        """A lost client is no cancellation: the server works on, the answer is dropped."""
        sink = FakeSink()
        call = self.stage.upstream.call(
            self.ann,
            Request(1, "tools/call", {"_meta": {"progressToken": 1}}),
            sink,
            timeout_s=5,
            max_s=60,
        )
        self.channel.take()
        call.detach()
        self.channel.say(method="notifications/progress", params={"progressToken": call.id})
        self.channel.say(method="notifications/message", params={})
        self.assertEqual(len(self.ann.heard), 1)
        self.channel.say(id=call.id, result={})
        self.assertEqual((sink.over, sink.delivered, self.channel.take()), (False, [], []))
        self.assertTrue(call.done)
        self.assertEqual(self.stage.meters.events["stray_reply"], 0)

    def test_detached_timeout(self) -> None:
        """A call without a client still ends at its deadline."""
        sink = FakeSink()
        call = self.stage.upstream.call(
            self.ann, Request(1, "tools/call"), sink, timeout_s=5, max_s=60
        )
        call.detach()
        self.stage.clock.pump([0.5] * 12)
        self.assertTrue(call.done)
        self.assertFalse(sink.over)
        self.assertEqual(self.channel.sent[-1]["method"], "notifications/cancelled")

    def test_leave(self) -> None:
        """A session that ends takes its calls with it."""
        self.stage.upstream.join(self.ann)
        ann, _ = self.stage.call(self.ann)
        bob, _ = self.stage.call(self.bob)
        self.stage.upstream.leave(self.ann)
        self.assertIsInstance(ann.error, CallCancelled)
        self.assertFalse(bob.over)
        self.channel.say(method="notifications/tools/list_changed")
        self.assertEqual(self.ann.heard, [])


class NotifyTests(SynchronousTestCase):
    """Notifications of clients."""

    def test_passed(self) -> None:
        """Initialized is the gate's to send; others pass."""
        stage = Stage()
        ann = FakePeer()
        stage.upstream.notify(ann, Notification("notifications/initialized"))
        stage.upstream.notify(
            ann, Notification("notifications/progress", {"progressToken": 1, "progress": 1})
        )
        stage.upstream.notify(ann, Notification("notifications/roots/list_changed"))
        self.assertEqual(
            stage.channel.take(),
            [{"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}],
        )


class AskTests(SynchronousTestCase):
    """Requests of the server to clients."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.channel = self.stage.channel
        self.upstream = self.stage.upstream
        self.ann, self.bob = FakePeer("roots", "elicitation"), FakePeer("sampling", "elicitation")
        self.upstream.join(self.ann)
        self.upstream.join(self.bob)

    def shown(self, sink: FakeSink) -> Request:
        """Give the one question an exchange brought."""
        (message,) = sink.delivered
        assert isinstance(message, Request)
        return message

    def test_ping(self) -> None:
        """The gate answers the server's ping itself."""
        self.channel.say(id=0, method="ping")
        self.assertEqual(self.channel.take(), [{"jsonrpc": "2.0", "id": 0, "result": {}}])

    def test_within_the_only_call(self) -> None:
        """A question comes to the client whose call is in work; the answer finds its way back."""
        sink, _ = self.stage.call(self.ann)
        self.channel.take()
        self.channel.say(id=0, method="roots/list", params={"x": 1})
        asked = self.shown(sink)
        self.assertEqual((asked.method, asked.params), ("roots/list", {"x": 1}))
        self.assertFalse(self.upstream.answer(self.bob, Response(asked.id, {"evil": 1})))
        self.assertFalse(self.upstream.answer(self.ann, Response(0, {"evil": 1})))
        self.assertFalse(self.upstream.answer(self.ann, ErrorResponse(None, 1, "")))
        self.assertTrue(self.upstream.answer(self.ann, Response(asked.id, {"roots": []})))
        self.assertFalse(self.upstream.answer(self.ann, Response(asked.id, {"roots": []})))
        self.assertEqual(
            self.channel.take(), [{"jsonrpc": "2.0", "id": 0, "result": {"roots": []}}]
        )

    def test_error_answer(self) -> None:
        """A client's refusal reaches the server under its own id, type kept."""
        sink, _ = self.stage.call(self.ann)
        self.channel.say(id="0", method="elicitation/create")
        self.upstream.answer(self.ann, ErrorResponse(self.shown(sink).id, -1, "no", [1]))
        self.assertEqual(
            self.channel.take()[-1],
            {"jsonrpc": "2.0", "id": "0", "error": {"code": -1, "message": "no", "data": [1]}},
        )

    def test_ids_never_clash(self) -> None:
        """Two servers that ask under the same id are told apart by the client."""
        other = Stage()
        seen = set()
        for stage in (self.stage, self.stage, other):
            stage.upstream._asks._tag = "i1" if stage is self.stage else "i2"
            sink, minted = stage.call(self.ann)
            stage.channel.say(id=0, method="roots/list")
            seen.add(self.shown(sink).id)
            stage.channel.say(id=minted, result={})
        self.assertEqual(len(seen), 3)

    def test_without_a_call(self) -> None:
        """Without a call, the one client that declared the capability is asked."""
        self.channel.say(id=3, method="roots/list")
        (asked,) = self.ann.heard
        assert isinstance(asked, Request)
        self.assertTrue(self.upstream.answer(self.ann, Response(asked.id, {})))

    def test_nobody_can_be_meant(self) -> None:
        """A question that could be for several clients is answered by the gate: never shown."""
        self.stage.call(self.ann)
        self.stage.call(self.bob)
        self.channel.take()
        for method in ("elicitation/create", "vendor/ask"):
            self.channel.say(id=3, method=method)
            (told,) = self.channel.take()
            self.assertEqual((told["id"], told["error"]["code"]), (3, -32601))
        self.assertEqual(self.ann.heard + self.bob.heard, [])

    def test_capability_missing(self) -> None:
        """A client is never asked what it did not declare."""
        sink, _ = self.stage.call(self.ann)
        self.channel.take()
        self.channel.say(id=3, method="sampling/createMessage")
        self.assertEqual(self.channel.take()[0]["error"]["code"], -32601)
        self.assertEqual(sink.delivered, [])
        self.channel.say(id=4, method="vendor/ask")
        self.assertEqual(self.shown(sink).method, "vendor/ask")

    def test_timeout(self) -> None:
        """A client that never answers is given up; both sides are told."""
        sink, _ = self.stage.call(self.ann, timeout_s=1000, max_s=1000)
        self.channel.say(id=3, method="roots/list")
        self.channel.take()
        self.stage.clock.pump([1.0] * 602)
        (told,) = self.channel.take()
        self.assertEqual((told["id"], told["error"]["code"]), (3, -32603))
        asked, cancelled = sink.delivered
        assert isinstance(asked, Request) and isinstance(cancelled, Notification)
        self.assertEqual(cancelled.params, {"requestId": asked.id, "reason": "timeout"})
        self.assertFalse(self.upstream.answer(self.ann, Response(asked.id, {})))

    def test_a_person_may_think(self) -> None:
        """While the client is asked, its call waits up to the hard end."""
        sink, minted = self.stage.call(self.ann, timeout_s=5, max_s=60)
        self.channel.say(id=3, method="elicitation/create")
        self.stage.clock.pump([1.0] * 50)
        self.assertFalse(sink.over)
        self.upstream.answer(self.ann, Response(self.shown(sink).id, {}))
        self.channel.say(id=minted, result={})
        self.assertEqual(sink.answer, Response(1, {}))

    def test_server_takes_it_back(self) -> None:
        """A server's cancellation reaches the client that was asked, under the id it knows."""
        sink, _ = self.stage.call(self.ann)
        self.channel.say(id=3, method="elicitation/create")
        for wrong in ("3", 4, None):
            self.channel.say(method="notifications/cancelled", params={"requestId": wrong})
        self.assertEqual(self.stage.meters.events["stray_reply"], 3)
        self.channel.say(method="notifications/cancelled", params={"requestId": 3})
        asked, cancelled = sink.delivered
        assert isinstance(asked, Request) and isinstance(cancelled, Notification)
        self.assertEqual(cancelled.params, {"requestId": asked.id})

    def test_progress_of_the_client(self) -> None:
        """Progress on the server's request comes back under the server's own token."""
        sink, _ = self.stage.call(self.ann)
        self.channel.say(
            id=3, method="elicitation/create", params={"_meta": {"progressToken": "3"}, "a": 1}
        )
        asked = self.shown(sink)
        self.assertEqual(asked.params, {"_meta": {"progressToken": asked.id}, "a": 1})
        self.channel.take()
        told = Notification("notifications/progress", {"progressToken": asked.id, "progress": 2})
        self.upstream.notify(self.bob, told)
        self.upstream.notify(self.ann, told)
        self.assertEqual(
            [sent["params"] for sent in self.channel.take()],
            [{"progressToken": "3", "progress": 2}],
        )

    def test_leave(self) -> None:
        """When the client that was asked leaves, the server is told."""
        self.channel.say(id=3, method="roots/list")
        self.upstream.leave(self.ann)
        self.assertEqual(self.channel.take()[-1]["error"]["message"], "The client has gone.")

    def test_bound(self) -> None:
        """A server can not pile up questions without end."""
        for id in range(65):
            self.channel.say(id=id, method="roots/list")
        self.assertEqual(len(self.ann.heard), 64)
        self.assertEqual(self.channel.take()[-1]["id"], 64)

    def test_answer_while_the_server_does_not_read(self) -> None:
        """An answer that can not be sent may be given again."""
        self.channel.say(id=3, method="roots/list")
        asked = self.ann.heard[0]
        assert isinstance(asked, Request)
        self.channel.full = True
        self.assertRaises(Overloaded, self.upstream.answer, self.ann, Response(asked.id, {}))
        self.channel.full = False
        self.assertTrue(self.upstream.answer(self.ann, Response(asked.id, {})))


class UnaskedTests(SynchronousTestCase):
    """What the server says without being asked."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.channel = self.stage.channel
        self.ann, self.bob = FakePeer(), FakePeer()
        self.stage.upstream.join(self.ann)
        self.stage.upstream.join(self.bob)

    def test_list_changed(self) -> None:
        """Changed lists are told to every session."""
        self.stage.call(self.ann)
        self.channel.say(method="notifications/tools/list_changed")
        for peer in (self.ann, self.bob):
            self.assertEqual(peer.heard, [Notification("notifications/tools/list_changed")])

    def test_log_in_the_only_call(self) -> None:
        """A log line comes within the only call in work."""
        sink, _ = self.stage.call(self.ann)
        self.channel.say(method="notifications/message", params={"data": "x"})
        self.assertEqual(sink.delivered, [Notification("notifications/message", {"data": "x"})])
        self.assertEqual(self.ann.heard + self.bob.heard, [])

    def test_log_of_one_owner(self) -> None:
        """Of one owner, log lines and unknown notifications go to every session otherwise."""
        self.stage.call(self.ann)
        self.stage.call(self.bob)
        self.channel.say(method="notifications/message", params={"data": "x"})
        self.channel.say(method="notifications/elicitation/complete")
        self.assertEqual(len(self.ann.heard), 2)
        self.assertEqual(self.ann.heard, self.bob.heard)


class StrangersTests(SynchronousTestCase):
    """A shared server: nothing is shown that might be another's."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage(broadcast_logs=False)
        self.channel = self.stage.channel
        self.ann, self.bob = FakePeer("roots"), FakePeer("sampling")
        self.stage.upstream.join(self.ann)
        self.stage.upstream.join(self.bob)

    def log(self) -> None:
        """Have the server log a line."""
        self.channel.say(method="notifications/message", params={"data": "secret"})

    def ask(self) -> int:
        """Have the server ask; give the code it is refused with, else 0."""
        self.channel.take()
        self.channel.say(id=9, method="roots/list")
        sent = self.channel.take()
        return sent[0]["error"]["code"] if sent else 0

    def test_only_call(self) -> None:
        """The only call in work gets logs and questions."""
        sink, _ = self.stage.call(self.ann)
        self.log()
        self.assertEqual(self.ask(), 0)
        self.assertEqual(len(sink.delivered), 2)

    def test_several_or_none(self) -> None:
        """With several calls, or none, nobody hears anything."""
        self.log()
        self.assertEqual(self.ask(), -32601)
        self.stage.call(self.ann)
        self.stage.call(self.bob)
        self.log()
        self.assertEqual(self.ask(), -32601)
        self.assertEqual(self.ann.heard + self.bob.heard, [])
        self.assertEqual(self.stage.meters.events["stdio_unattributed"], 4)

    def test_cancelled_call_still_running(self) -> None:
        """What a cancelled call still causes is not shown to the one whose call is in work."""
        _, minted = self.stage.call(self.ann)
        self.stage.upstream.cancel(self.ann, 1)
        bob, _ = self.stage.call(self.bob, timeout_s=5000, max_s=5000)
        self.log()
        self.assertEqual(self.ask(), -32601)
        self.assertEqual(bob.delivered, [])
        self.channel.say(id=minted, result={})
        self.log()
        self.assertEqual(len(bob.delivered), 1)

    def test_cancelled_call_is_forgotten(self) -> None:
        """After ten minutes a cancelled call counts no more; own cancelled calls never do."""
        self.stage.call(self.ann)
        self.stage.upstream.cancel(self.ann, 1)
        ann, _ = self.stage.call(self.ann, timeout_s=5000, max_s=5000)
        self.log()
        self.assertEqual(len(ann.delivered), 1)
        self.stage.upstream.cancel(self.ann, 1)
        bob, _ = self.stage.call(self.bob, timeout_s=5000, max_s=5000)
        self.stage.clock.pump([1.0] * 602)
        self.log()
        self.assertEqual(len(bob.delivered), 1)

    def test_cancelled_calls_are_bounded(self) -> None:
        """However many calls are cancelled, the memory of them is bounded."""
        for _ in range(1100):
            self.stage.call(self.ann)
            self.stage.upstream.cancel(self.ann, 1)
        self.assertEqual(len(self.stage.upstream._calls._ghosts), 1024)

    def test_one_session(self) -> None:
        """With one session joined and no other's work left, everything is its."""
        self.stage.upstream.leave(self.bob)
        self.log()
        self.assertEqual(self.ask(), 0)
        self.assertEqual(len(self.ann.heard), 2)
        self.stage.call(self.bob)
        self.stage.upstream.leave(self.bob)
        self.log()
        self.assertEqual(len(self.ann.heard), 2)

    def test_no_stderr(self) -> None:
        """A shared server's last words may be about others: they are not shown."""
        sink, _ = self.stage.call(self.ann)
        self.stage.ended.callback(Exit(code=1, stderr_tail=("secret of bob",)))
        assert sink.error is not None
        self.assertNotIn("stderr", sink.error.data)


class StateTests(SynchronousTestCase):
    """Log level and subscriptions."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.channel = self.stage.channel
        self.upstream = self.stage.upstream
        self.ann, self.bob = FakePeer(), FakePeer()

    def subscribe(self, peer: FakePeer, uri: object = "a:b", method: str = "subscribe") -> Any:
        """Subscribe or unsubscribe a session; as `Stage.call`."""
        sink, minted = self.stage.call(peer, f"resources/{method}", {"uri": uri})
        return sink, minted

    def updated(self, uri: object = "a:b") -> tuple[int, int]:
        """Have the server tell of an update; give how often each session heard it."""
        self.ann.heard, self.bob.heard = [], []
        self.channel.say(method="notifications/resources/updated", params={"uri": uri})
        return len(self.ann.heard), len(self.bob.heard)

    def test_counted(self) -> None:
        """The server sees one subscription of a URI, however many sessions have it."""
        _ann, minted = self.subscribe(self.ann)
        self.assertEqual(self.updated(), (1, 0))
        self.channel.say(id=minted, result={})
        bob, sent = self.subscribe(self.bob)
        self.assertEqual((sent, bob.answer), (0, Response(1, {})))
        self.assertEqual(self.updated(), (1, 1))
        self.assertEqual(self.upstream.subscriptions_of(self.ann), ("a:b",))
        gone, sent = self.subscribe(self.ann, method="unsubscribe")
        self.assertEqual((sent, gone.answer), (0, Response(1, {})))
        self.assertEqual(self.updated(), (0, 1))
        gone, sent = self.subscribe(self.bob, method="unsubscribe")
        self.assertNotEqual(sent, 0)
        self.assertEqual(self.updated(), (0, 0))

    def test_refused(self) -> None:
        """A subscription the server refuses is none; a refused call leaves none either."""
        _ann, minted = self.subscribe(self.ann)
        self.channel.say(id=minted, error={"code": 1, "message": "no"})
        self.channel.full = True
        self.subscribe(self.bob)
        self.channel.full = False
        self.assertEqual(self.updated(), (0, 0))
        self.assertEqual(self.upstream.subscriptions_of(self.ann), ())

    def test_below(self) -> None:
        """An update of something below a subscribed URI is told to its subscribers."""
        self.subscribe(self.ann, "file:///a")
        self.subscribe(self.bob, "file:///b/")
        self.assertEqual(self.updated("file:///a/x"), (1, 0))
        self.assertEqual(self.updated("file:///b/x"), (0, 1))
        self.assertEqual(self.updated("file:///ax"), (0, 0))
        self.assertEqual(self.updated(5), (0, 0))

    def test_leave(self) -> None:
        """The last session that leaves takes the subscription with it."""
        for peer in (self.ann, self.bob):
            _, minted = self.subscribe(peer)
            if minted:
                self.channel.say(id=minted, result={})
        self.channel.take()
        self.upstream.leave(self.ann)
        self.assertEqual(self.channel.take(), [])
        self.upstream.leave(self.bob)
        (told,) = self.channel.take()
        self.assertEqual(
            (told["method"], told["params"]), ("resources/unsubscribe", {"uri": "a:b"})
        )
        self.channel.say(id=told["id"], result={})
        self.assertEqual(self.stage.meters.events["stray_reply"], 0)

    def test_nonsense(self) -> None:
        """Malformed requests are the server's to refuse."""
        cases: list[tuple[str, dict[str, object] | None]] = [
            ("resources/subscribe", {"uri": 5}),
            ("resources/unsubscribe", None),
            ("logging/setLevel", {"level": []}),
        ]
        for method, params in cases:
            _, minted = self.stage.call(self.ann, method, params)
            self.assertNotEqual(minted, 0)
            self.channel.say(id=minted, result={})
        self.assertEqual(self.upstream.log_level, "")

    def test_bound(self) -> None:
        """There is a bound on subscriptions."""
        for n in range(1024):
            _, minted = self.subscribe(self.ann, f"a:{n}")
            self.channel.say(id=minted, result={})
        sink, minted = self.subscribe(self.bob, "a:more")
        self.assertIsInstance(sink.error, Overloaded)
        sink, minted = self.subscribe(self.bob, "a:5")
        self.assertEqual(sink.answer, Response(1, {}))

    def test_log_level(self) -> None:
        """The level the server accepted is remembered, a refused one is not."""
        _, minted = self.stage.call(self.ann, "logging/setLevel", {"level": "debug"})
        self.channel.say(id=minted, result={})
        _, minted = self.stage.call(self.ann, "logging/setLevel", {"level": "loud"})
        self.channel.say(id=minted, error={"code": 1, "message": "no"})
        self.assertEqual(self.upstream.log_level, "debug")

    def test_restore(self) -> None:
        """A new server gets back each session's level and subscriptions, once."""
        self.successResultOf(self.upstream.restore(self.ann, "debug", ("a:1", "a:2")))
        sent = self.channel.take()
        self.assertEqual(
            [(m["method"], m["params"]) for m in sent],
            [
                ("logging/setLevel", {"level": "debug"}),
                ("resources/subscribe", {"uri": "a:1"}),
                ("resources/subscribe", {"uri": "a:2"}),
            ],
        )
        self.channel.say(id=sent[0]["id"], result={})
        self.channel.say(id=sent[1]["id"], result={})
        self.channel.say(id=sent[2]["id"], error={"code": 1, "message": "gone"})
        self.upstream.restore(self.bob, "debug", ("a:1",))
        self.assertEqual(self.channel.take(), [])
        self.assertEqual(self.updated("a:1"), (1, 1))
        self.assertEqual(self.updated("a:2"), (0, 0))

    def test_restore_unanswered(self) -> None:
        """What a server never answers is forgotten after a minute."""
        self.upstream.restore(self.ann, "", ("a:1",))
        self.stage.clock.pump([1.0] * 62)
        self.assertEqual(self.updated("a:1"), (0, 0))
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])


class EndTests(SynchronousTestCase):
    """The server ends, or is stopped."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.ann = FakePeer("roots")
        self.stage.upstream.join(self.ann)

    def test_died(self) -> None:
        """Calls in work fail at once and tell how the server ended."""
        first, _ = self.stage.call(self.ann, id=1)
        second, _ = self.stage.call(self.ann, id=2)
        self.stage.channel.say(id=0, method="roots/list")
        self.stage.upstream.restore(self.ann, "debug")
        self.stage.ended.callback(
            Exit(code=3, reason="exited", stderr_tail=("a",) * 20 + ("x" * 500,))
        )
        self.assertEqual(len(self.stage.upstream._asks), 0)
        for sink in (first, second):
            assert isinstance(sink.error, BackendDied)
            data = sink.error.data
            self.assertEqual((data["exitCode"], data["signal"]), (3, None))
            self.assertEqual((data["exitReason"], data["sent"]), ("exited", True))
            self.assertEqual(data["stderr"], ["a"] * 9 + ["x" * 400])
        self.stage.clock.advance(0.5)
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])

    def test_after_the_end(self) -> None:
        """Afterwards calls are refused as never sent, and nothing else has an effect."""
        upstream = self.stage.upstream
        self.stage.ended.callback(Exit(signal=9, reason="killed"))
        self.stage.channel.take()
        sink, _ = self.stage.call(self.ann)
        assert isinstance(sink.error, BackendDied)
        self.assertFalse(was_sent(sink.error))
        upstream.notify(self.ann, Notification("notifications/x"))
        upstream.restore(self.ann, "debug", ("a:b",))
        self.assertEqual(upstream.subscriptions_of(self.ann), ())
        self.assertFalse(upstream.answer(self.ann, Response("i1-1", {})))
        upstream.leave(self.ann)
        self.stage.channel.say(id=1, result={})
        upstream._line(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        upstream.close(Draining())
        self.assertEqual(self.stage.channel.take(), [])

    def test_close(self) -> None:
        """Closing ends every exchange with the given error; a later end changes nothing."""
        sink, _ = self.stage.call(self.ann)
        error = Draining()
        self.stage.upstream.close(error)
        self.assertIdentical(sink.error, error)
        later, _ = self.stage.call(self.ann)
        assert isinstance(later.error, BackendDied)
        self.assertFalse(was_sent(later.error))
        self.stage.ended.callback(Exit())

    def test_lost(self) -> None:
        """When nobody can tell how it ended, calls fail all the same."""
        sink, _ = self.stage.call(self.ann)
        self.stage.ended.errback(RuntimeError("no"))
        assert isinstance(sink.error, BackendDied)
        self.assertEqual(sink.error.data["exitReason"], "lost")
        self.flushLoggedErrors(RuntimeError)

    def test_failing_sink(self) -> None:
        """A bug in one sink does not keep the others waiting."""
        first, _ = self.stage.call(self.ann)
        second, _ = self.stage.call(self.ann)
        first.answer = Response(0, {})
        self.stage.ended.callback(Exit())
        self.assertIsInstance(second.error, BackendDied)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)


steps: Any = st.lists(
    st.tuples(
        st.sampled_from(
            ["call", "call", "answer", "answer", "progress", "log", "cancel", "leave", "detach",
             "stray", "ask", "wait"]
        ),
        st.integers(0, 4),
        st.integers(0, 9),
    ),
    max_size=60,
)  # fmt: skip


class InterleavingTests(SynchronousTestCase):
    """R72: users with identical ids never hear each other."""

    @settings(max_examples=100, deadline=None)
    @given(steps)
    def test_never_crosses(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever order things happen in, each user gets only what is marked as its own."""
        stage = Stage(broadcast_logs=False, max_calls=0)
        peers = [FakePeer("roots") for _ in range(5)]
        for peer in peers:
            stage.upstream.join(peer)
        work: list[tuple[int, int, FakeSink, Any]] = []
        sinks: list[tuple[int, FakeSink]] = []
        for what, user, pick in steps:
            if what == "call":
                sink = FakeSink()
                call = stage.upstream.call(
                    peers[user],
                    Request(1, "tools/call", {"user": user, "_meta": {"progressToken": 1}}),
                    sink,
                    timeout_s=20,
                    max_s=60,
                )
                sinks.append((user, sink))
                self.assertEqual(stage.channel.sent[-1]["params"]["user"], user)
                work.append((call.id, user, sink, call))
            elif what == "leave":
                stage.upstream.leave(peers[user])
            elif what == "cancel":
                stage.upstream.notify(
                    peers[user], Notification("notifications/cancelled", {"requestId": 1})
                )
            elif what == "wait":
                stage.clock.pump([1.0] * pick)
            elif what == "stray":
                stage.channel.say(id=1000 + pick, result={"user": user})
            elif work:
                minted, owner, _, call = work[pick % len(work)]
                if what == "answer":
                    # Also for calls already answered, cancelled or timed out: late, duplicate.
                    stage.channel.say(id=minted, result={"user": owner})
                    if pick % 2:
                        work.pop(pick % len(work))
                elif what == "progress":
                    stage.channel.say(
                        method="notifications/progress",
                        params={"progressToken": minted, "user": owner},
                    )
                elif what == "detach":
                    call.detach()
                elif not call.done:
                    if what == "log":
                        stage.channel.say(method="notifications/message", params={"user": owner})
                    else:
                        stage.channel.say(id=1, method="roots/list", params={"user": owner})
        for user, sink in sinks:
            if isinstance(sink.answer, Response):
                self.assertEqual(sink.answer, Response(1, {"user": user}))
            for message in sink.delivered:
                assert isinstance(message, Notification | Request)
                params = message.params or {}
                self.assertEqual(params.get("user", user), user)
                self.assertIn(params.get("progressToken"), (1, None))
        for user, peer in enumerate(peers):
            for message in peer.heard:
                assert isinstance(message, Notification | Request)
                self.assertEqual((message.params or {}).get("user", user), user)
