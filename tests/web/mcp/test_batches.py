"""Arrays of messages, at 2025-03-26, for servers over HTTP."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import Rate, Transport
from tests.web.endpoint_kit import World, notification, request
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound

PROGRESS: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}


class BatchTests(SynchronousTestCase):
    """Each element goes up by itself; the answers come down together."""

    def setUp(self) -> None:
        """Open a session."""
        self.world = World(Transport.HTTP)
        self.session = self.world.open(version="2025-03-26")
        self.batch = [request("tools/list", 1), request("tools/call", "b"), notification("n/x")]

    def post(self, **options: Any) -> tuple[FakeInbound, Sent, Sent]:
        """Send the array; gives its answer and the two requests the server gets."""
        answer = self.world.post(self.batch, self.session, **options)
        first, second = self.world.server.waiting
        self.world.server.waiting.clear()
        self.assertEqual([first.message["id"], second.message["id"]], [1, "b"])
        return answer, first, second

    def test_json(self) -> None:
        """The array goes up element by element and comes down whole; all slots are given back."""
        answer, first, second = self.post()
        self.assertEqual(self.world.server.heard()[-3], "n/x")
        second.result(n=2)
        self.assertFalse(answer.started)
        first.result(n=1)
        self.assertEqual(
            [(m["id"], m["result"]) for m in answer.json], [("b", {"n": 2}), (1, {"n": 1})]
        )
        self.assertEqual(self.world.leaks(), {})

    def test_events(self) -> None:
        """What belongs to a call makes a stream of it."""
        answer, first, second = self.post()
        first.head()
        first.event(PROGRESS)
        first.event({"jsonrpc": "2.0", "id": 1, "result": {}})
        first.done()
        second.result()
        self.assertEqual([e.get("id") for e in answer.events], [None, 1, "b"])
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_failures(self) -> None:
        """Every request gets its own error, and only those that failed."""
        answer, first, second = self.post()
        first.json({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "no"}}, 400)
        second.head()
        second.fail()
        self.assertEqual(
            [(m["id"], m["error"]["code"]) for m in answer.json], [(1, 1), ("b", -31003)]
        )
        self.assertEqual(self.world.leaks(), {})

    def test_an_answer_that_is_none(self) -> None:
        """What can not be read is an error too: nobody waits for ever."""
        answer, first, second = self.post()
        first.head(200, b"application/json", length=4)
        first.data(b"null")
        first.done()
        second.result()
        self.assertEqual([m["id"] for m in answer.json], [1, "b"])
        self.assertIn("error", answer.json[0])

    def test_cancelled(self) -> None:
        """One of them can be taken back."""
        answer, first, second = self.post()
        self.world.post(notification("notifications/cancelled", requestId="b"), self.session)
        self.assertTrue(second.aborted)
        first.result()
        self.assertEqual({m["id"] for m in answer.json}, {1, "b"})
        self.assertEqual(self.world.leaks(), {})

    def test_nothing_to_answer(self) -> None:
        """Notifications go up one by one; what concerns nobody does not."""
        told = self.world.post(
            [
                notification("notifications/cancelled", requestId="c"),
                notification("n/x"),
                notification("n/y"),
            ],
            self.session,
        )
        self.assertEqual(told.status, 202)
        sent = [s.message for s in self.world.server.all if s.method == "POST"]
        self.assertEqual([m["method"] for m in sent[-2:]], ["n/x", "n/y"])

    def test_a_slow_reader(self) -> None:
        """Pauses all of them; one that has gone holds nobody up."""
        answer, first, second = self.post()
        answer.read_slowly()
        self.assertTrue(first.paused and second.paused)
        answer.catch_up()
        self.assertFalse(first.paused or second.paused)
        answer.read_slowly()
        answer.go()
        self.assertFalse(first.paused or second.paused)
        first.result()
        second.result()
        self.assertEqual(self.world.leaks(), {})

    def test_each_is_charged(self) -> None:
        """An array is no way around the limits: it is refused call by call."""
        world = World(Transport.HTTP, rate=Rate(0.001, 12))
        session = world.open(version="2025-03-26", told=False)
        answer = world.post(self.batch, session)
        self.assertEqual([m["error"]["code"] for m in answer.json], [-31006, -31006])
        self.assertEqual(world.leaks(), {})
