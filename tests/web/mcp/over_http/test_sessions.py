"""Sessions of HTTP servers: how they begin, are pooled, are told things, and end."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    BadRequest,
)
from mcpgate.model import Isolation, Transport
from mcpgate.web.mcp.over_http.sessions import FAREWELL_S
from tests.web.endpoint_kit import INIT, World, notification, request
from tests.web.fake_exchange import Sent
from tests.web.http_case import HTTPCase, reply


class OpeningTests(SynchronousTestCase):
    """How a session begins and ends."""

    def test_the_servers_session_id_stays_inside(self) -> None:
        """The client gets an id of the gate; the server gets its own."""
        world = World(Transport.HTTP)
        answer = world.post({**INIT, "id": "i"})
        self.assertEqual(answer.json["id"], "i")
        self.assertNotIn(b"up-", answer.fields[b"mcp-session-id"] + answer.body)
        session = answer.fields[b"mcp-session-id"].decode()
        world.post(request("tools/list"), session)
        sent = world.server.take()
        self.assertEqual(sent.session, b"up-1")
        self.assertEqual(sent.fields[b"mcp-protocol-version"], b"2025-11-25")
        self.assertNotIn(b"authorization", sent.fields)
        first = world.server.all[0]
        self.assertNotIn(b"mcp-protocol-version", first.fields)
        self.assertIsNone(first.session)
        self.assertEqual(world.leaks(), {"leases": 1, "slots": 1, "calls": 1, "in use": 1})

    def test_an_older_servers_revision_counts(self) -> None:
        """The older revision of client and server is agreed on."""
        world = World(Transport.HTTP)
        world.open()
        world.server.version = "2025-06-18"
        answer = world.post(INIT)
        self.assertEqual(answer.json["result"]["protocolVersion"], "2025-06-18")

    def test_a_server_that_refuses_is_quoted(self) -> None:
        """The server's own error reaches the client, without a session; its id counts not."""
        world = World(Transport.HTTP)
        world.open()
        world.server.plays = False
        answer = world.post({**INIT, "id": "i"})
        error = {"code": -32602, "message": "Unsupported"}
        world.server.take().json(
            {"jsonrpc": "2.0", "id": "server-error", "error": error}, 400, session=b"dead"
        )
        self.assertEqual((answer.status, answer.json["id"]), (200, "i"))
        self.assertEqual(answer.json["error"], error)
        self.assertNotIn(b"mcp-session-id", answer.fields)
        self.assertEqual(len(world.sessions), 1)
        self.assertEqual(world.leaks(), {})

    def test_a_server_that_fails_is_an_http_error(self) -> None:
        """Answers that are none are told with an HTTP status."""
        world = World(Transport.HTTP)
        world.open()
        world.server.plays = False
        answer = world.post(INIT)
        sent = world.server.take()
        sent.head(500, b"text/html")
        sent.data(b"<h1>")
        sent.done()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (503, -31001))
        self.assertEqual(world.leaks(), {})

    def test_a_death_is_tried_again_once(self) -> None:
        """``initialize`` without an answer is repeated once."""
        world = World(Transport.HTTP)
        world.open()
        world.server.plays = False
        answer = world.post(INIT)
        world.server.take().fail()
        world.pass_time(1)
        world.server.take().fail()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (502, -31003))
        answer = world.post(INIT)
        world.server.take().fail()
        world.server.plays = True
        world.pass_time(1)
        self.assertEqual(answer.status, 200)
        self.assertEqual(world.leaks(), {})

    def test_an_event_stream_answers_initialize(self) -> None:
        """SDK servers answer with an event stream; what follows the answer is not waited for."""
        world = World(Transport.HTTP)
        world.open()
        world.server.plays = False
        answer = world.post({**INIT, "id": 3})
        sent = world.server.take()
        sent.head(200, session=b"up-x")
        sent.event(None, id="0")
        sent.event(notification("notifications/message"))
        sent.event(reply(sent, protocolVersion="2025-11-25"))
        self.assertEqual(answer.json["id"], 3)
        sent.event(notification("notifications/message"))
        sent.done()
        self.assertFalse(sent.aborted)

    def test_too_large_an_answer_is_cut(self) -> None:
        """What answers a message of the gate is bounded."""
        for kind in (b"application/json", b"text/event-stream"):
            world = World(Transport.HTTP)
            world.open()
            world.server.plays = False
            answer = world.post(INIT)
            for _ in range(2):
                sent = world.server.take()
                sent.head(200, kind)
                for _ in range(5):
                    sent.data(b"x" * 1024 * 1024)
                self.assertTrue(sent.aborted)
                world.pass_time(1)
            self.assertEqual(answer.json["error"]["code"], -31003)
            self.assertEqual(world.leaks(), {})

    def test_a_server_that_never_answers_is_cut(self) -> None:
        """Comments in an event stream are no answer: the handshake has its deadline."""
        world = World(Transport.HTTP)
        world.open()
        world.server.plays = False
        answer = world.post(INIT)
        sent = world.server.take()
        sent.head()
        for _ in range(10):
            world.pass_time(world.spec.lifetime.start_s / 9)
            sent.data(b": ping\r\n\r\n")
        self.assertTrue(sent.aborted)
        self.assertEqual(answer.events[-1]["error"]["code"], -31002)
        self.assertEqual(world.leaks(), {})

    def test_a_server_that_never_says_goodbye_is_left(self) -> None:
        """The end of a session holds its server no longer than a moment."""
        world = World(Transport.HTTP)
        session = world.open()
        world.server.plays = False
        world.ask("DELETE", session=session)
        sent = world.server.take()
        sent.head()
        world.pass_time(FAREWELL_S + 1)
        self.assertTrue(sent.aborted)
        self.assertEqual(world.leaks(), {})

    def test_a_replay_is_part_of_the_handshake(self) -> None:
        """A server that is silent to it is not waited for as long as a call may take."""
        world = World(Transport.HTTP, call_timeout_s=300.0)
        session = world.open()
        world.post(request("logging/setLevel", 1, level="debug"), session)
        world.server.take().result()
        del world.pool._running[world.pool.newest.key]
        answer = world.post(request("tools/list", 2), session)
        self.assertEqual(world.server.take().message["method"], "logging/setLevel")
        world.pass_time(world.spec.lifetime.start_s + 1)
        self.assertEqual(answer.events[-1]["error"]["code"], -31002)
        self.assertEqual(world.leaks(), {})

    def test_a_slow_start_shows_life(self) -> None:
        """While a container starts the client gets comments."""
        world = World(Transport.HTTP)
        world.pool.at_once = False
        answer = world.post(INIT)
        world.pass_time(16)
        self.assertIn(b": keepalive", answer.body)
        world.pool.started()
        world.settle()
        self.assertEqual(answer.events[0]["id"], 0)

    def test_delete_ends_the_servers_session_too(self) -> None:
        """The server may forget the session; a second DELETE is 404."""
        world = World(Transport.HTTP)
        session = world.open()
        self.assertEqual(world.ask("DELETE", session=session).status, 200)
        sent = world.server.all[-1]
        self.assertEqual((sent.method, sent.session), ("DELETE", b"up-1"))
        self.assertEqual(world.ask("DELETE", session=session).status, 404)
        self.assertEqual(world.leaks(), {})

    def test_any_end_of_a_session_is_told_to_the_server(self) -> None:
        """A session that expires does not stay in the server's memory."""
        world = World(Transport.HTTP)
        session = world.open()
        world.sessions.end(world.session(session), "idle")
        world.settle()
        self.assertEqual(world.server.all[-1].method, "DELETE")
        self.assertEqual(world.leaks(), {})

    def test_a_session_no_server_knows_just_ends(self) -> None:
        """Nothing is started to be told about an end; stateless servers are not told."""
        world = World(Transport.HTTP)
        session = world.open()
        del world.pool._running[world.pool.newest.key]
        world.ask("DELETE", session=session)
        self.assertEqual(world.server.heard()[-1], "notifications/initialized")
        session = world.open()
        world.session(session).record.upstream_session = ""
        world.ask("DELETE", session=session)
        self.assertEqual(world.server.heard()[-1], "notifications/initialized")
        self.assertEqual(world.leaks(), {})

    def test_a_per_session_owner_is_forgotten(self) -> None:
        """A server of one session goes with it."""
        world = World(Transport.HTTP, isolation=Isolation.PER_SESSION)
        world.ask("DELETE", session=world.open())
        self.assertEqual(len(world.pool.forgotten), 1)


