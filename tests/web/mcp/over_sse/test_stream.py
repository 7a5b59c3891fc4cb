"""Conversations over HTTP+SSE, with stdio and HTTP servers that a test plays."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BackendUnavailable, Overloaded
from mcpgate.model import Isolation, Rate, Transport
from mcpgate.web.mcp.over_sse import stream as sse_stream
from mcpgate.web.mcp.post import Post
from tests.web.endpoint_kit import INIT, World, notification, request
from tests.web.sse_client import SSEClient


def tool(id: int | str, text: str) -> dict[str, object]:
    """Make the answer to a call."""
    return {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}}


class StdioTests(SynchronousTestCase):
    """A server behind pipes."""

    def setUp(self) -> None:
        """Open a session."""
        self.world = World()
        self.client = SSEClient(self.world).open()
        self.child = self.world.child

    def test_a_call_is_answered_on_the_stream(self) -> None:
        """With what belongs to it before: progress, logs, a question to the client."""
        self.client.post(request("tools/call", 7, name="x", _meta={"progressToken": "p"}))
        asked = self.child.sent[-1]
        token = asked["params"]["_meta"]["progressToken"]
        self.child.say(
            method="notifications/progress", params={"progressToken": token, "progress": 1}
        )
        self.child.say(id="r1", method="roots/list")
        question = self.client.heard[-1]
        self.assertEqual(question["method"], "roots/list")
        self.client.post({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
        self.assertEqual(self.child.sent[-1]["id"], "r1")
        self.child.say(id=asked["id"], result={"done": True})
        told = self.client.heard[-3:]
        self.assertEqual(told[0]["params"], {"progressToken": "p", "progress": 1})
        self.assertEqual(told[2], {"jsonrpc": "2.0", "id": 7, "result": {"done": True}})
        self.client.leave()
        self.assertEqual(self.world.leaks(), {})

    def test_what_is_said_unasked(self) -> None:
        """Comes on the same stream, from right after the handshake."""
        self.child.say(method="notifications/tools/list_changed")
        self.assertEqual(self.client.heard[-1]["method"], "notifications/tools/list_changed")

    def test_before_initialize(self) -> None:
        """Only ping is answered; a second initialize is refused; notifications are ignored."""
        client = SSEClient(self.world)
        client.post(notification("notifications/initialized"))
        client.post(request("ping", 1))
        client.call("x", 2)
        self.assertEqual([m.get("error", {}).get("code") for m in client.heard], [None, -32600])
        client.open()
        client.post({**INIT, "id": 9})
        self.assertEqual((client.heard[-1]["id"], client.heard[-1]["error"]["code"]), (9, -32600))

    def test_initialize_needs_its_params(self) -> None:
        """Else it is refused, and may be sent again."""
        client = SSEClient(self.world)
        client.post(request("initialize", 1, capabilities={}))
        self.assertEqual(client.heard[-1]["error"]["code"], -32602)
        client.open()

    def test_a_server_that_can_not_start(self) -> None:
        """Its client hears why under the id of initialize, and may try again."""
        world = World()
        world.pool.error = BackendUnavailable("no license")
        client = SSEClient(world)
        client.post(INIT)
        self.assertEqual((client.heard[-1]["id"], client.heard[-1]["error"]["code"]), (0, -31001))
        self.assertEqual((len(world.sessions), client.stream.finished), (0, False))
        world.pool.error = None
        client.open()
        client.leave()
        self.assertEqual(world.leaks(), {})

    def test_a_server_that_refuses_initialize(self) -> None:
        """Its own words reach the client."""
        world = World()
        client = SSEClient(world)
        client.post(INIT)
        child = world.child
        child.say(id=child.sent[-1]["id"], error={"code": -32602, "message": "too old"})
        self.assertEqual(
            client.heard,
            [{"jsonrpc": "2.0", "id": 0, "error": {"code": -32602, "message": "too old"}}],
        )
        client.leave()
        self.assertEqual(world.leaks(), {})

    def test_leaving_ends_everything(self) -> None:
        """The session is over, its calls are cancelled at the server, nothing is kept."""
        self.client.call("x", 1)
        asked = self.child.sent[-1]["id"]
        self.client.leave()
        self.assertEqual(self.child.sent[-1]["method"], "notifications/cancelled")
        self.assertEqual(self.child.sent[-1]["params"]["requestId"], asked)
        self.child.say(id=asked, result={})
        self.assertEqual((len(self.world.sessions), self.world.leaks()), (0, {}))

    def test_leaving_while_the_server_starts(self) -> None:
        """What was begun for it is given up."""
        world = World()
        world.pool.at_once = False
        client = SSEClient(world)
        client.post(INIT)
        client.leave()
        world.pool.started()
        world.settle()
        self.assertEqual((len(world.sessions), world.leaks()), (0, {}))

    def test_a_child_that_does_not_read_is_left_all_the_same(self) -> None:
        """A cancellation that can not be delivered does no harm."""
        self.client.call("x", 1)
        speaker: Any = self.world.speakers[Transport.STDIO]
        with patch.object(speaker, "tell", side_effect=Overloaded):
            self.client.leave()
        self.assertEqual(len(self.world.sessions), 0)

    def test_cancelled_by_the_client(self) -> None:
        """No answer comes to what was cancelled."""
        before = len(self.client.heard)
        self.client.call("x", 1)
        self.client.post(notification("notifications/cancelled", requestId=1))
        self.assertEqual(self.child.sent[-1]["method"], "notifications/cancelled")
        self.client.post(request("ping", 2))
        self.assertEqual([m["id"] for m in self.client.heard[before:]], [2])

    def test_a_child_that_dies(self) -> None:
        """Each call is answered with an error under its id; the stream stays."""
        self.client.call("x", 1)
        self.world.pool.die()
        self.world.settle()
        self.assertEqual(
            (self.client.heard[-1]["id"], self.client.heard[-1]["error"]["code"]), (1, -31003)
        )
        self.client.call("x", 2)
        self.world.answer_initialize()
        self.world.child.say(id=self.world.child.sent[-1]["id"], result={})
        self.assertEqual(self.client.heard[-1], {"jsonrpc": "2.0", "id": 2, "result": {}})

    def test_sessions_are_nobody_elses_and_not_kept(self) -> None:
        """They are of their principal, never found without an id, and gone after a restart."""
        self.assertEqual(self.world.post(request("ping")).status, 400)
        self.assertEqual(self.successResultOf(self.world.store.load()), [])
        self.assertEqual([s.in_use for s in self.world.sessions], [2])

    def test_the_sessions_end_ends_the_stream(self) -> None:
        """Whoever ends the session ends the stream with it."""
        for session in self.world.sessions:
            self.world.sessions.end(session, "deleted")
        self.assertTrue(self.client.stream.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_draining(self) -> None:
        """An idle stream ends at once, one with calls when they are answered."""
        idle = SSEClient(self.world)
        self.client.call("x", 1)
        self.world.sse.close()
        self.assertEqual((idle.stream.finished, self.client.stream.finished), (True, False))
        self.child.say(id=self.child.sent[-1]["id"], result={})
        self.assertEqual(self.client.heard[-1]["id"], 1)
        self.assertTrue(self.client.stream.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_silence(self) -> None:
        """Comments keep the stream alive; one on which nobody says initialize is ended."""
        other = SSEClient(self.world)
        self.world.pass_time(31)
        self.assertEqual(self.client.stream.body.count(b": keepalive\n\n"), 2)
        self.world.pass_time(sse_stream.OPENING_S)
        self.assertEqual((other.stream.finished, self.client.stream.finished), (True, False))

    def test_batches(self) -> None:
        """Only of revision 2025-03-26; each element is charged and answered by itself."""
        client = SSEClient(self.world, key="k2").open("2025-03-26")
        child = self.world.child
        client.post([request("tools/list", 1), notification("x"), request("tools/list", 2)])
        first, second = [m for m in child.sent if m.get("method") == "tools/list"][-2:]
        child.say(id=second["id"], result={"n": 2})
        child.say(id=first["id"], result={"n": 1})
        self.assertEqual(
            {m["id"]: m["result"] for m in client.heard[-2:]}, {1: {"n": 1}, 2: {"n": 2}}
        )

    def test_limits(self) -> None:
        """A refusal is an error on the stream; too many notifications are dropped."""
        world = World(rate=Rate(0.001, 14))
        client = SSEClient(world).open()
        for id in range(1, 6):
            client.post(request("ping", id))
        self.assertEqual(client.heard[-1]["error"]["code"], -31006)
        self.assertIn("retryAfterMs", client.heard[-1]["error"]["data"])
        for _ in range(100):
            client.post(notification("notifications/roots/list_changed"))
        self.assertGreater(world.meters.events["messages_dropped"], 0)
        client.leave()
        self.assertEqual(world.leaks(), {})

    def test_too_many_in_work(self) -> None:
        """A call beyond the bound of its key is refused under its id."""
        world = World(concurrent=1)
        client = SSEClient(world).open()
        client.call("x", 1)
        client.call("x", 2)
        self.assertEqual((client.heard[-1]["id"], client.heard[-1]["error"]["code"]), (2, -31005))

    def test_too_many_sessions(self) -> None:
        """A session that can not be made is refused, and may be asked for later."""
        world = World(streams=9)
        clients = [SSEClient(world).open() for _ in range(4)]
        last = SSEClient(world)
        last.post(INIT)
        self.assertEqual(last.heard[-1]["error"]["code"], -31005)
        clients[0].leave()
        last.open()

    def test_clients_of_one_child_stay_apart(self) -> None:
        """The same ids on two streams of a shared server: nothing crosses (R72)."""
        world = World(isolation=Isolation.SHARED)
        one, two = SSEClient(world).open(), SSEClient(world, key="k2").open()
        one.call("x", 1, marker="one")
        two.call("x", 1, marker="two")
        for asked in list(world.child.sent):
            if asked.get("method") == "tools/call":
                world.child.say(id=asked["id"], result={"of": asked["params"]["marker"]})
        self.assertEqual(one.heard[-1]["result"], {"of": "one"})
        self.assertEqual(two.heard[-1]["result"], {"of": "two"})


class SlowReaderTests(SynchronousTestCase):
    """A client that does not read its stream."""

    def setUp(self) -> None:
        """Open a session whose client reads no more."""
        self.world = World()
        self.client = SSEClient(self.world).open()
        self.client.stream.read_slowly()

    def test_what_came_meanwhile_comes_later(self) -> None:
        """In order, once the client reads on."""
        before = len(self.client.heard)
        for id in (1, 2):
            self.client.post(request("ping", id))
        self.assertEqual(len(self.client.heard), before)
        self.client.stream.catch_up()
        self.assertEqual([m["id"] for m in self.client.heard[before:]], [1, 2])

    def test_notifications_are_dropped_and_calls_refused_in_the_end(self) -> None:
        """Answers are kept; whoever asks for more is told to read."""
        self.client.post(request("tools/call", 1, name="x", _meta={"progressToken": 1}))
        child = self.world.child
        asked = child.sent[-1]
        token = asked["params"]["_meta"]["progressToken"]
        for _ in range(3):
            child.say(
                method="notifications/progress",
                params={"progressToken": token, "progress": 1, "message": "x" * 700_000},
            )
        child.say(id=asked["id"], result={"done": True})
        self.assertEqual(self.world.meters.events["messages_dropped"], 1)
        path, _, query = self.client.endpoint.partition("?")
        refused = self.world.ask(
            "POST", request("ping", 2), path=path.encode(), query=query.encode()
        )
        self.assertEqual((refused.status, refused.fields[b"retry-after"]), (503, b"1"))
        self.client.stream.catch_up()
        self.assertEqual(self.client.heard[-1]["result"], {"done": True})

    def test_answers_have_a_bound_too(self) -> None:
        """Beyond it the stream is cut, and with it the session."""
        self.patch(sse_stream, "QUEUE_MAX_BYTES", 1000)
        for id in range(30):
            if not self.client.stream.finished:
                self.client.post(request("ping", id))
        self.assertTrue(self.client.stream.aborted)
        self.assertEqual((len(self.world.sessions), self.world.leaks()), (0, {}))


class HTTPTests(SynchronousTestCase):
    """A server that listens."""

    def setUp(self) -> None:
        """Open a session."""
        self.world = World(Transport.HTTP)
        self.client = SSEClient(self.world).open()
        self.server = self.world.server
        self.listen = self.server.take()

    def test_the_handshake(self) -> None:
        """The server sees a session, and a stream for what is said unasked."""
        self.assertEqual(self.server.heard(), ["initialize", "notifications/initialized", "GET"])
        self.listen.head()
        self.listen.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        self.assertEqual(self.client.heard[-1]["method"], "notifications/tools/list_changed")

    def test_a_server_without_a_stream(self) -> None:
        """Its refusal of the GET is not told."""
        before = self.client.heard
        self.listen.empty(405)
        self.assertEqual(self.client.heard, before)
        self.client.call("x", 1)
        self.server.take().result(ok=True)
        self.assertEqual(self.client.heard[-1], {"jsonrpc": "2.0", "id": 1, "result": {"ok": True}})

    def test_answers_in_either_form(self) -> None:
        """JSON and event streams both become events of the one stream."""
        self.client.call("x", 1)
        self.server.take().json(tool(1, "line\nbreak"))
        self.assertEqual(self.client.heard[-1], tool(1, "line\nbreak"))
        self.client.call("x", 2)
        sent = self.server.take()
        sent.head()
        sent.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "m"}})
        sent.event(tool(2, "method"))
        sent.done()
        self.assertEqual(self.client.heard[-2]["method"], "notifications/message")
        self.assertEqual(self.client.heard[-1], tool(2, "method"))

    def test_an_answer_beyond_what_is_looked_into(self) -> None:
        """Passes as it came."""
        self.client.call("x", 1)
        deep = {"jsonrpc": "2.0", "id": 1, "result": {"method": list(range(100_001))}}
        self.server.take().json(deep)
        self.assertEqual(self.client.heard[-1], deep)

    def test_an_error_without_an_id(self) -> None:
        """It is the answer to the one call it came for."""
        self.client.call("x", 1)
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "no"}}
        self.server.take().json(error, 400)
        self.assertEqual(
            (self.client.heard[-1]["id"], self.client.heard[-1]["error"]["code"]), (1, -32000)
        )

    def test_an_answer_that_is_cut(self) -> None:
        """The call is answered with an error."""
        self.client.call("x", 1)
        sent = self.server.take()
        sent.head()
        sent.fail(BackendDied())
        self.assertEqual(
            (self.client.heard[-1]["id"], self.client.heard[-1]["error"]["code"]), (1, -31003)
        )
        # A stream that ends without the answer, and whose rest can not be asked for.
        self.client.call("x", 2)
        sent = self.server.take()
        sent.head()
        sent.event(None, id="e" * 5000)
        sent.done()
        self.assertEqual(
            (self.client.heard[-1]["id"], self.client.heard[-1]["error"]["code"]), (2, -31003)
        )

    def test_a_slow_reader_pauses_the_server(self) -> None:
        """Calls in work and the standing stream, and new ones too."""
        self.listen.head()
        self.client.call("x", 1)
        first = self.server.take()
        self.client.stream.read_slowly()
        self.client.call("x", 2)
        second = self.server.take()
        self.assertEqual((first.paused, second.paused, self.listen.paused), (True, True, True))
        self.client.stream.catch_up()
        self.assertEqual((first.paused, second.paused, self.listen.paused), (False, False, False))

    def test_leaving_ends_everything(self) -> None:
        """The server is told of the cancelled call and of the session's end."""
        self.listen.head()
        self.client.call("x", 1)
        self.client.leave()
        told = [s.message for s in self.server.all if s.method == "POST"]
        self.assertEqual(told[-1]["method"], "notifications/cancelled")
        self.assertEqual(self.server.all[-1].method, "DELETE")
        self.assertTrue(self.listen.aborted)
        self.assertEqual((len(self.world.sessions), self.world.leaks()), (0, {}))

    def test_a_batch(self) -> None:
        """One event for each answer, also where an array comes."""
        world = World(Transport.HTTP)
        client = SSEClient(world).open("2025-03-26")
        world.server.take().empty(405)
        client.post([request("a", 1), request("b", 2)])
        world.server.take().json([tool(1, "a")])
        world.server.take().json(tool(2, "b"))
        self.assertEqual(client.heard[-2:], [tool(1, "a"), tool(2, "b")])

    def test_a_stream_that_can_not_be_listened_to(self) -> None:
        """A failure to listen is no failure of the call that caused it."""
        world = World(Transport.HTTP)
        client = SSEClient(world)
        speaker: Any = world.speakers[Transport.HTTP]
        with patch.object(speaker, "listen", side_effect=BackendUnavailable):
            client.open()
            client.call("x", 1)
        world.server.take().result(ok=True)
        self.assertEqual(client.heard[-1]["result"], {"ok": True})
        client.leave()
        self.assertEqual(world.leaks(), {})

    def test_a_call_that_can_not_be_begun(self) -> None:
        """Is refused under its id, and nothing waits for it."""
        speaker: Any = self.world.speakers[Transport.HTTP]

        def refuse(post: Post, session: object) -> None:
            post.release()
            raise BackendUnavailable("not now")

        with patch.object(speaker, "call", refuse):
            self.client.call("x", 3)
        self.assertEqual(self.client.heard[-1]["error"]["message"], "not now")
        self.client.leave()
        self.assertEqual(self.world.leaks(), {})
