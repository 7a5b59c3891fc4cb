"""Tests of mcpgate.web.mcp.on_modern.sessions and bridged_call: legacy clients, a modern server."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BackendTimeout, BackendUnavailable
from mcpgate.mcp.headers import PARAM
from mcpgate.model import Isolation, Transport
from mcpgate.web.mcp.on_modern import sessions as bridged_sessions
from mcpgate.web.mcp.on_modern.call import ASK_S
from tests.web.bridge_kit import BridgeWorld
from tests.web.endpoint_kit import INIT, caller_of, notification, request

FORM = {
    "method": "elicitation/create",
    "params": {"mode": "form", "message": "?", "requestedSchema": {"type": "object"}},
}


class BridgedCase(SynchronousTestCase):
    """A gate before a modern server on HTTP."""

    def setUp(self) -> None:
        """Make it."""
        self.world = BridgeWorld()
        self.asker = self.world.asker

    def tearDown(self) -> None:
        """Hold that whatever was taken is given back when all sessions have ended."""
        for session in self.world.sessions:
            self.world.sessions.end(session, "test")
        self.world.settle()
        self.assertEqual(self.world.leaks(), {})

    def open(self, capabilities: dict[str, Any] | None = None, **options: Any) -> str:
        """Begin a session of a client that can do this."""
        params = {
            **INIT["params"],
            "capabilities": {"elicitation": {}, "sampling": {}, "roots": {}}
            if capabilities is None
            else capabilities,
            "protocolVersion": options.pop("version", "2025-11-25"),
        }
        answer = self.world.post({**INIT, "params": params}, **options)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.fields[b"mcp-session-id"].decode()


class OpeningTests(BridgedCase):
    """Initialize, made of discover."""

    def test_initialize(self) -> None:
        """The client gets its own revision, the server's name, and what can be carried."""
        for version, agreed in (("2025-06-18", "2025-06-18"), ("2026-07-28", "2025-11-25")):
            params = {**INIT["params"], "protocolVersion": version}
            answer = self.world.post({**INIT, "params": params})
            self.assertEqual(
                answer.json["result"],
                {
                    "protocolVersion": agreed,
                    "capabilities": {
                        k: v for k, v in self.asker.capabilities.items() if k != "extensions"
                    },
                    "serverInfo": {"name": "new", "version": "9"},
                },
            )
        told = self.asker.all[0]
        self.assertEqual(told.meta["clientCapabilities"], {"roots": {}})
        self.assertEqual(told.meta["clientInfo"], {"name": "test", "version": "1"})

    def test_believed_for_a_while(self) -> None:
        """A server that says how long its answer holds is not asked again before; per key."""
        self.asker.ttl_ms = 10_000
        self.open()
        self.open()
        self.assertEqual(self.asker.discovered, 1)
        self.open(key="k2")
        self.assertEqual(self.asker.discovered, 2)
        self.world.pass_time(10)
        self.open()
        self.assertEqual(self.asker.discovered, 3)

    def test_bounds(self) -> None:
        """What is believed of servers is believed of a bounded number of keys."""
        self.asker.ttl_ms = 10_000
        self.patch(bridged_sessions, "MAX_DISCOVERED", 1)
        self.open()
        self.open(key="k2")
        self.open()
        self.assertEqual(self.asker.discovered, 3)

    def test_for_snapshots(self) -> None:
        """What the server said of itself can be asked of the session, and its server be leased."""
        session = self.world.session(self.open())
        greeting = self.world.bridge.greeting(session)
        self.assertEqual((greeting or {})["serverInfo"], {"name": "new", "version": "9"})
        caller = caller_of("k1")
        connecting = self.world.bridge.connect(self.world.spec, caller, session)
        self.successResultOf(connecting).release()
        self.world.bridge.unbind(session)
        self.assertIsNone(self.world.bridge.greeting(session))

    def test_odd_answer(self) -> None:
        """An answer to discover that tells nothing of eras refutes nothing."""
        self.asker.plays = False
        answer = self.world.post(INIT)
        self.asker.take().error(-32021)
        self.assertEqual(answer.status, 503)
        self.assertTrue(self.world.era_book.known(self.world.spec).modern_only)

    def test_unreachable(self) -> None:
        """A server that can not be asked is no reason to try another transport (never a 4xx)."""
        self.asker.plays = False
        answer = self.world.post(INIT)
        self.asker.take().fail(BackendUnavailable("down"))
        self.assertEqual(answer.status, 503)
        self.assertEqual(len(self.world.sessions), 0)

    def test_silent(self) -> None:
        """A server that never answers discover is waited for as long as for a handshake."""
        self.asker.plays = False
        self.world.post(INIT)
        (asked,) = self.asker.waiting
        life = self.world.spec.lifetime
        self.world.pass_time(life.start_wait_s + life.start_s - 1)
        self.assertFalse(asked.taken_back)
        self.world.pass_time(2)
        self.assertTrue(asked.taken_back)
        self.assertEqual(len(self.world.sessions), 0)

    def test_not_modern_any_more(self) -> None:
        """A server that refuses discover is forgotten; the next client finds out what it is."""
        self.asker.plays = False
        answer = self.world.post(INIT)
        self.asker.take().error(-32601)
        self.assertEqual(answer.status, 503)
        verdict = self.world.era_book.known(self.world.spec)
        self.assertEqual((verdict.legacy, verdict.modern), (None, False))

    def test_initialized(self) -> None:
        """The server hears nothing of what it does not know."""
        session = self.open()
        heard = len(self.asker.all)
        for method in ("notifications/initialized", "notifications/roots/list_changed"):
            self.assertEqual(self.world.post(notification(method), session).status, 202)
        self.assertEqual(self.world.post(request("ping"), session).json["result"], {})
        self.assertEqual(len(self.asker.all), heard)
        self.assertTrue(self.world.session(session).record.initialized)

    def test_deleted(self) -> None:
        """A session that was ended is unknown; what was in work is taken back."""
        session = self.open()
        self.world.post(request("tools/call", name="x"), session)
        asked = self.asker.take()
        self.assertEqual(self.world.ask("DELETE", session=session).status, 200)
        self.assertTrue(asked.taken_back)
        self.assertEqual(self.world.post(request("tools/list"), session).status, 404)


