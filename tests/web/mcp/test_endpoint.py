"""What the MCP endpoint demands of requests, and whose session they get."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendUnavailable
from mcpgate.model import Isolation, Owner, Rate, Transport
from mcpgate.web.mcp.post import owner_of
from tests.web.endpoint_kit import INIT, World, caller_of, notification, request
from tests.web.fake_inbound import FakeInbound

MODERN = b"2026-07-28"


def code_of(answer: FakeInbound) -> tuple[int, int]:
    """Give status and JSON-RPC code."""
    return answer.status, answer.json["error"]["code"]


class TransportTests(SynchronousTestCase):
    """Methods, types and forms."""

    @override
    def setUp(self) -> None:
        self.world = World()
        self.session = self.world.open()

    def test_only_json_is_read(self) -> None:
        """Another type or coding of the body is refused."""
        for kind in (b"text/plain", b""):
            answer = self.world.post(request("ping"), self.session, kind=kind)
            self.assertEqual(code_of(answer), (415, -32600))
        answer = self.world.post(request("ping"), self.session, kind=b"Application/JSON; charset=x")
        self.assertEqual(answer.status, 200)
        coded = ((b"content-encoding", b"gzip"),)
        self.assertEqual(self.world.post(request("ping"), self.session, more=coded).status, 415)

    def test_accept_is_read_leniently(self) -> None:
        """Absent and wildcards mean both; what leaves no form is refused under the id."""
        for accept in (None, b"*/*", b"application/*", b"text/html, */*;q=0.1"):
            answer = self.world.post(request("ping"), self.session, accept=accept)
            self.assertEqual(answer.json["result"], {})
        answer = self.world.post(request("ping"), self.session, accept=b"text/*")
        self.assertEqual(answer.told["result"], {})
        answer = self.world.post(request("ping", "x"), self.session, accept=b"text/html")
        self.assertEqual(code_of(answer), (406, -32600))
        self.assertEqual(answer.json["id"], "x")

    def test_unreadable_bodies_keep_their_id_where_there_is_one(self) -> None:
        """Bad JSON has no id; a bad message is refused under its own."""
        answer = self.world.post(b"{", self.session)
        self.assertEqual((code_of(answer), answer.json["id"]), ((400, -32700), None))
        answer = self.world.post(b'{"id": 7, "method": "ping"}', self.session)
        self.assertEqual((code_of(answer), answer.json["id"]), ((400, -32600), 7))
        self.assertEqual(self.world.post(b"[]", self.session).status, 400)

    def test_a_protocol_version_must_be_known(self) -> None:
        """Absent is fine (Gemini never sends it); unknown and modern ones are not."""
        for version, status in (
            (b"", 200),
            (b"2025-06-18", 200),
            (b"1999-01-01", 400),
            (MODERN, 400),
        ):
            answer = self.world.post(request("ping"), self.session, version=version)
            self.assertEqual(answer.status, status)

    def test_other_methods(self) -> None:
        """GET needs an event stream; OPTIONS tells the methods; PUT is none of them."""
        self.assertEqual(self.world.get(self.session, accept=b"application/json").status, 406)
        options = self.world.ask("OPTIONS")
        self.assertEqual((options.status, options.body), (204, b""))
        self.assertIn(b"DELETE", options.fields[b"allow"])
        for method in ("PUT", "HEAD"):
            answer = self.world.ask(method, session=self.session)
            self.assertEqual(code_of(answer), (405, -32600))
            self.assertEqual(answer.fields[b"allow"], options.fields[b"allow"])

    def test_initialize_needs_its_params(self) -> None:
        """Without version and capabilities there is nothing to agree on."""
        incomplete: list[dict[str, object]] = [
            {},
            {"protocolVersion": "2025-11-25"},
            {"capabilities": {}},
        ]
        for params in incomplete:
            answer = self.world.post({**INIT, "params": params})
            self.assertEqual(code_of(answer), (400, -32602))

    def test_a_bug_is_an_internal_error(self) -> None:
        """An unforeseen failure is told under the request's id, without a traceback."""

        def broken(*args: object) -> None:
            raise ZeroDivisionError

        self.world.sessions.find = broken  # type: ignore[method-assign,assignment]  # to break it
        answer = self.world.post(request("tools/list", 4), self.session)
        self.assertEqual((code_of(answer), answer.json["id"]), ((500, -32603), 4))
        self.assertEqual(code_of(self.world.get(self.session)), (500, -32603))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class SessionTests(SynchronousTestCase):
    """Who gets which session."""

    def test_unknown_foreign_and_other_servers_sessions_look_the_same(self) -> None:
        """To the last byte, with every method (R70)."""
        world = World()
        mine = world.open()
        foreign = world.open(key="k2")
        for method, body in (("POST", request("ping", 3)), ("GET", b""), ("DELETE", b"")):
            answers = [
                world.ask(method, body, session=session, path=path)
                for session, path in (
                    ("gate-unknown", b"/notes/mcp"),
                    (foreign, b"/notes/mcp"),
                    (mine, b"/other/mcp"),
                )
            ]
            self.assertEqual({a.status for a in answers}, {404})
            self.assertEqual(len({(a.body, tuple(a.fields.items())) for a in answers}), 1)
            self.assertEqual(answers[0].json["id"], 3 if method == "POST" else None)
        self.assertEqual(world.meters.events["session_theft"], 3)

    def test_a_session_id_is_sent_once(self) -> None:
        """Two of them could mean two sessions."""
        world = World()
        twice = ((b"mcp-session-id", b"gate-1"),)
        self.assertEqual(world.post(request("ping"), "gate-2", more=twice).status, 400)

    def test_get_and_delete_need_a_session(self) -> None:
        """They are never served from somebody's session."""
        world = World()
        world.open(told=False)
        self.assertEqual(world.get().status, 400)
        self.assertEqual(world.ask("DELETE").status, 400)

    def test_a_client_that_drops_its_id_gets_its_session(self) -> None:
        """Seed S1.19: initialize, then a list without an id: both succeed."""
        for transport in (Transport.STDIO, Transport.HTTP):
            world = World(transport)
            world.open(told=False)
            answer = world.post(request("tools/list"))
            if transport is Transport.STDIO:
                world.child.say(id=world.child.sent[-1]["id"], result={"tools": []})
            else:
                world.server.take().result(tools=[])
            self.assertEqual(answer.json["result"], {"tools": []})
            self.assertEqual(len(world.sessions), 1)
            self.assertEqual(world.leaks(), {})

    def test_a_client_that_returns_its_id_is_never_shared(self) -> None:
        """Seed S1.26: its session is not lent to a client without one."""
        world = World()
        world.open()
        answer = world.post(request("tools/list", "q"))
        self.assertEqual((code_of(answer), answer.json["id"]), ((400, -32600), "q"))

    def test_nobody_elses_session_is_lent(self) -> None:
        """Pooling looks at the own key's sessions of the same server only."""
        world = World()
        world.open(told=False)
        self.assertEqual(world.post(request("ping"), key="k2").status, 400)
        self.assertEqual(world.post(request("ping"), path=b"/other/mcp").status, 400)

    def test_pooling_can_be_turned_off(self) -> None:
        """A server may demand ids."""
        world = World(pool_lost_sessions=False)
        world.open(told=False)
        self.assertEqual(world.post(request("ping")).status, 400)

    def test_what_is_not_surely_legacy_is_never_pooled(self) -> None:
        """A probe without a revision, or with an unknown one, gets 400 under its id."""
        world = World()
        world.open(told=False)
        for message, version in (
            (request("server/discover", 5), b""),
            (request("tools/list", 5), b"1999-01-01"),
        ):
            answer = world.post(message, version=version)
            self.assertEqual((code_of(answer), answer.json["id"]), ((400, -32600), 5))
        self.assertEqual(world.post(request("ping"), version=b"2025-06-18").status, 200)

    def test_initialize_always_makes_a_session(self) -> None:
        """Seed S1.27: an id that comes with it is not looked at, nor is an unknown version."""
        world = World()
        session = world.open()
        answer = world.post(INIT, session, version=b"1999-01-01")
        self.assertEqual(answer.status, 200)
        self.assertNotEqual(answer.fields[b"mcp-session-id"].decode(), session)

    def test_whose_instance(self) -> None:
        """Shared by all, by the sessions of a key, or by nobody."""
        world = World()
        principal = caller_of("k1").principal
        owners = {
            isolation: {
                owner_of(World(isolation=isolation).spec, who, session)
                for who in (principal, caller_of("k2").principal)
                for session in ("a", "b")
            }
            for isolation in Isolation
        }
        self.assertEqual(owners[Isolation.SHARED], {Owner(Isolation.SHARED)})
        self.assertEqual(len(owners[Isolation.PER_KEY]), 2)
        self.assertEqual(len(owners[Isolation.PER_SESSION]), 4)
        self.assertNotIn("a", str(owner_of(world.spec, principal, "a").digest[32:]))