class PoolingTests(SynchronousTestCase):
    """Clients that drop the session id they were given."""

    def test_the_gate_introduces_whom_the_client_does_not(self) -> None:
        """``initialized`` is sent before the first pooled request, once; ids are minted."""
        world = World(Transport.HTTP)
        world.open(told=False)
        answers = [world.post(request("resources/list")) for _ in range(2)]
        self.assertEqual(
            world.server.heard(),
            ["initialize", "notifications/initialized", "resources/list", "resources/list"],
        )
        for answer in answers:
            sent = world.server.take()
            self.assertNotEqual(sent.message["id"], 1)
            sent.result(a=1)
            self.assertEqual(answer.json, {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}})
        self.assertEqual(world.leaks(), {})

    def test_a_client_that_introduces_itself_is_believed(self) -> None:
        """``initialized`` without an id counts for the pooled session."""
        world = World(Transport.HTTP)
        world.open(told=False)
        self.assertEqual(world.post(notification("notifications/initialized")).status, 202)
        world.post(request("tools/list"))
        self.assertEqual(world.server.heard().count("notifications/initialized"), 1)

    def test_a_restarted_server_hears_it_once(self) -> None:
        """The handshake of the next instance includes the introduction."""
        world = World(Transport.HTTP)
        world.open(told=False)
        del world.pool._running[world.pool.newest.key]
        world.post(request("tools/list"))
        self.assertEqual(
            world.server.heard(), ["initialize", "notifications/initialized", "tools/list"]
        )


class NotificationTests(HTTPCase):
    """What wants no answer."""

    def test_it_passes_as_it_is(self) -> None:
        """The client gets 202 whatever the server thinks of it."""
        self.world.server.plays = False
        for end in (Sent.empty, lambda sent: sent.empty(500), Sent.fail):
            answer = self.world.post(notification("n/x"), self.session)
            self.assertEqual(answer.status, 0)
            end(self.take())
            self.assertEqual((answer.status, answer.body), (202, b""))
        self.assertEqual(self.world.leaks(), {})

    def test_a_lost_session_is_noticed(self) -> None:
        """The next call does not have to find out again."""
        self.world.server.plays = False
        answer = self.world.post(notification("n/x"), self.session)
        answer.go()
        self.take().empty(404)
        self.world.server.plays = True
        self.call()
        self.assertEqual(self.world.server.heard().count("initialize"), 2)

    def test_nothing_is_started_for_it(self) -> None:
        """A server that does not run need not hear it."""
        del self.world.pool._running[self.world.pool.newest.key]
        self.assertEqual(self.world.post(notification("n/x"), self.session).status, 202)
        self.assertEqual(len(self.world.pool.instances), 1)

    def test_an_answer_that_can_not_be_sent_is_dropped(self) -> None:
        """The client of a notification hears nothing of it."""
        self.world.server.error = BadRequest()
        self.assertEqual(self.world.post(notification("n/x"), self.session).status, 202)
        self.assertEqual(self.world.leaks(), {})