class CallTests(BridgedCase):
    """Requests."""

    def test_list(self) -> None:
        """A list goes up with the context and comes down without what is modern."""
        session = self.open()
        answer = self.world.post(request("tools/list", 5, cursor=""), session)
        asked = self.asker.take()
        self.assertEqual((asked.request.method, asked.params), ("tools/list", {"cursor": ""}))
        assert asked.source is not None
        self.assertIs(asked.source.head, answer.head)
        asked.result(tools=[{"name": "t", "inputSchema": {}}], ttlMs=1, cacheScope="public")
        self.assertEqual(answer.json["id"], 5)
        self.assertEqual(
            answer.json["result"], {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
        )

    def test_progress_and_logs(self) -> None:
        """What the server tells of a call is told within its answer."""
        session = self.open()
        self.assertEqual(
            self.world.post(request("logging/setLevel", level="info"), session).json["result"], {}
        )
        answer = self.world.post(
            request("tools/call", name="x", _meta={"progressToken": "p"}), session
        )
        asked = self.asker.take()
        self.assertEqual((asked.meta["progressToken"], asked.meta["logLevel"]), ("p", "info"))
        asked.tell("notifications/progress", progressToken="p", progress=1)
        asked.tell("notifications/message", level="info", data="x")
        asked.result(content=[])
        self.assertEqual(
            [event.get("method", "answer") for event in answer.events],
            ["notifications/progress", "notifications/message", "answer"],
        )
        asked.tell("notifications/progress", progressToken="p", progress=2)
        self.assertEqual(len(answer.events), 3)

    def test_log_level(self) -> None:
        """The level is the session's own, kept over a restart; unknown ones are refused."""
        session = self.open()
        refused = self.world.post(request("logging/setLevel", level="loud"), session)
        self.assertEqual(refused.json["error"]["code"], -32602)
        self.world.post(request("logging/setLevel", level="error"), session)
        self.assertEqual(self.world.session(session).record.log_level, "error")

    def test_methods_of_no_era(self) -> None:
        """What the bridge can not carry is not there."""
        session = self.open()
        for method in ("tasks/list", "server/discover", "subscriptions/listen"):
            answer = self.world.post(request(method), session)
            self.assertEqual(answer.json["error"]["code"], -32601, method)
        self.assertEqual(self.asker.waiting, [])

    def test_errors(self) -> None:
        """Errors of the server are the client's, in the words of its era."""
        session = self.open()
        answer = self.world.post(request("resources/read", uri="a:b"), session)
        self.asker.take().error(-32602, "Resource not found")
        self.assertEqual(answer.json["error"]["code"], -32002)
        answer = self.world.post(request("tools/call", name="x"), session)
        self.asker.take().error(-32021, data={"requiredCapabilities": {"sampling": {}}})
        self.assertTrue(answer.json["result"]["isError"])

    def test_failures(self) -> None:
        """Failures on the way are told, whenever they come."""
        session = self.open()
        answer = self.world.post(request("tools/call", name="x"), session)
        self.asker.take().fail(BackendDied())
        self.assertEqual(answer.json["error"]["code"], -31003)
        self.asker.error = BackendTimeout()
        answer = self.world.post(request("tools/call", name="x"), session)
        self.assertEqual(answer.json["error"]["code"], -31002)

    def test_same_ids(self) -> None:
        """Two requests under one id are two requests."""
        session = self.open()
        first = self.world.post(request("tools/call", 1, name="a"), session)
        second = self.world.post(request("tools/call", 1, name="b"), session)
        one, two = self.asker.take(), self.asker.take()
        two.result(content=["b"])
        one.result(content=["a"])
        self.assertEqual(first.json["result"]["content"], ["a"])
        self.assertEqual(second.json["result"]["content"], ["b"])

    def test_batch(self) -> None:
        """Each element of a batch is a request of its own; one answer holds all of theirs."""
        session = self.open(version="2025-03-26")
        answer = self.world.post(
            [
                request("ping", 1),
                request("tools/list", 2),
                notification("notifications/roots/list_changed"),
                request("logging/setLevel", 3, level="info"),
                request("tasks/get", 4),
            ],
            session,
        )
        self.asker.take().result(tools=[])
        self.assertEqual(
            {one["id"]: "error" in one for one in answer.json},
            {1: False, 2: False, 3: False, 4: True},
        )

    def test_cancelled(self) -> None:
        """A cancelled request is taken back at the server; unknown ones do not matter."""
        session = self.open()
        self.world.post(request("tools/call", 7, name="x"), session)
        asked = self.asker.take()
        self.world.post(notification("notifications/cancelled", requestId="7"), session)
        self.assertFalse(asked.taken_back)
        told = self.world.post(notification("notifications/cancelled", requestId=7), session)
        self.assertEqual(told.status, 202)
        self.assertTrue(asked.taken_back)

    def test_client_gone(self) -> None:
        """A client that only lost its connection has not cancelled."""
        session = self.open()
        answer = self.world.post(request("tools/call", 7, name="x"), session)
        asked = self.asker.take()
        answer.go()
        self.assertFalse(asked.taken_back)
        self.assertEqual(self.world.session(session).in_use, 1)
        asked.result(content=[])
        self.assertEqual(self.world.session(session).in_use, 0)

    def test_fields_of_tools(self) -> None:
        """Arguments that a tool wants in fields are put there, once its schema was seen."""
        session = self.open()
        schema = {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        }
        bad = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
        listing = self.world.post(request("tools/list"), session)
        self.asker.take().result(
            tools=[{"name": "here", "inputSchema": schema}, {"name": "odd", "inputSchema": bad}, 3]
        )
        self.assertEqual([tool["name"] for tool in listing.json["result"]["tools"]], ["here"])
        arguments = {"region": "eu"}
        self.world.post(request("tools/call", name="here", arguments=arguments), session)
        self.assertEqual(self.asker.waiting[0].fields, [(PARAM + b"region", b"eu")])
        self.world.post(request("tools/call", name="other", arguments=arguments), session)
        self.assertEqual(self.asker.waiting[1].fields, [])
        again = {"name": "here", "inputSchema": {"type": "object"}}
        self.world.post(request("tools/list"), session)
        self.asker.waiting[2].result(tools=[again])
        self.world.post(request("tools/call", name="here", arguments=arguments), session)
        self.assertEqual(self.asker.waiting[3].fields, [])


class AskingTests(BridgedCase):
    """What the server wants to know is asked of the client within its request."""

    def test_form(self) -> None:
        """The client is asked on its stream; the server gets the answer with its state."""
        session = self.open()
        answer = self.world.post(request("tools/call", 7, name="x"), session)
        self.asker.take().require({"who": FORM}, "opaque")
        (asked,) = answer.events
        self.assertEqual(asked["method"], "elicitation/create")
        self.assertFalse(answer.finished)
        reply = {"action": "accept", "content": {"a": 1}}
        self.assertEqual(self.world.reply(session, asked["id"], reply).status, 202)
        again = self.asker.take()
        self.assertEqual(
            again.params, {"name": "x", "inputResponses": {"who": reply}, "requestState": "opaque"}
        )
        again.result(content=[{"type": "text", "text": "ok"}])
        self.assertEqual(answer.events[-1]["result"]["content"][0]["text"], "ok")
        self.assertTrue(answer.finished)
        # A late second answer is nobody's.
        self.assertEqual(self.world.reply(session, asked["id"], reply).status, 202)
        self.assertEqual(self.asker.waiting, [])

    def test_other_session(self) -> None:
        """Nobody answers for another session, under whatever id."""
        session, other = self.open(), self.open()
        answer = self.world.post(request("tools/call", 7, name="x"), session)
        self.asker.take().require({"who": FORM})
        self.world.reply(other, answer.events[0]["id"], {"action": "accept"})
        self.world.reply(other, 5, {"action": "accept"})
        self.assertEqual(self.asker.waiting, [])

    def test_json_only(self) -> None:
        """A client that takes no stream for an answer is asked on its GET stream."""
        session = self.open()
        stream = self.world.get(session)
        answer = self.world.post(
            request("tools/call", 7, name="x"), session, accept=b"application/json"
        )
        call = next(a for a in self.asker.waiting if a.request.method == "tools/call")
        call.require({"who": FORM})
        self.assertEqual(stream.events[-1]["method"], "elicitation/create")
        self.world.reply(session, stream.events[-1]["id"], {"action": "decline"})
        self.asker.waiting[-1].result(content=[])
        self.assertEqual(answer.json["id"], 7)

    def test_no_answer(self) -> None:
        """A client that thinks for too long is told that it need not answer any more."""
        session = self.open()
        answer = self.world.post(request("tools/call", 7, name="x"), session)
        self.asker.take().require({"who": FORM})
        self.world.pass_time(ASK_S + 1)
        asked, recalled, last = [event for event in answer.events if event]
        self.assertEqual(recalled["method"], "notifications/cancelled")
        self.assertEqual(recalled["params"]["requestId"], asked["id"])
        self.assertTrue(last["result"]["isError"])

    def test_cancelled_meanwhile(self) -> None:
        """A request that is cancelled while the client is asked is over."""
        session = self.open()
        answer = self.world.post(request("tools/call", 7, name="x"), session)
        self.asker.take().require({"who": FORM})
        self.world.post(notification("notifications/cancelled", requestId=7), session)
        self.assertTrue(answer.finished)
        self.assertEqual([e.get("method") for e in answer.events][1:], ["notifications/cancelled"])

    def test_not_able(self) -> None:
        """A client that can not be asked is not asked, and the server was told so before."""
        session = self.open({})
        answer = self.world.post(request("tools/call", 7, name="x"), session)
        asked = self.asker.take()
        self.assertEqual(asked.meta["clientCapabilities"], {})
        asked.require({"who": FORM})
        self.assertTrue(answer.json["result"]["isError"])

    def test_after_restart(self) -> None:
        """A session of an earlier life of the gate goes on without a word to the server."""
        session = self.open()
        self.world.post(request("logging/setLevel", level="info"), session)
        self.successResultOf(self.world.store.flush())
        again = BridgeWorld(store=self.world.store)
        self.successResultOf(again.sessions.load())
        answer = again.post(request("tools/call", 1, name="x"), session)
        (asked,) = again.asker.all
        self.assertEqual(asked.meta["logLevel"], "info")
        self.assertEqual(
            set(asked.meta["clientCapabilities"]), {"elicitation", "sampling", "roots"}
        )
        asked.result(content=[])
        self.assertEqual(answer.status, 200)


class DoubtTests(BridgedCase):
    """A server that does not behave like a modern one is looked at again."""

    def test_looked_at(self) -> None:
        """Complaints about sessions are of the other era; one look a minute is enough."""
        session = self.open()
        for _ in range(3):
            self.world.post(request("tools/list"), session)
            self.asker.take().error(-32000, "Missing session")
        self.assertEqual(self.world.probed, 1)
        self.world.found = False
        self.world.pass_time(60)
        self.world.post(request("tools/list"), session)
        self.asker.take().error(-32000, "Missing session")
        self.assertEqual(self.world.probed, 2)
        # The session goes on in the other era: the handshake is replayed.
        answer = self.world.post(request("tools/list", 9), session)
        self.world.settle()
        self.assertEqual(self.world.server.heard()[0], "initialize")
        self.world.server.take().result(tools=[])
        self.assertEqual(answer.json["id"], 9)

    def test_ordinary_errors(self) -> None:
        """What servers of every era complain of says nothing."""
        session = self.open()
        for code in (-32602, -32601, -32603, -32021):
            self.world.post(request("tools/call", name="x"), session)
            self.asker.take().error(code)
        self.assertEqual(self.world.probed, 0)


class StdioTests(SynchronousTestCase):
    """A modern server behind pipes."""

    def test_starts_nothing(self) -> None:
        """A process that serves the right era stays, and none is started to find out."""
        world = BridgeWorld(Transport.STDIO)
        session = world.open(told=False)
        self.assertEqual(world.pool.instances, [])
        key = world.bridge._owner(world.spec, world.session(session))
        self.successResultOf(world.pool.lease(world.spec, key, caller_of("k1"))).release()
        world.pool.newest.upstream = world.pool.newest.http  # no `StdioUpstream`
        world.post(request("tools/list"), session)
        self.assertEqual(world.pool.stopped, [])

    def test_makes_way(self) -> None:
        """A process that was started for the legacy era is stopped before the first request."""
        world = BridgeWorld(Transport.STDIO, known=(None, None))
        session = world.open()
        world.era_book.note(world.spec, legacy=False, modern=True)
        world.post(request("tools/list"), session)
        self.assertEqual(world.pool.stopped, ["i1"])
        self.assertEqual(world.asker.take().request.method, "tools/list")

    def test_instances_are_nobodys(self) -> None:
        """A server that knows no sessions is not stopped with one."""
        world = BridgeWorld(Transport.STDIO, isolation=Isolation.PER_SESSION)
        session = world.open(told=False)
        world.ask("DELETE", session=session)
        self.assertEqual(world.pool.forgotten, [])