class LimitTests(SynchronousTestCase):
    """Rates and places."""

    def test_a_live_session_is_told_with_200(self) -> None:
        """Rate limits are errors of the call, told under its id."""
        world = World(rate=Rate(0.001, 11.0))
        session = world.open()
        self.assertEqual(world.post(request("ping"), session).status, 200)
        answer = world.post(request("ping", 5), session)
        self.assertEqual((code_of(answer), answer.json["id"]), ((200, -31006), 5))
        self.assertIn(b"retry-after", answer.fields)
        self.assertEqual(world.leaks(), {})

    def test_too_many_notifications_are_dropped(self) -> None:
        """They cost no calls, and a 429 would end the session of Python clients."""
        world = World(rate=Rate(0.001, 12.0))
        session = world.open()
        dropped = world.meters.events
        for _ in range(12):
            self.assertEqual(world.post(notification("notifications/x"), session).status, 202)
        self.assertEqual(dropped["messages_dropped"], 1)  # one was sent to open the session
        self.assertEqual(world.post(request("ping"), session).status, 200)
        self.assertEqual(world.leaks(), {})

    def test_each_element_of_a_batch_costs(self) -> None:
        """A batch is no way around the limit; it is refused call by call."""
        world = World(rate=Rate(0.001, 16.0))
        session = world.open(version="2025-03-26")
        batch = [request("a", 1), request("b", 2), notification("n/x"), request("c", 3)]
        self.assertEqual(world.post(batch, session).status, 0)
        answer = world.post(batch, session)
        self.assertEqual([m["id"] for m in answer.json], [1, 2, 3])
        self.assertEqual({m["error"]["code"] for m in answer.json}, {-31006})
        notes = [notification("n/x")] * 3
        for _ in range(6):
            self.assertEqual(world.post(notes, session).status, 202)
        self.assertEqual(world.meters.events["messages_dropped"], 1)

    def test_places_in_work(self) -> None:
        """A key has so many calls in work; a batch that does not fit takes none."""
        world = World(concurrent=2)
        session = world.open(version="2025-03-26")
        world.post(request("tools/call"), session)
        answer = world.post([request("a", 1), request("b", 2)], session)
        self.assertEqual({m["error"]["code"] for m in answer.json}, {-31005})
        self.assertEqual(world.leaks()["slots"], 1)
        world.post(request("tools/call", 2), session)
        self.assertEqual(code_of(world.post(request("tools/call", 3), session)), (200, -31005))
        self.assertEqual(code_of(world.post(INIT)), (503, -31005))

    def test_sessions_in_use_leave_no_room(self) -> None:
        """A session that can not be made gives its slot back."""
        world = World(streams=9)
        for _ in range(4):
            world.get(world.open())
        self.assertEqual(code_of(world.post(INIT)), (503, -31005))
        self.assertEqual(world.leaks()["streams"], 4)
        self.assertNotIn("slots", world.leaks())

    def test_streams_of_a_key(self) -> None:
        """One key has so many streams open."""
        world = World(streams=2)
        streams = [world.get(world.open()) for _ in range(3)]
        self.assertEqual([s.status for s in streams], [200, 200, 503])
        streams[0].go()
        self.assertEqual(world.get(world.open()).status, 200)


