"""Requests to a stdio server, their answers, and taking them back."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import (
    BackendTimeout,
    BadBackendAnswer,
    CallCancelled,
    InvalidParams,
    Overloaded,
    TooLarge,
)
from mcpgate.interfaces import IUpstream
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.upstream.stdio import was_sent
from tests.upstream.stdio_fakes import FakePeer, FakeSink, Stage


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

    def test_answer_that_is_too_large(self) -> None:
        """Of a line over the bound come the two ends: the call is told, wherever the id stands."""
        ends = (
            b'{"jsonrpc":"2.0","id":%d,"result":{"a":"xx\0xx"}}',
            b'{"result":"xx\0xx","id":%d}',
        )
        for remnant in ends:
            sink, minted = self.stage.call(self.ann)
            self.channel.print(remnant % minted)
            self.assertIsInstance(sink.error, TooLarge)
        self.assertEqual(self.stage.meters.events["stdio_noise"], 0)

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
