"""Calls to HTTP servers through the endpoint."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    BadBackendAnswer,
    BadRequest,
    Starting,
)
from mcpgate.model import Exit, Isolation, Transport
from mcpgate.web.mcp.over_http.call import HOLD_BYTES
from mcpgate.web.mcp.over_http.fetch import session_is_lost
from tests.web.endpoint_kit import World, notification, request
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.http_case import PROGRESS, HTTPCase, reply
from tests.web.sse_client import SSEClient


class AnswerTests(HTTPCase):
    """What the server answers, and what the client gets."""

    def test_json_passes_as_it_is(self) -> None:
        """The request's bytes go up and the answer's bytes come down."""
        body = b'{ "jsonrpc":"2.0", "id":1, "method":"tools/call", "extra":[1] }'
        answer = self.world.post(body, self.session)
        sent = self.take()
        self.assertEqual(sent.raw, body)
        told = b'{"result": {"x":  1}, "id":1,\n"jsonrpc":"2.0", "y":2}'
        sent.head(200, b"application/json", length=len(told))
        sent.data(told[:10])
        sent.data(told[10:])
        sent.done()
        self.assertEqual((answer.status, answer.body), (200, told))
        self.assertEqual(self.world.leaks(), {})
        self.assertGreater(self.world.pool.touched, 0)

    def test_an_event_stream_passes_as_it_is(self) -> None:
        """Events pass whole, ids and all; the end of the stream is the end of the answer."""
        answer = self.call()
        sent = self.take()
        sent.head()
        self.assertEqual(answer.status, 200)
        sent.event(None, id="e0")
        sent.data(b'data: {"jsonrpc":"2.0",')
        self.assertEqual(answer.body, b"id: e0\r\ndata: \r\n\r\n")
        sent.data(b'"method":"notifications/x"}\r\n\r\n')
        sent.event(reply(sent))
        sent.done()
        self.assertEqual(len(answer.events), 2)
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_a_large_json_answer_streams(self) -> None:
        """What is too large to be held passes as it comes."""
        answer = self.call()
        sent = self.take()
        length = HOLD_BYTES + 1
        sent.head(200, b"application/json", length=length)
        sent.data(b"x" * HOLD_BYTES)
        self.assertEqual(len(answer.body), HOLD_BYTES)
        sent.data(b"x")
        sent.done()
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_death_within_a_large_json_answer_cuts_it(self) -> None:
        """Half a JSON text must not look whole."""
        answer = self.call()
        sent = self.take()
        sent.head(200, b"application/json", length=HOLD_BYTES + 1)
        sent.data(b"x")
        sent.fail()
        self.assertTrue(answer.aborted)
        self.assertEqual(self.world.leaks(), {})

    def test_too_large_an_answer_without_length_is_refused(self) -> None:
        """What must be held is bounded."""
        answer = self.call()
        sent = self.take()
        sent.head(200, b"application/json")
        for _ in range(17):
            sent.data(b"x" * 1024 * 1024)
        self.assertTrue(sent.aborted)
        self.assert_error(answer, -31003)

    def test_a_json_only_client_gets_json(self) -> None:
        """The server's event stream is turned into one JSON answer."""
        answer = self.call(accept=b"application/json")
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        sent.event(reply(sent, a=1))
        self.assertEqual(answer.json["result"], {"a": 1})
        self.assertEqual(self.world.leaks(), {})
        sent.event(PROGRESS)
        sent.done()

    def test_a_stream_without_an_answer_is_told_as_json(self) -> None:
        """A JSON-only client is told that the answer did not come."""
        answer = self.call(accept=b"application/json")
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        sent.done()
        self.assert_error(answer, -31003)

    def test_a_stream_only_client_gets_a_stream(self) -> None:
        """The server's JSON is turned into an event, and so are failures."""
        answer = self.call(accept=b"text/event-stream")
        sent = self.take()
        sent.result(a=1)
        self.assertEqual([e["result"] for e in answer.events], [{"a": 1}])
        answer = self.call(accept=b"text/event-stream")
        self.take().fail()
        self.assertTrue(answer.is_stream)
        self.assert_error(answer, -31003)

    def test_refusals_of_the_server_become_errors_of_the_call(self) -> None:
        """Clients drop their session on such statuses, so they are told with 200."""
        for status in (401, 403, 405, 406, 429, 500, 503):
            answer = self.call(id="c")
            sent = self.take()
            sent.head(status, b"text/plain")
            sent.data(b"no")
            sent.done()
            self.assert_error(answer, -31003)
            self.assertEqual(answer.json["id"], "c")
            self.assertEqual(answer.json["error"]["data"]["status"], status)

    def test_the_servers_own_error_is_kept(self) -> None:
        """A JSON-RPC error of another status or id is the call's answer all the same."""
        for id in (None, "server-error", 7):
            answer = self.call(id=7)
            error = {"code": -32602, "message": "bad"}
            self.take().json({"jsonrpc": "2.0", "id": id, "error": error}, 400)
            self.assertEqual(answer.json, {"jsonrpc": "2.0", "id": 7, "error": error})

    def test_an_empty_answer_to_a_call_is_an_error(self) -> None:
        """202 is no answer to a request."""
        answer = self.call()
        self.take().empty()
        self.assert_error(answer, -31003)

    def test_an_upgrade_is_refused(self) -> None:
        """Nobody asked for one."""
        self.call()
        sent = self.take()
        self.assertRaises(BadBackendAnswer, sent.receiver.response_upgraded, None, None)
        notice = self.world.post(notification("notifications/x"), self.session)
        self.assertEqual(notice.status, 202)
        get = self.world.get(self.session)
        self.assertFalse(get.finished)
        sent = self.take()
        self.assertRaises(BadBackendAnswer, sent.receiver.response_upgraded, None, None)

    def test_a_slow_reader_slows_the_server(self) -> None:
        """The stream is paused with its client, and no deadline counts against it."""
        answer = self.call()
        sent = self.take()
        answer.read_slowly()
        self.assertTrue(sent.paused)
        self.world.pass_time(61)
        self.assertFalse(sent.aborted)
        answer.catch_up()
        self.assertFalse(sent.paused)
        sent.result()
        self.assertEqual(self.world.leaks(), {})

    def test_a_slow_reader_is_slow_from_the_start(self) -> None:
        """A client that does not read while the server starts is known to be slow."""
        self.world.session(self.session).record.upstream_instance = ""
        self.world.server.plays = False
        answer = self.call()
        answer.read_slowly()
        answer.catch_up()
        answer.read_slowly()
        self.world.server.plays = True
        self.world.settle()
        sent = self.take()
        self.assertTrue(sent.paused)
        answer.go()
        self.assertFalse(sent.paused)

    def test_comments_come_between_events(self) -> None:
        """A silent stream gets comments, never within an event."""
        answer = self.call()
        sent = self.take()
        self.world.pass_time(16)
        sent.head()
        sent.data(b'data: {"jsonrpc":"2.0",')
        self.world.pass_time(16)
        sent.data(b'"id":1,"result":{}}\n\n')
        sent.done()
        self.assertEqual(answer.body.count(b": keepalive\n\n"), 2)
        self.assertEqual(answer.events, [{"jsonrpc": "2.0", "id": 1, "result": {}}])

    def test_a_late_json_answer_becomes_an_event(self) -> None:
        """Once comments were sent, JSON is told as an event."""
        answer = self.call()
        self.world.pass_time(16)
        self.take().result(a=1)
        self.assertEqual(answer.events[0]["result"], {"a": 1})
        answer = self.call()
        self.world.pass_time(16)
        sent = self.take()
        sent.head(200, b"application/json", length=HOLD_BYTES + 10)
        sent.fail()
        self.assert_error(answer, -31003)

    def test_what_follows_the_answer_is_dropped(self) -> None:
        """A rewritten stream is over with its answer, though more may come at once."""
        answer = self.call(accept=b"application/json")
        sent = self.take()
        sent.head()
        text = json.dumps(reply(sent)).encode()
        sent.data(b"data: " + text + b"\n\ndata: " + text + b"\n\ndata: {}\n\n")
        self.assertEqual(answer.json["id"], 1)
        self.assertEqual(self.world.leaks(), {})
        self.assertFalse(self.world.wheel._slots and any(self.world.wheel._slots.values()))

    def test_a_bug_is_an_internal_error(self) -> None:
        """An unforeseen failure is told, and nothing leaks."""
        self.world.server.error = ZeroDivisionError()
        answer = self.call()
        self.assert_error(answer, -32603)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.world.server.error = BadRequest()
        self.assert_error(self.call(), -32600)