_ACTIONS = st.lists(
    st.sampled_from(
        [
            "call",
            "list",
            "batch",
            "tell",
            "cancel",
            "get",
            "answer",
            "die",
            "go",
            "time",
            "delete",
            "open",
            "lose",
            "full",
            "refuse",
            "stream",
            "half",
        ]
    ),
    max_size=25,
)


class ReleaseTests(SynchronousTestCase):
    """Whatever happens, what was taken is given back."""

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([Transport.STDIO, Transport.HTTP]), _ACTIONS)
    def test_everything_is_given_back_once(self, transport: Transport, actions: list[str]) -> None:
        """After any conversation nothing is held, and nothing was given back twice."""
        world = World(transport, concurrent=6)
        session = world.open(version="2025-03-26")
        asked: list[FakeInbound] = []
        for number, action in enumerate(actions):
            session = self.act(world, action, session, number, asked)
        self.end(world, asked)
        self.assertEqual(world.leaks(), {})
        self.assertEqual(self.flushLoggedErrors(), [])
        for answer in asked:
            self.assertTrue(answer.finished)

    def act(
        self, world: World, action: str, session: str, number: int, asked: list[FakeInbound]
    ) -> str:
        """Do one thing."""
        instance = world.pool.newest
        stdio = world.spec.transport is Transport.STDIO
        message: Any = {
            "call": request("tools/call", 1),
            "list": request("tools/list", number),
            "batch": [request("a", 1), request("b", 2), notification("n/x")],
            "tell": notification("n/x"),
            "cancel": notification("notifications/cancelled", requestId=1),
        }.get(action)
        if message is not None:
            asked.append(world.post(message, session))
        elif action == "get":
            asked.append(world.get(session))
        elif action == "answer":
            self.answer(world)
        elif action in ("die", "lose"):
            if instance.key in world.pool._running:
                self.kill(world)
            world.pool.at_once = action == "die"
        elif action in ("stream", "half"):
            self.stream(world, action)
        elif action == "refuse":
            world.pool.started(BackendUnavailable())
        elif action == "go" and asked:
            asked[number % len(asked)].go()
        elif action == "time":
            world.pass_time(16)
        elif action == "delete":
            world.ask("DELETE", session=session)
        elif action == "full" and stdio:
            instance.channel.full = not instance.channel.full
        elif action == "open":
            answer = world.post(INIT)
            if stdio:
                world.answer_initialize()
            asked.append(answer)
            return answer.fields.get(b"mcp-session-id", b"gone").decode()
        return session

    def kill(self, world: World) -> None:
        """Have the newest instance die."""
        instance = world.pool.newest
        if world.spec.transport is Transport.STDIO:
            world.pool.die()
            return
        del world.pool._running[instance.key]
        waiting, instance.http.waiting = instance.http.waiting, []
        for sent in waiting:
            sent.fail()

    def answer(self, world: World) -> None:
        """Have the server answer everything."""
        instance = world.pool.newest
        if world.spec.transport is Transport.STDIO:
            world.answer_initialize()
            for message in instance.channel.take():
                if "id" in message and "method" in message:
                    instance.channel.say(id=message["id"], result={"protocolVersion": "2025-03-26"})
            return
        waiting, instance.http.waiting = instance.http.waiting, []
        for sent in waiting:
            if sent.method == "GET":
                sent.empty(405)
            elif isinstance(sent.message, list):
                messages = [m for m in sent.message if "id" in m]
                sent.json([{"jsonrpc": "2.0", "id": m["id"], "result": {}} for m in messages])
            elif "id" in sent.message:
                sent.result()
            else:
                sent.empty()

    def stream(self, world: World, action: str) -> None:
        """Have an HTTP server begin an answer and not come to its end."""
        waiting, world.server.waiting = world.server.waiting, []
        for sent in waiting:
            sent.head(200 if sent.method == "POST" else 404)
            if sent.method == "POST":
                sent.event(notification("notifications/message", data="result"))
            if action == "half":
                sent.data(b"data: {")
                sent.fail()
            else:
                sent.done()

    def end(self, world: World, asked: list[FakeInbound]) -> None:
        """Have everything come to its end."""
        world.pool.at_once = True
        world.pool.started()
        for _ in range(4):
            self.answer(world)
            world.pass_time(1)
        world.pass_time(700)
        for session in world.sessions:
            world.sessions.end(session, "test")
        world.settle()
        world.pass_time(70)


class RestartTests(SynchronousTestCase):
    """What a restart of the gate keeps."""

    def test_the_pooling_rule_survives(self) -> None:
        """Whether a client returns its id is remembered."""
        world = World()
        session = world.open()
        again = World(store=world.store)
        self.successResultOf(again.sessions.load())
        self.assertEqual(again.post(request("ping")).status, 400)
        self.assertEqual(again.post(request("ping"), session).status, 200)
        self.assertNotIn("gate-", json.dumps([v.label for v in again.sessions.views()]))
