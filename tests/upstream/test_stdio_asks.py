"""What a stdio server asks its clients."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    Overloaded,
)
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from tests.upstream.stdio_fakes import FakePeer, FakeSink, Stage


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