class FailureTests(HTTPCase):
    """The server dies, is silent, or forgets."""

    def test_what_was_not_sent_is_sent_again(self) -> None:
        """Even a tool call, since it surely never ran; but not for ever."""
        answer = self.call()
        self.take().fail(BackendUnavailable(), sent=False)
        self.world.pass_time(1)
        self.take().result(a=1)
        self.assertEqual(answer.json["result"], {"a": 1})
        answer = self.call()
        for _ in range(3):
            self.take().fail(BackendUnavailable(), sent=False)
            self.world.pass_time(1)
        self.assert_error(answer, -31001)

    def test_a_tool_call_is_never_sent_twice(self) -> None:
        """It may have run (R35)."""
        answer = self.call()
        self.take().fail()
        self.assert_error(answer, -31003)
        self.world.pass_time(2)
        self.assertEqual(self.world.server.waiting, [])

    def test_how_the_server_ended_is_told(self) -> None:
        """Exit code and last words come a moment after the connection broke."""
        answer = self.call()
        self.take().receiver.response_failed(BackendDied(), True)
        self.assertFalse(answer.finished)
        self.world.pool.newest.ended.callback(Exit(code=3, stderr_tail=("Out of cheese",)))
        self.assert_error(answer, -31003)
        data = answer.json["error"]["data"]
        self.assertEqual((data["exitCode"], data["stderr"]), (3, ["Out of cheese"]))

    def test_a_shared_servers_last_words_are_kept(self) -> None:
        """They may tell of what others do."""
        world = World(Transport.HTTP, isolation=Isolation.SHARED)
        answer = world.post(request("tools/call"), world.open())
        world.server.take().receiver.response_failed(BackendDied(), True)
        world.pool.newest.ended.callback(Exit(code=3, stderr_tail=("secret",)))
        self.assertEqual(answer.json["error"]["data"]["exitCode"], 3)
        self.assertNotIn(b"secret", answer.body)

    def test_a_remote_server_has_no_end(self) -> None:
        """A broken connection is told at once."""
        world = World(Transport.HTTP, runtime="remote", url="http://a.example/mcp")
        answer = world.post(request("tools/call"), world.open())
        world.server.take().receiver.response_failed(BackendDied(), True)
        self.assertEqual(answer.json["error"]["code"], -31003)

    def test_a_list_is_repeated_once(self) -> None:
        """A request without effects may be sent twice."""
        answer = self.call("tools/list")
        self.take().fail()
        self.world.pass_time(1)
        self.take().fail()
        self.world.pass_time(1)
        self.assert_error(answer, -31003)

    def test_death_within_a_stream_is_its_last_event(self) -> None:
        """The client is told in words; what was begun of an event is dropped."""
        answer = self.call()
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        sent.data(b"data: {")
        sent.fail()
        self.assertEqual(len(answer.events), 2)
        self.assert_error(answer, -31003)

    def test_death_after_the_answer_is_no_failure(self) -> None:
        """An answered request is not failed once more."""
        answer = self.call()
        sent = self.take()
        sent.head()
        sent.event(reply(sent, text="the method"))
        sent.event(PROGRESS)
        sent.fail()
        self.assertEqual([e.get("id") for e in answer.events], [1, None])
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_what_only_looks_like_an_answer_is_looked_at(self) -> None:
        """A message of the server that speaks of results does not count as the answer."""
        answer = self.call()
        sent = self.take()
        sent.head()
        for _ in range(3):
            sent.event(notification("notifications/message", data={"result": 1}))
        sent.done()
        self.assert_error(answer, -31003)

    def test_death_before_a_stream_of_comments_is_told_in_it(self) -> None:
        """Once comments opened the stream the failure is an event."""
        answer = self.call()
        self.world.pass_time(16)
        self.take().fail()
        self.assertTrue(answer.is_stream)
        self.assert_error(answer, -31003)

    def test_death_within_json_is_an_error(self) -> None:
        """Half of a held answer is not shown."""
        answer = self.call()
        sent = self.take()
        sent.head(200, b"application/json", length=100)
        sent.data(b"{")
        sent.fail()
        self.assert_error(answer, -31003)

    def test_a_stream_that_ends_without_answer_is_an_error(self) -> None:
        """Without event ids the client could only wait for ever; with them it resumes."""
        answer = self.call()
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        sent.done()
        self.assert_error(answer, -31003)
        answer = self.call()
        sent = self.take()
        sent.head()
        sent.event(None, id="e0")
        sent.done()
        self.assertEqual(answer.body, b"id: e0\r\ndata: \r\n\r\n")
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_too_large_an_event_is_cut(self) -> None:
        """An event without end is not held for ever."""
        answer = self.call()
        sent = self.take()
        sent.head()
        for _ in range(17):
            sent.data(b"x" * 1024 * 1024)
        self.assertTrue(sent.aborted)
        self.assert_error(answer, -31003)

    def test_silence_times_out(self) -> None:
        """Without an answer for 60 s the call fails and the server is told to stop."""
        answer = self.call(id=5)
        sent = self.take()
        self.world.pass_time(62)
        self.assertTrue(sent.aborted)
        self.assert_error(answer, -31002)
        cancelled = self.world.server.all[-1].message
        self.assertEqual(cancelled["method"], "notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], 5)

    def test_the_connections_own_deadline_counts_too(self) -> None:
        """A head that does not come is a time-out, whoever notices first."""
        answer = self.call()
        self.world.server.plays = False
        self.take().fail(BackendTimeout())
        self.assert_error(answer, -31002)
        self.take().fail()

    def test_progress_does_not_help_for_ever(self) -> None:
        """The hard maximum ends a call that is alive."""
        answer = self.call()
        sent = self.take()
        sent.head()
        for _ in range(13):
            self.world.pass_time(50)
            sent.event(PROGRESS)
        self.assert_error(answer, -31002)

    def test_a_connection_that_never_comes_times_out(self) -> None:
        """A call that waits for a start has the hard maximum, and its late start is nobody's."""
        del self.world.pool._running[self.world.pool.newest.key]
        self.world.pool.at_once = False
        answer = self.call()
        self.world.pass_time(601)
        self.assertEqual(answer.told["error"]["code"], -31002)
        self.world.pool.started()
        self.world.settle()
        self.assertEqual(self.world.server.waiting, [])
        self.assertEqual(self.world.leaks(), {})
        del self.world.pool._running[self.world.pool.newest.key]
        self.call()
        self.world.pass_time(601)
        self.world.pool.started(Starting())
        self.assertEqual(self.world.leaks(), {})

    def test_a_lost_session_is_made_anew_silently(self) -> None:
        """Whatever words the server has for it, the client notices nothing."""
        for number, (status, text) in enumerate(
            [
                (404, b"Not Found"),
                (400, b'{"error":{"message":"Bad Request: No valid session ID provided"}}'),
                (400, b"Bad Request: Server not initialized"),
            ]
        ):
            answer = self.call(id=number)
            sent = self.take()
            old = sent.session
            sent.head(status, b"application/json")
            sent.data(text)
            sent.done()
            self.world.settle()
            sent = self.take()
            self.assertNotEqual(sent.session, old)
            sent.result(a=number)
            self.assertEqual(answer.json["result"], {"a": number})
        self.assertEqual(self.world.leaks(), {})

    def test_two_calls_make_a_lost_session_anew_once(self) -> None:
        """Single flight: the second finds the handshake under way, or done."""
        first, second = self.call(id=1), self.call(id=2)
        one, two = self.take(), self.take()
        one.empty(404)
        self.world.settle()
        two.empty(404)
        self.world.settle()
        self.assertEqual(self.world.server.heard().count("initialize"), 2)
        one, two = self.take(), self.take()
        self.assertEqual((one.session, two.session), (b"up-2", b"up-2"))
        one.result()
        two.result()
        self.assertEqual([first.status, second.status], [200, 200])

    def test_two_calls_wait_for_one_handshake(self) -> None:
        """The handshake is not sent twice, and its failure is shared."""
        self.world.server.plays = False
        first, second = self.call(id=1), self.call(id=2)
        one, two = self.take(), self.take()
        one.empty(404)
        two.empty(404)
        self.world.settle()
        shake = self.take()
        self.assertEqual(self.world.server.waiting, [])
        shake.empty(500)
        self.world.settle()
        self.assert_error(first, -31001)
        self.assert_error(second, -31001)

    def test_a_handshake_that_dies_is_tried_again_once(self) -> None:
        """A death before the call was sent costs nothing."""
        self.world.server.plays = False
        self.world.session(self.session).record.upstream_instance = ""
        answer = self.call()
        self.take().fail()
        self.world.pass_time(1)
        self.take().fail()
        self.world.pass_time(1)
        self.assert_error(answer, -31003)

    def test_a_session_that_stays_lost_is_told(self) -> None:
        """A path that is always 404 is not asked for ever."""
        answer = self.call()
        for _ in range(3):
            self.take().empty(404)
            self.world.settle()
        self.assert_error(answer, -31003)

    def test_a_new_instance_is_told_everything(self) -> None:
        """After a restart the handshake, log level and subscriptions are replayed."""
        for number, (method, params) in enumerate(
            [
                ("logging/setLevel", {"level": "debug"}),
                ("resources/subscribe", {"uri": "a://1"}),
                ("resources/subscribe", {"uri": "a://2"}),
            ]
        ):
            answer = self.world.post(request(method, number, **params), self.session)
            self.take().result()
            self.assertEqual(answer.status, 200)
        answer = self.world.post(request("resources/unsubscribe", 8, uri="a://1"), self.session)
        sent = self.take()
        sent.head()
        sent.event(reply(sent))
        sent.done()
        self.world.post(request("resources/subscribe", 9, uri="a://3"), self.session)
        sent = self.take()
        sent.json({"jsonrpc": "2.0", "id": 9, "error": {"code": 1, "message": "no"}})
        del self.world.pool._running[self.world.pool.newest.key]
        answer = self.call("tools/list")
        for _ in range(2):
            self.take().result()
            self.world.settle()
        self.assertEqual(
            self.world.server.heard(),
            [
                "initialize",
                "notifications/initialized",
                "logging/setLevel",
                "resources/subscribe",
                "tools/list",
            ],
        )
        self.assertEqual(self.world.server.all[3].message["params"], {"uri": "a://2"})
        self.take().result(tools=[])
        self.assertEqual(answer.json["result"], {"tools": []})

    def test_nothing_is_started_for_a_session_that_has_ended(self) -> None:
        """A call between two tries ends with its session."""
        answer = self.call("tools/list")
        self.take().receiver.response_failed(BackendDied(), True)
        del self.world.pool._running[self.world.pool.newest.key]
        self.world.ask("DELETE", session=self.session)
        self.world.pass_time(1)
        self.assert_error(answer, -31010)
        self.assertEqual(len(self.world.pool.instances), 1)

    def test_a_restart_of_the_gate_is_not_noticed(self) -> None:
        """Out of the store the session is shaken hands for with the new instance."""
        world = World(Transport.HTTP, store=self.world.store)
        self.successResultOf(world.sessions.load())
        world.pool.instances.extend(self.world.pool.instances)
        answer = world.post(request("tools/list"), self.session)
        world.settle()
        sent = world.server.take()
        self.assertEqual(sent.session, b"up-1")
        sent.result()
        self.assertEqual(answer.status, 200)

    def test_a_remote_server_remembers(self) -> None:
        """A server that outlives the gate keeps its sessions, and is not started."""
        world = World(Transport.HTTP, runtime="remote", url="http://a.example/mcp")
        session = world.open()
        world.session(session).record.upstream_instance = "of an earlier life"
        world.post(request("tools/list"), session)
        self.assertEqual(world.server.take().session, b"up-1")

    def test_the_client_goes_and_the_call_runs_on(self) -> None:
        """Slot and lease are given back when the server has answered."""
        answer = self.call()
        sent = self.take()
        answer.read_slowly()
        answer.go()
        self.assertFalse(sent.aborted or sent.paused)
        self.assertEqual(self.world.leaks()["slots"], 1)
        sent.head(200, b"application/json", length=HOLD_BYTES + 1)
        sent.data(b"x" * (HOLD_BYTES + 1))
        sent.done()
        self.assertEqual(self.world.leaks(), {})


class RestTests(HTTPCase):
    """A server ends its stream before the answer, and wants to be asked for the rest."""

    def begin(self) -> tuple[FakeInbound, Sent]:
        """Call, as a client that gets JSON alone; the stream ends after an event with an id."""
        answer = self.call(accept=b"application/json")
        sent = self.take()
        sent.head()
        sent.data(b"id: e1\r\nretry: 2000\r\ndata: \r\n\r\n")
        sent.done()
        return answer, sent

    def rest(self) -> Sent:
        """Give what asks for the rest, once it is time to."""
        self.world.pass_time(2)
        return self.take()

    def test_asked_for(self) -> None:
        """In the time the server names, as often as it likes; the client notices nothing."""
        answer, post = self.begin()
        self.world.pass_time(1)
        self.assertEqual(self.world.server.waiting, [])
        sent = self.rest()
        self.assertEqual((sent.method, sent.fields[b"last-event-id"]), ("GET", b"e1"))
        self.assertEqual(sent.session, post.session)
        sent.head()
        sent.event(PROGRESS, id="e2")
        sent.done()
        self.assertEqual(self.rest().fields[b"last-event-id"], b"e2")
        sent = self.world.server.all[-1]
        sent.head()
        sent.event(reply(post, a=1))
        self.assertEqual(answer.json["result"], {"a": 1})
        self.assertEqual(self.world.leaks(), {})

    def test_for_a_client_of_http_sse(self) -> None:
        """It has no resumption of its own."""
        client = SSEClient(self.world)
        client.open()
        self.world.settle()
        client.call("x", 7)
        self.world.settle()
        post = next(sent for sent in self.world.server.waiting if sent.method == "POST")
        post.head()
        post.event(None, id="e1")
        post.done()
        self.world.pass_time(2)
        sent = self.world.server.waiting[-1]
        self.assertEqual((sent.method, sent.fields[b"last-event-id"]), ("GET", b"e1"))
        sent.head()
        sent.event(reply(post, a=1))
        sent.done()
        self.assertEqual((client.heard[-1]["id"], client.heard[-1]["result"]), (7, {"a": 1}))
        client.leave()
        self.assertEqual(self.world.leaks(), {})

    def test_of_a_call_with_an_id_of_the_gates(self) -> None:
        """The client got none of the stream's ids: the gate asks."""
        self.call()
        answer = self.call()
        self.take()
        post = self.take()
        post.head()
        post.event(None, id="e1")
        post.done()
        sent = self.rest()
        sent.head()
        sent.event(reply(post, a=1))
        self.assertEqual((answer.told["id"], answer.told["result"]), (1, {"a": 1}))

    def test_refused(self) -> None:
        """The client is told; the call is never sent again, whatever the server says."""
        for status in (404, 405, 500):
            answer, _ = self.begin()
            self.rest().empty(status)
            self.assert_error(answer, -31003)
            self.assertEqual(answer.json["error"]["data"]["status"], status)
        self.assertEqual(self.world.server.waiting, [])

    def test_a_server_that_dies(self) -> None:
        """Before it is asked or after, the client hears it."""
        answer, _ = self.begin()
        self.rest().fail()
        self.assert_error(answer, -31003)
        answer, _ = self.begin()
        self.world.server.error = BackendUnavailable()
        self.world.pass_time(2)
        self.assert_error(answer, -31001)

    def test_a_server_that_dies_meanwhile(self) -> None:
        """Is not waited for; its last words are told."""
        answer, _ = self.begin()
        self.world.pool.newest.ended.callback(Exit(code=3, stderr_tail=("Out of cheese",)))
        self.assert_error(answer, -31003)
        data = answer.json["error"]["data"]
        self.assertEqual((data["exitCode"], data["stderr"]), (3, ["Out of cheese"]))

    def test_a_rest_that_tells_nothing(self) -> None:
        """Is asked for until the call's time is over."""
        answer, _ = self.begin()
        asked = 0
        while not answer.finished:
            self.world.pass_time(2)
            for sent in tuple(self.world.server.waiting):
                if sent.method == "GET":
                    asked += 1
                    self.world.server.waiting.remove(sent)
                    sent.head()
                    sent.done()
        self.assertGreater(asked, 10)
        self.assert_error(answer, -31002)

    def test_cancelled(self) -> None:
        """While it is waited for: the server hears of it, and nothing is asked for."""
        answer, _ = self.begin()
        self.world.post(notification("notifications/cancelled", requestId=1), self.session)
        self.assert_error(answer, -31010)
        self.assertEqual(self.world.server.all[-1].message["params"], {"requestId": 1})
        asked = len(self.world.server.all)
        self.world.pass_time(5)
        self.assertEqual(len(self.world.server.all), asked)

    def test_an_id_without_measure(self) -> None:
        """Is not carried about."""
        answer = self.call(accept=b"application/json")
        sent = self.take()
        sent.head()
        sent.event(None, id="e" * 5000)
        sent.done()
        self.assert_error(answer, -31003)

    def test_a_slow_reader(self) -> None:
        """Slows what follows too."""
        self.call()
        answer = self.call()
        self.take()
        post = self.take()
        post.head()
        post.event(None, id="e1")
        answer.read_slowly()
        post.done()
        self.assertTrue(self.rest().paused)


class IdTests(HTTPCase):
    """JSON-RPC ids that are not unique, and cancelling."""

    def test_the_same_id_twice_in_work(self) -> None:
        """The second gets an id of the gate, and its own back, as JSON and as events."""
        first, second, third = self.call(), self.call(), self.call()
        one, two, three = self.take(), self.take(), self.take()
        self.assertEqual(len({s.message["id"] for s in (one, two, three)}), 3)
        two.json([reply(two, n=2)])
        three.head()
        three.event(PROGRESS)
        three.event(None, id="e")
        three.event(reply(three, n=3))
        one.result(n=1)
        for number, answer in enumerate((first, second, third)):
            self.assertEqual(answer.told["id"], 1)
            self.assertEqual(answer.told["result"], {"n": number + 1})
        self.assertEqual(self.world.leaks(), {})
        self.call()
        self.assertEqual(self.take().message["id"], 1)

    def test_a_minted_stream_fails_like_others(self) -> None:
        """Death is told under the client's id; an end without a word too."""
        self.call()
        answer = self.call()
        self.take()
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        sent.fail()
        self.assertEqual(answer.told["id"], 1)
        self.assertEqual(answer.told["error"]["code"], -31003)
        answer = self.call()
        sent = self.take()
        sent.head()
        sent.done()
        self.assertEqual(answer.told["error"]["code"], -31003)

    def test_cancelling_a_call(self) -> None:
        """The call is over at once; the server hears the id it knows."""
        first = self.call(id=1)
        second = self.call(id=2)
        sent = self.take()
        cancel = notification("notifications/cancelled", requestId=1)
        self.assertEqual(self.world.post(cancel, self.session).status, 202)
        self.assertEqual(first.json["error"]["code"], -31010)
        self.assertTrue(sent.aborted)
        self.assertEqual(self.world.server.all[-1].message["params"], {"requestId": 1})
        self.take().result()
        self.assertEqual(second.status, 200)
        self.assertEqual(self.world.leaks(), {})

    def test_a_cancel_that_fits_two_calls_or_none_goes_nowhere(self) -> None:
        """Which one is meant can not be told."""
        answers = [self.call(), self.call()]
        before = len(self.world.server.all)
        for id in (1, "1", None, 9):
            cancel = notification("notifications/cancelled", requestId=id)
            self.assertEqual(self.world.post(cancel, self.session).status, 202)
        self.assertEqual(len(self.world.server.all), before)
        self.assertFalse(answers[0].finished or answers[1].finished)

    def test_a_minted_call_is_cancelled_under_the_minted_id(self) -> None:
        """The client's id means another call to the server, or none."""
        first = self.call()
        self.call()
        sent = [self.take(), self.take()]
        sent[0].result()
        self.assertTrue(first.finished)
        self.world.post(notification("notifications/cancelled", requestId=1), self.session)
        told = self.world.server.all[-1].message
        self.assertEqual(told["params"]["requestId"], sent[1].message["id"])
        self.assertNotEqual(told["params"]["requestId"], 1)

    def test_a_call_that_waits_for_its_server_is_cancelled(self) -> None:
        """The server never hears of it."""
        del self.world.pool._running[self.world.pool.newest.key]
        self.world.pool.at_once = False
        answer = self.call()
        self.world.post(notification("notifications/cancelled", requestId=1), self.session)
        self.assertEqual(answer.json["error"]["code"], -31010)
        self.world.pool.started()
        self.world.settle()
        self.assertEqual(self.world.server.waiting, [])
        self.assertEqual(self.world.leaks(), {})

    def test_a_call_between_two_tries_is_cancelled(self) -> None:
        """It is not tried again."""
        answer = self.call("tools/list")
        self.take().receiver.response_failed(BackendDied(), True)
        self.world.post(notification("notifications/cancelled", requestId=1), self.session)
        self.world.pass_time(1)
        self.assert_error(answer, -31010)
        self.assertEqual(self.world.server.waiting, [])


class LostSessionTests(SynchronousTestCase):
    """How servers say that they do not know a session."""

    def test_words(self) -> None:
        """404 always; 400 only with words for it."""
        self.assertTrue(session_is_lost(404, b""))
        self.assertTrue(session_is_lost(400, b"No valid SESSION ID"))
        self.assertFalse(session_is_lost(400, json.dumps({"error": "bad"}).encode()))
        self.assertFalse(session_is_lost(500, b"session"))


class DeathOfAllTests(HTTPCase):
    """Whatever order things happen in, everything is given back."""

    def test_late_words_are_ignored(self) -> None:
        """A call that is over hears nothing more."""
        answer = self.call()
        sent = self.take()
        self.world.post(notification("notifications/cancelled", requestId=1), self.session)
        self.assertEqual(answer.json["error"]["code"], -31010)
        body = answer.body
        sent.receiver.response_head(None)
        sent.receiver.response_data(b"x")
        sent.receiver.response_end([])
        sent.receiver.response_failed(BackendDied(), True)
        self.assertEqual(answer.body, body)
        self.assertEqual(self.world.leaks(), {})
