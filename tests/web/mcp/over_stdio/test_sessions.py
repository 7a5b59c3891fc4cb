"""Conversations with stdio servers through the endpoint."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendUnavailable, Starting
from mcpgate.model import Isolation, Owner, Rate
from tests.web.endpoint_kit import INIT, World, notification, request


class OpeningTests(SynchronousTestCase):
    """How a session begins."""

    def test_initialize_gives_the_childs_answer_and_a_session_id_of_the_gate(self) -> None:
        """A client gets the child's capabilities, and an id that is not the child's."""
        world = World()
        answer = world.post(INIT)
        self.assertEqual(answer.status, 0)
        world.answer_initialize()
        self.assertEqual(answer.json["id"], 0)
        self.assertEqual(answer.json["result"]["protocolVersion"], "2025-11-25")
        self.assertTrue(answer.fields[b"mcp-session-id"].startswith(b"gate-"))
        self.assertEqual(world.leaks(), {})

    def test_the_second_session_of_a_key_joins_the_child(self) -> None:
        """Two sessions of one key share a child, which is initialized once."""
        world = World()
        world.open()
        world.child.take()
        second = world.post({**INIT, "id": "x"})
        self.assertEqual(second.json["id"], "x")
        self.assertEqual(world.child.take(), [])
        self.assertEqual(len(world.pool.instances), 1)

    def test_another_key_gets_another_child(self) -> None:
        """Two keys never share a child."""
        world = World()
        world.open()
        world.open(key="k2")
        self.assertEqual(len(world.pool.instances), 2)

    def test_the_older_revision_counts(self) -> None:
        """An old client of a new child is answered in its own revision, and the reverse."""
        world = World()
        answer = world.post({**INIT, "params": {**INIT["params"], "protocolVersion": "2025-03-26"}})
        world.answer_initialize("2025-11-25")
        self.assertEqual(answer.json["result"]["protocolVersion"], "2025-03-26")
        world = World()
        answer = world.post(INIT)
        world.answer_initialize("2025-06-18")
        self.assertEqual(answer.json["result"]["protocolVersion"], "2025-06-18")

    def test_a_child_of_one_session_hears_that_sessions_revision(self) -> None:
        """Per-session children are asked for the client's own revision."""
        world = World(isolation=Isolation.PER_SESSION)
        world.post({**INIT, "params": {**INIT["params"], "protocolVersion": "2025-03-26"}})
        self.assertEqual(world.child.sent[0]["params"]["protocolVersion"], "2025-03-26")

    def test_a_child_that_refuses_is_quoted(self) -> None:
        """The child's own error reaches the client under the client's id, without a session."""
        world = World()
        answer = world.post({**INIT, "id": "mine"})
        asked = world.child.take()[0]
        world.child.say(id=asked["id"], error={"code": -32602, "message": "too old"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json["id"], "mine")
        self.assertEqual(answer.json["error"], {"code": -32602, "message": "too old"})
        self.assertNotIn(b"mcp-session-id", answer.fields)
        self.assertEqual(len(world.sessions), 0)
        self.assertEqual(world.leaks(), {})

    def test_a_server_that_can_not_start_is_an_http_error(self) -> None:
        """Without a session the HTTP status tells the failure, Retry-After included."""
        world = World()
        world.pool.error = BackendUnavailable(retry_after_s=3)
        answer = world.post(INIT)
        self.assertEqual((answer.status, answer.fields[b"retry-after"]), (503, b"3"))
        self.assertEqual(answer.json["error"]["code"], -31001)
        self.assertEqual(len(world.sessions), 0)
        world.pass_time(60)
        self.assertEqual(world.leaks(), {})

    def test_a_slow_start_shows_life(self) -> None:
        """While the server starts the client gets comments, then its answer as an event."""
        world = World()
        world.pool.at_once = False
        answer = world.post(INIT)
        world.pass_time(40)
        self.assertTrue(answer.is_stream)
        self.assertEqual(answer.body.count(b": keepalive\n\n"), 2)
        self.assertIn(b"mcp-session-id", answer.fields)
        world.pool.started()
        world.answer_initialize()
        self.assertEqual(answer.events[0]["result"]["protocolVersion"], "2025-11-25")
        self.assertTrue(answer.finished)
        self.assertEqual(world.leaks(), {})

    def test_a_slow_start_that_fails_is_told_in_the_stream(self) -> None:
        """Once the stream is open a failure is its last event."""
        world = World()
        world.pool.at_once = False
        answer = world.post(INIT)
        world.pass_time(20)
        world.pool.started(Starting(retry_after_s=3))
        self.assertEqual(answer.events[0]["error"]["code"], -31004)
        self.assertTrue(answer.finished)
        self.assertEqual(len(world.sessions), 0)

    def test_a_session_revoked_while_it_opens_is_not_given(self) -> None:
        """A key that is revoked during the start gets no session."""
        world = World()
        world.pool.at_once = False
        answer = world.post(INIT)
        (session,) = world.sessions
        world.sessions.end(session, "revoked")
        world.pool.started()
        self.assertEqual(answer.json["error"]["code"], -31010)
        self.assertEqual(world.leaks(), {})

    def test_a_cold_start_is_paid_once(self) -> None:
        """Who causes a start pays for it; who joins the wait does not."""
        world = World(rate=Rate(0.001, 15.0))
        world.pool.at_once = False
        first, second = world.post(INIT), world.post(INIT)
        world.pool.started()
        world.answer_initialize()
        self.assertEqual([first.status, second.status], [200, 200])
        refused = World(rate=Rate(0.001, 5.0), concurrent=1).post(INIT)
        self.assertEqual(refused.status, 429)
        self.assertEqual(refused.json["error"]["code"], -31006)


class CallTests(SynchronousTestCase):
    """Calls on a live session."""

    @override
    def setUp(self) -> None:
        self.world = World()
        self.session = self.world.open()
        self.world.child.take()

    def test_an_answer_is_json_under_the_clients_id(self) -> None:
        """A call that streams nothing is answered with plain JSON."""
        answer = self.world.post(request("tools/call", "abc", name="x"), self.session)
        (asked,) = self.world.child.take()
        self.assertNotEqual(asked["id"], "abc")
        self.world.child.say(id=asked["id"], result={"content": []})
        self.assertEqual(answer.json, {"jsonrpc": "2.0", "id": "abc", "result": {"content": []}})
        self.assertEqual(self.world.leaks(), {})

    def test_progress_opens_a_stream(self) -> None:
        """A call that reports progress becomes an event stream that ends with the answer."""
        answer = self.world.post(
            request("tools/call", 1, name="x", _meta={"progressToken": "p"}), self.session
        )
        (asked,) = self.world.child.take()
        self.world.child.say(
            method="notifications/progress", params={"progressToken": asked["id"], "progress": 1}
        )
        self.assertEqual(answer.events[0]["params"]["progressToken"], "p")
        self.world.child.say(id=asked["id"], result={})
        self.assertEqual(answer.events[1]["result"], {})
        self.assertTrue(answer.finished)

    def test_a_json_only_client_never_gets_a_stream(self) -> None:
        """Who accepts only JSON waits in silence and gets JSON; requests go to its stream."""
        listening = self.world.get(self.session)
        answer = self.world.post(
            request("tools/call", 1, name="x"), self.session, accept=b"application/json"
        )
        (asked,) = self.world.child.take()
        self.world.pass_time(20)
        self.world.child.say(id=7, method="roots/list")
        self.assertEqual(listening.events[-1]["method"], "roots/list")
        self.world.child.say(id=asked["id"], result={})
        self.assertEqual(answer.json["result"], {})

    def test_a_stream_only_client_always_gets_a_stream(self) -> None:
        """Who accepts only event streams gets even a plain answer and a ping as an event."""
        answer = self.world.post(request("tools/list"), self.session, accept=b"text/event-stream")
        self.world.child.say(id=self.world.child.take()[0]["id"], result={"tools": []})
        self.assertEqual(answer.events[0]["result"], {"tools": []})
        ping = self.world.post(request("ping", 9), self.session, accept=b"text/event-stream")
        self.assertEqual(ping.events, [{"jsonrpc": "2.0", "id": 9, "result": {}}])

    def test_a_ping_is_answered_here(self) -> None:
        """A ping does not reach the child, nor start one."""
        self.world.pool.die()
        answer = self.world.post(request("ping", 9), self.session)
        self.assertEqual(answer.json, {"jsonrpc": "2.0", "id": 9, "result": {}})
        self.assertEqual(len(self.world.pool.instances), 1)

    def test_initialized_is_swallowed(self) -> None:
        """The child hears ``initialized`` once, from the gate."""
        answer = self.world.post(notification("notifications/initialized"), self.session)
        self.assertEqual((answer.status, answer.body), (202, b""))
        self.assertEqual(self.world.child.take(), [])

    def test_cancelled_ends_the_call(self) -> None:
        """A cancelled call is over at once, and the child is told under its own id."""
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        (asked,) = self.world.child.take()
        told = self.world.post(notification("notifications/cancelled", requestId=5), self.session)
        self.assertEqual(told.status, 202)
        self.assertEqual(answer.json["error"]["code"], -31010)
        (cancelled,) = self.world.child.take()
        self.assertEqual(cancelled["params"]["requestId"], asked["id"])
        self.assertEqual(self.world.leaks(), {})

    def test_a_cancelled_stream_just_ends(self) -> None:
        """Where a stream is open nothing more is said of a cancelled call."""
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        self.world.pass_time(16)
        before = answer.body
        self.world.post(notification("notifications/cancelled", requestId=5), self.session)
        self.assertEqual(answer.body, before)
        self.assertTrue(answer.finished)

    def test_a_call_is_cancelled_while_its_child_starts(self) -> None:
        """Cancelling works before the child is there; the child never hears of the call."""
        self.world.pool.die()
        self.world.pool.at_once = False
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        self.world.post(notification("notifications/cancelled", requestId=6), self.session)
        self.assertFalse(answer.finished)
        self.world.post(notification("notifications/cancelled", requestId=5), self.session)
        self.assertEqual(answer.json["error"]["code"], -31010)
        self.world.pool.started()
        self.world.answer_initialize()
        heard = [m["method"] for m in self.world.child.take()]
        self.assertEqual(heard, ["notifications/initialized"])
        self.assertEqual(self.world.leaks(), {})

    def test_a_start_that_fails_after_the_cancel_is_nobodys(self) -> None:
        """What becomes of a start does not reach a call that is over."""
        self.world.pool.die()
        self.world.pool.at_once = False
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        self.world.post(notification("notifications/cancelled", requestId=5), self.session)
        self.world.pool.started(BackendUnavailable())
        self.assertEqual(answer.json["error"]["code"], -31010)
        self.assertEqual(self.world.leaks(), {})

    def test_a_failure_is_told_with_status_200(self) -> None:
        """A refusal on a live session is an error under the call's id; the session lives on."""
        self.world.pool.die()
        self.world.pool.error = BackendUnavailable(retry_after_s=2)
        answer = self.world.post(request("tools/list", 3), self.session)
        self.assertEqual((answer.status, answer.fields[b"retry-after"]), (200, b"2"))
        self.assertEqual((answer.json["id"], answer.json["error"]["code"]), (3, -31001))
        self.assertEqual(self.world.leaks(), {})

    def test_the_client_goes_and_the_call_runs_on(self) -> None:
        """In the legacy era a disconnect cancels nothing; slot and lease stay until the end."""
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        (asked,) = self.world.child.take()
        answer.go()
        self.assertEqual(self.world.child.take(), [])
        self.assertEqual(self.world.leaks()["slots"], 1)
        self.world.child.say(id=asked["id"], result={})
        self.assertEqual(self.world.leaks(), {})

    def test_a_busy_child_is_overloaded(self) -> None:
        """A notification to a child that does not read is refused, and nothing leaks."""
        self.world.child.full = True
        answer = self.world.post(notification("notifications/roots/list_changed"), self.session)
        self.assertEqual((answer.status, answer.json["error"]["code"]), (503, -31005))
        call = self.world.post(request("tools/list"), self.session)
        self.assertEqual((call.status, call.json["error"]["code"]), (200, -31005))
        self.assertEqual(self.world.leaks(), {})

    def test_a_bug_is_an_internal_error(self) -> None:
        """An unforeseen failure is told without a traceback, and nothing leaks."""

        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError

        self.world.pool.newest.upstream.call = broken
        answer = self.world.post(request("tools/list", 4), self.session)
        self.assertEqual((answer.json["id"], answer.json["error"]["code"]), (4, -32603))
        self.assertNotIn(b"Zero", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.world.leaks(), {})


class BatchTests(SynchronousTestCase):
    """Arrays of messages, at 2025-03-26."""

    @override
    def setUp(self) -> None:
        self.world = World()
        self.session = self.world.open(version="2025-03-26")
        self.world.child.take()

    def test_a_batch_is_answered_as_a_batch(self) -> None:
        """Each request is answered; notifications are not."""
        batch = [request("tools/list", 1), request("ping", "b"), notification("n/x")]
        answer = self.world.post(batch, self.session)
        sent = {m.get("method"): m.get("id") for m in self.world.child.take()}
        self.world.child.say(id=sent["ping"], result={})
        self.world.child.say(id=sent["tools/list"], error={"code": 1, "message": "no"})
        self.assertEqual([m["id"] for m in answer.json], ["b", 1])
        self.assertEqual(self.world.leaks(), {})

    def test_a_batch_in_a_stream_is_answered_one_by_one(self) -> None:
        """Answers that are there when the stream opens come first, each as an event."""
        answer = self.world.post([request("a", 1), request("b", 2)], self.session)
        first, second = [m["id"] for m in self.world.child.take()]
        self.world.child.say(id=first, result={"n": 1})
        self.world.pass_time(16)
        self.world.child.say(id=second, result={"n": 2})
        self.assertEqual([m["result"]["n"] for m in answer.events], [1, 2])
        self.assertTrue(answer.finished)

    def test_one_call_of_a_streamed_batch_is_cancelled(self) -> None:
        """The others go on."""
        answer = self.world.post([request("a", 1), request("b", 2)], self.session)
        _, second = [m["id"] for m in self.world.child.take()]
        self.world.pass_time(16)
        self.world.post(notification("notifications/cancelled", requestId=1), self.session)
        self.assertFalse(answer.finished)
        self.world.child.say(id=second, result={})
        self.assertEqual([m["id"] for m in answer.events], [2])
        self.assertTrue(answer.finished)

    def test_an_overloaded_batch_gives_its_slots_back(self) -> None:
        """A batch that can not be passed on is refused call by call; nothing leaks."""
        self.world.child.full = True
        batch = [request("a", 1), request("b", 2), notification("n/x")]
        answer = self.world.post(batch, self.session)
        self.assertEqual(answer.status, 200)
        self.assertEqual([m["id"] for m in answer.json], [1, 2])
        self.assertEqual(answer.json[0]["error"]["code"], -31005)
        self.assertEqual(self.world.leaks(), {})

    def test_illegal_batches_are_refused(self) -> None:
        """``initialize`` in a batch and doubled ids are errors."""
        self.assertEqual(self.world.post([INIT], self.session).status, 400)
        doubled = [request("a", 1), request("b", 1)]
        self.assertEqual(self.world.post(doubled, self.session).status, 400)

    def test_newer_revisions_know_no_batches(self) -> None:
        """Only sessions of 2025-03-26 may send arrays."""
        world = World()
        answer = world.post([request("tools/list")], world.open())
        self.assertEqual((answer.status, answer.json["error"]["code"]), (400, -32600))


class DeathTests(SynchronousTestCase):
    """The child ends, or the gate."""

    @override
    def setUp(self) -> None:
        self.world = World()
        self.session = self.world.open()
        self.world.child.take()

    def test_a_tool_call_fails_at_once_and_is_never_repeated(self) -> None:
        """A tool may have run: the client is told in the same turn."""
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        self.world.pool.die()
        self.assertEqual(answer.json["error"]["code"], -31003)
        self.assertEqual(answer.json["error"]["data"]["exitCode"], 1)
        self.world.settle()
        self.assertEqual(len(self.world.pool.instances), 1)
        self.assertEqual(self.world.leaks(), {})

    def test_a_list_is_repeated_once(self) -> None:
        """A request without effects goes to the next child; dying twice is told."""
        answer = self.world.post(request("tools/list", 5), self.session)
        self.world.pool.die()
        self.world.settle()
        self.world.answer_initialize()
        asked = self.world.child.take()[-1]
        self.assertEqual(asked["method"], "tools/list")
        self.world.child.say(id=asked["id"], result={"tools": []})
        self.assertEqual(answer.json["result"], {"tools": []})
        answer = self.world.post(request("tools/list", 6), self.session)
        self.world.pool.die()
        self.world.settle()
        self.world.answer_initialize()
        self.world.pool.die()
        self.assertEqual(answer.json["error"]["code"], -31003)
        self.assertEqual(self.world.leaks(), {})

    def test_a_list_is_not_repeated_for_nobody(self) -> None:
        """When the client has gone a dead child is not started again."""
        answer = self.world.post(request("tools/list", 5), self.session)
        answer.go()
        self.world.pool.die()
        self.world.settle()
        self.assertEqual(len(self.world.pool.instances), 1)
        self.assertEqual(self.world.leaks(), {})

    def test_a_child_that_refuses_its_handshake_fails_the_call(self) -> None:
        """The client is told why, under its call's id, and its session stays."""
        self.world.pool.die()
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        asked = self.world.child.take()[0]
        self.world.child.say(id=asked["id"], error={"code": 1, "message": "no licence"})
        self.assertEqual((answer.status, answer.json["id"]), (200, 5))
        self.assertIn("no licence", answer.json["error"]["message"])
        self.assertEqual(self.world.leaks(), {})
        self.assertEqual(self.world.post(request("ping"), self.session).status, 200)

    def test_a_session_that_was_asleep_joins_the_running_child(self) -> None:
        """The child was started again by another session of the key."""
        other = self.world.open()
        self.world.pool.die()
        self.world.post(request("tools/list"), other)
        self.world.answer_initialize()
        self.world.child.take()
        self.world.post(request("tools/call", 5, name="x"), self.session)
        self.assertEqual([m["method"] for m in self.world.child.take()], ["tools/call"])

    def test_a_retry_can_be_cancelled(self) -> None:
        """Between two tries a call can still be taken back."""
        answer = self.world.post(request("tools/list", 5), self.session)
        self.world.pool.die()
        self.world.sessions.end(self.world.session(self.session), "deleted")
        self.world.settle()
        self.assertEqual(answer.json["error"]["code"], -31010)
        self.assertEqual(len(self.world.pool.instances), 1)
        self.assertEqual(self.world.leaks(), {})

    def test_the_next_child_learns_everything(self) -> None:
        """Handshake, log level and subscriptions are replayed; the session id stays."""
        for number, (method, params) in enumerate(
            [
                ("logging/setLevel", {"level": "debug"}),
                ("resources/subscribe", {"uri": "a://1"}),
                ("resources/subscribe", {"uri": "a://2"}),
                ("resources/unsubscribe", {"uri": "a://1"}),
            ]
        ):
            answer = self.world.post(request(method, number, **params), self.session)
            self.world.child.say(id=self.world.child.take()[0]["id"], result={})
            self.assertEqual(answer.json["result"], {})
        refused = self.world.post(request("resources/subscribe", 9, uri="a://3"), self.session)
        asked = self.world.child.take()[0]
        self.world.child.say(id=asked["id"], error={"code": -32002, "message": "no"})
        self.assertIn("error", refused.json)
        self.world.pool.die()
        answer = self.world.post(request("tools/list", 5), self.session)
        self.world.answer_initialize()
        heard = [(m["method"], m.get("params", {})) for m in self.world.child.take()]
        self.assertEqual(
            heard,
            [
                ("notifications/initialized", {}),
                ("logging/setLevel", {"level": "debug"}),
                ("resources/subscribe", {"uri": "a://2"}),
                ("tools/list", {}),
            ],
        )

    def test_a_restart_of_the_gate_changes_nothing(self) -> None:
        """A session out of the store works with its first call."""
        answer = self.world.post(request("logging/setLevel", 1, level="info"), self.session)
        self.world.child.say(id=self.world.child.take()[0]["id"], result={})
        self.assertEqual(answer.status, 200)
        world = World(store=self.world.store)
        self.successResultOf(world.sessions.load())
        answer = world.post(request("tools/list", 5), self.session)
        world.answer_initialize()
        heard = [m["method"] for m in world.child.sent]
        self.assertEqual(heard, ["notifications/initialized", "logging/setLevel", "tools/list"])
        self.assertEqual(world.session(self.session).capabilities, {"roots": {}})
        world.child.say(id=world.child.sent[-1]["id"], result={"tools": []})
        self.assertEqual(answer.json["result"], {"tools": []})

    def test_without_a_child_notifications_and_answers_are_dropped(self) -> None:
        """None of them is worth a start."""
        self.world.pool.die()
        for message in (
            notification("notifications/roots/list_changed"),
            {"jsonrpc": "2.0", "id": "x", "result": {}},
        ):
            self.assertEqual(self.world.post(message, self.session).status, 202)
        self.assertEqual(len(self.world.pool.instances), 1)
        self.assertEqual(self.world.leaks(), {})


class StreamTests(SynchronousTestCase):
    """What a client's GET opens."""

    @override
    def setUp(self) -> None:
        self.world = World()
        self.session = self.world.open()

    def test_what_the_child_says_unasked_is_kept_for_the_stream(self) -> None:
        """What came before the stream comes first; a client's answer finds the child."""
        self.world.child.say(id=7, method="roots/list")
        stream = self.world.get(self.session)
        self.assertEqual(stream.status, 200)
        asked = stream.events[0]
        self.assertEqual(asked["method"], "roots/list")
        self.world.child.take()
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}
        self.assertEqual(self.world.post(answer, self.session).status, 202)
        self.assertEqual(self.world.child.take()[0]["id"], 7)
        self.world.child.say(method="notifications/tools/list_changed")
        self.assertEqual(stream.events[1]["method"], "notifications/tools/list_changed")

    def test_the_backlog_is_bounded(self) -> None:
        """Of many messages nobody fetched the newest are kept."""
        for number in range(40):
            self.world.child.say(method="notifications/message", params={"data": number})
        events = self.world.get(self.session).events
        self.assertEqual([e["params"]["data"] for e in events], list(range(8, 40)))
        self.assertEqual(len(self.world.get(self.session).body), len(b": open\n\n"))

    def test_a_large_backlog_is_bounded(self) -> None:
        """One message that is larger than the whole backlog is not kept."""
        text = "x" * 40_000
        self.world.child.say(method="notifications/message", params={"data": text})
        self.assertEqual(self.world.get(self.session).events, [])

    def test_a_newer_stream_replaces_the_older(self) -> None:
        """A client that comes back before its old connection is seen dead gets the stream."""
        old = self.world.get(self.session)
        new = self.world.get(self.session)
        self.assertTrue(old.finished)
        self.world.child.say(method="notifications/tools/list_changed")
        self.assertEqual(len(new.events), 1)
        self.assertEqual(self.world.leaks(), {"streams": 1, "stream slots": 1, "in use": 1})
        new.go()
        self.assertEqual(self.world.leaks(), {})
        self.world.pass_time(60)
        self.assertFalse(self.world.clock.getDelayedCalls())

    def test_a_silent_stream_shows_life(self) -> None:
        """A comment comes every 15 s, at once after the first byte."""
        stream = self.world.get(self.session)
        self.assertEqual(stream.body, b": open\n\n")
        self.world.pass_time(47)
        self.assertEqual(stream.body.count(b": keepalive"), 3)

    def test_a_slow_reader_is_not_flooded(self) -> None:
        """While the client does not read, what comes waits; then it is told in order."""
        stream = self.world.get(self.session)
        stream.read_slowly()
        before = stream.body
        for number in range(2):
            self.world.child.say(method="notifications/message", params={"data": number})
        self.world.pass_time(20)
        self.assertEqual(stream.body, before)
        stream.catch_up()
        self.assertEqual([e["params"]["data"] for e in stream.events], [0, 1])

    def test_the_stream_outlives_the_child(self) -> None:
        """A crash does not end the stream, and the next child is heard on it."""
        stream = self.world.get(self.session)
        self.world.pool.die()
        self.assertFalse(stream.finished)
        self.world.post(request("tools/list"), self.session)
        self.world.answer_initialize()
        self.world.child.say(method="notifications/tools/list_changed")
        self.assertEqual(len(stream.events), 1)

    def test_a_session_that_only_listens_joins_the_child(self) -> None:
        """After a restart of the gate a stream hears the child that another session uses."""
        world = World(store=self.world.store)
        self.successResultOf(world.sessions.load())
        other = world.open()
        self.assertNotEqual(other, "")
        stream = world.get(self.session)
        world.child.say(method="notifications/tools/list_changed")
        self.assertEqual(len(stream.events), 1)
        self.assertEqual(world.leaks(), {"streams": 1, "stream slots": 1, "in use": 1})

    def test_a_stream_can_not_join_a_child_that_does_not_answer(self) -> None:
        """A child that fails its handshake costs the stream nothing."""
        world = World(store=self.world.store)
        self.successResultOf(world.sessions.load())
        world.post(INIT)
        stream = world.get(self.session)
        world.pool.die()
        self.assertFalse(stream.finished)
        self.assertNotIn("leases", world.leaks())

    def test_ending_the_session_ends_the_stream(self) -> None:
        """DELETE closes the stream; the child lives on for other sessions."""
        stream = self.world.get(self.session)
        self.assertEqual(self.world.ask("DELETE", session=self.session).status, 200)
        self.assertTrue(stream.finished)
        self.assertEqual(self.world.pool.newest.upstream._peers, {})
        self.assertEqual(self.world.ask("DELETE", session=self.session).status, 404)
        self.assertEqual(self.world.leaks(), {})

    def test_calls_end_with_their_session(self) -> None:
        """Calls of a session that is ended are cancelled."""
        answer = self.world.post(request("tools/call", 5, name="x"), self.session)
        self.world.ask("DELETE", session=self.session)
        self.assertEqual(answer.json["error"]["code"], -31010)
        self.assertEqual(self.world.leaks(), {})

    def test_a_childs_owner_is_forgotten_with_its_session(self) -> None:
        """A per-session child goes with its session."""
        world = World(isolation=Isolation.PER_SESSION)
        session = world.open()
        world.ask("DELETE", session=session)
        (owner,) = world.pool.forgotten
        self.assertIsInstance(owner, Owner)
        self.assertIs(owner.isolation, Isolation.PER_SESSION)

    def test_a_drain_closes_the_stream(self) -> None:
        """The gate can end a session's stream without ending the session."""
        link = self.world.session(self.session).extras
        assert hasattr(link, "close_stream")
        link.close_stream()
        stream = self.world.get(self.session)
        link.close_stream()
        self.assertTrue(stream.finished)
        self.assertEqual(self.world.leaks(), {})
