"""Tests of mcpgate.web.mcp.cold.answers: clients of servers that do not run."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable, Starting
from mcpgate.mcp.jsonrpc import Notification
from mcpgate.model import Isolation, Transport
from tests.web.endpoint_kit import INIT, World, notification, request
from tests.web.fake_inbound import FakeInbound

TOOLS = [{"name": "one"}, {"name": "two"}]
OTHERS = [{"name": "three"}]
CAPABILITIES: dict[str, object] = {"tools": {}, "prompts": {}, "logging": {}}


class ColdCase(SynchronousTestCase):
    """
    A gate with snapshots, and a server that lists ``tools``.

    :ivar looks: how often the server was looked at by the gate.
    """

    transport = Transport.STDIO

    def setUp(self) -> None:
        """Make the gate; nothing runs."""
        self.tools: list[dict[str, str]] = TOOLS
        self.capabilities: dict[str, Any] = CAPABILITIES
        self.prompts_known = True
        self.looks = 0
        self.world = self.make()

    def make(self, **options: Any) -> World:
        """Make a gate."""
        return World(self.transport, cold=True, **options)

    # --- The server -----------------------------------------------------------------------------

    def play(self, *, answer_calls: bool = True) -> list[str]:
        """Have the newest server answer everything it was asked; give the methods."""
        heard: list[str] = []
        while True:
            self.world.settle()
            asked = self.take(answer_calls)
            if asked is None:
                return heard
            heard.append(asked)

    def take(self, answer_calls: bool) -> str | None:
        """Have the child answer one message."""
        for message in self.world.child.sent:
            if message.get("method") != "tools/call" or answer_calls:
                break
        else:
            return None
        self.world.child.sent.remove(message)
        if "id" in message:
            self.world.child.say(id=message["id"], **self.answer(message))
        return str(message.get("method"))

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Give the answer of the server."""
        method = message["method"]
        if method == "prompts/list" and not self.prompts_known:
            return {"error": {"code": -32601, "message": "no such method"}}
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": self.capabilities,
                "serverInfo": {"name": "s", "version": "1"},
            },
            "tools/list": {"tools": self.tools},
            "prompts/list": {"prompts": []},
        }
        self.looks += method == "prompts/list"
        return {"result": results.get(method, {"content": []})}

    # --- The client -----------------------------------------------------------------------------

    def first(self, **options: Any) -> str:
        """Be the first client ever: wait for the server, list its tools, call."""
        opened = self.world.post(INIT, **options)
        self.world.settle()
        self.play()
        session = opened.fields[b"mcp-session-id"].decode()
        self.world.post(notification("notifications/initialized"), session, **options)
        listed = self.world.post(request("tools/list"), session, **options)
        self.play()
        self.assertEqual(listed.json["result"]["tools"], self.tools)
        self.world.pass_time(1)
        self.play()
        return session

    def stop(self) -> None:
        """Stop the server; further starts take their time."""
        self.world.pool.die()
        self.world.pool.at_once = False
        self.world.pass_time(1)

    def open_cold(self, **options: Any) -> tuple[FakeInbound, str]:
        """Initialize while the server does not run."""
        opened = self.world.post(INIT, **options)
        self.assertEqual(opened.status, 200, opened.body)
        session = opened.fields[b"mcp-session-id"].decode()
        told = self.world.post(notification("notifications/initialized"), session, **options)
        self.assertEqual(told.status, 202)
        return opened, session

    def list_tools(self, session: str, **options: Any) -> FakeInbound:
        """Ask for the tools."""
        return self.world.post(request("tools/list", 5), session, **options)

    def start(self) -> None:
        """Have the start come to its end, and the server do what it is asked."""
        self.world.pool.started()
        self.play()

    def events(self, name: str) -> int:
        """Tell how often something was counted."""
        return self.world.meters.events[name]


class StdioColdTests(ColdCase):
    """Servers on stdio."""

    def test_first_client_waits(self) -> None:
        """Without a snapshot everybody waits as ever; then there is one."""
        self.world.pool.at_once = False
        opened = self.world.post(INIT)
        self.assertEqual(opened.status, 0)
        self.assertEqual(self.world.kept, {})
        self.world.pool.started()
        self.play()
        self.world.pool.at_once = True
        session = opened.fields[b"mcp-session-id"].decode()
        self.world.post(notification("notifications/initialized"), session)
        listed = self.list_tools(session)
        self.play()
        self.assertEqual(listed.json["result"]["tools"], TOOLS)
        self.assertEqual((len(self.world.kept), self.looks), (1, 1))
        self.assertEqual(self.events("snapshot_answer"), 0)
        self.assertEqual(self.world.leaks(), {})

    def test_looked_at_once(self) -> None:
        """A running server is looked at once, whatever clients ask of it."""
        session = self.first()
        for _ in range(3):
            self.list_tools(session)
            self.world.post(request("tools/call", name="x"), session)
            self.play()
        self.assertEqual(self.looks, 1)

    def test_answered_at_once(self) -> None:
        """While the server starts, initialize and lists are answered, and a call waits for it."""
        self.first()
        self.stop()
        opened, session = self.open_cold()
        result = opened.json["result"]
        self.assertEqual(result["protocolVersion"], "2025-11-25")
        self.assertEqual(result["capabilities"]["tools"], {"listChanged": True})
        self.assertEqual(self.list_tools(session).json["result"]["tools"], TOOLS)
        call = self.world.post(request("tools/call", 7, name="one"), session)
        self.assertEqual(call.status, 0)
        self.assertEqual(self.events("snapshot_answer"), 2)
        self.start()
        self.assertEqual(call.json["result"], {"content": []})
        self.assertEqual((self.looks, self.events("snapshot_outdated")), (2, 0))
        self.assertEqual(self.world.leaks(), {})

    def test_started_behind(self) -> None:
        """A client that only connects has the server started and looked at behind it."""
        self.first()
        self.stop()
        self.open_cold()
        self.start()
        self.assertEqual((self.looks, len(self.world.pool.instances)), (2, 2))
        self.assertEqual(self.world.leaks(), {})

    def test_process_that_does_not_answer_yet(self) -> None:
        """A process alone is no server: until it has answered the handshake it still starts."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        self.world.pool.started()
        self.world.settle()
        self.assertEqual(self.list_tools(session).json["result"]["tools"], TOOLS)
        _, other = self.open_cold()
        self.assertEqual(self.list_tools(other).json["result"]["tools"], TOOLS)
        self.assertEqual([one["method"] for one in self.world.child.sent], ["initialize"])
        self.tools = OTHERS
        call = self.world.post(request("tools/call", 7, name="one"), session)
        self.play()
        self.assertEqual(call.json["result"], {"content": []})
        self.assertEqual((self.looks, self.events("snapshot_outdated")), (2, 2))
        self.assertEqual(self.world.leaks(), {})

    def test_other_lists(self) -> None:
        """Who was told lists that are others now hears so on its stream; the snapshot is new."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        stream = self.world.get(session)
        self.list_tools(session)
        self.tools = OTHERS
        self.start()
        self.assertEqual([e["method"] for e in stream.events], ["notifications/tools/list_changed"])
        self.assertEqual(self.list_tools(session).status, 0)
        self.play()
        self.stop()
        self.assertEqual(self.list_tools(session).json["result"]["tools"], OTHERS)
        self.assertEqual(self.events("snapshot_outdated"), 1)

    def test_stream_opened_later(self) -> None:
        """A stream opened after the lists were found to differ is told, too."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        self.list_tools(session)
        self.tools = OTHERS
        self.start()
        stream = self.world.get(session)
        self.assertEqual([e["method"] for e in stream.events], ["notifications/tools/list_changed"])

    def test_who_was_told_nothing(self) -> None:
        """A session that was told no list hears of no change."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        stream = self.world.get(session)
        self.tools = OTHERS
        self.start()
        self.assertEqual(stream.events, [])

    def test_two_sessions(self) -> None:
        """All sessions that were told wrongly hear so, whoever's look found out."""
        self.first()
        self.stop()
        sessions = [self.open_cold()[1] for _ in range(2)]
        streams = [self.world.get(session) for session in sessions]
        for session in sessions:
            self.list_tools(session)
        self.tools = OTHERS
        self.start()
        for stream in streams:
            self.assertEqual(
                [e["method"] for e in stream.events], ["notifications/tools/list_changed"]
            )
        self.assertEqual(self.looks, 2)

    def test_other_greeting(self) -> None:
        """A server that can other things now says so to the next session."""
        self.first()
        self.stop()
        self.open_cold()
        self.capabilities = {"tools": {}, "prompts": {}, "resources": {}}
        self.start()
        self.stop()
        opened, _ = self.open_cold()
        self.assertIn("resources", opened.json["result"]["capabilities"])

    def test_nobody_elses(self) -> None:
        """One key's lists are never shown to another."""
        self.first()
        self.world.pool.at_once = False
        opened = self.world.post(INIT, key="k2")
        self.assertEqual(opened.status, 0)
        self.assertEqual(self.events("snapshot_answer"), 0)

    def test_another_kind_of_client(self) -> None:
        """A client that can other things waits for what the server says to it."""
        self.first()
        self.stop()
        params = {**INIT["params"], "capabilities": {"sampling": {}}}
        self.assertEqual(self.world.post({**INIT, "params": params}).status, 0)

    def test_shared(self) -> None:
        """Where nothing of the caller reaches the server, one key's snapshot is everybody's."""
        self.world = self.make(isolation=Isolation.SHARED)
        self.first()
        self.stop()
        opened = self.world.post(INIT, key="k2")
        self.assertEqual(opened.status, 200)

    def test_per_session(self) -> None:
        """A server of one session each always starts, and never makes anybody wait."""
        self.world = self.make(isolation=Isolation.PER_SESSION)
        self.first()
        self.world.pool.at_once = False
        _, session = self.open_cold()
        self.assertEqual(self.list_tools(session).json["result"]["tools"], TOOLS)
        self.start()
        self.assertEqual(self.world.leaks(), {})

    def test_off(self) -> None:
        """Turned off, nothing is kept and everybody waits."""
        self.world = self.make(snapshot="off")
        session = self.first()
        self.assertEqual((self.world.kept, self.looks), ({}, 0))
        self.world.child.say(method="notifications/tools/list_changed")
        self.stop()
        self.assertEqual(self.world.post(INIT).status, 0)
        self.assertEqual(self.list_tools(session).status, 0)

    def test_what_is_not_from_a_snapshot(self) -> None:
        """Pages, batches, unknown lists and anything else wait for the server."""
        self.prompts_known = False
        session = self.first()
        self.stop()
        for asked in (
            request("tools/list", 1, cursor="2"),
            request("prompts/list", 2),
            request("resources/list", 3),
            request("prompts/get", 4),
        ):
            self.assertEqual(self.world.post(asked, session).status, 0, asked)
        self.world.pool.started(BackendUnavailable())

    def test_batch(self) -> None:
        """Of a batch a list of tools alone is answered from a snapshot: it goes by itself."""
        old = {**INIT, "params": {**INIT["params"], "protocolVersion": "2025-03-26"}}
        opened = self.world.post(old)
        self.play()
        session = opened.fields[b"mcp-session-id"].decode()
        self.world.post(request("tools/list"), session)
        self.play()
        self.stop()
        self.assertEqual(self.list_tools(session).status, 200)
        self.assertEqual(self.world.post([request("prompts/list", 8)], session).status, 0)
        answer = self.world.post([request("tools/list", 9)], session)
        self.assertEqual([one["id"] for one in answer.json], [9])

    def test_failed_start(self) -> None:
        """When the start fails the next call says so, and lists are still told."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        self.world.pool.started(BackendUnavailable("broken"))
        self.world.settle()
        self.assertEqual(self.list_tools(session).status, 200)
        call = self.world.post(request("tools/call", 7, name="one"), session)
        self.world.pool.started(BackendUnavailable("broken"))
        self.assertEqual(call.json["error"]["code"], -31001)
        self.assertEqual(self.world.leaks(), {})

    def test_refused_handshake(self) -> None:
        """A server that refuses the client's handshake ends the snapshot."""
        self.first()
        self.stop()
        self.open_cold()
        self.world.pool.started()
        self.world.settle()
        (asked,) = self.world.child.take()
        self.world.child.say(id=asked["id"], error={"code": -32000, "message": "no"})
        self.assertEqual(self.world.kept, {})
        self.assertEqual(self.world.leaks(), {})

    def test_slow_start(self) -> None:
        """A start that outlives the wait is looked at by the next request."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        stream = self.world.get(session)
        self.list_tools(session)
        self.world.pool.started(Starting())
        self.world.pool.at_once = True
        self.tools = OTHERS
        self.world.post(request("tools/call", 7, name="one"), session)
        self.play()
        self.world.post(request("tools/call", 8, name="one"), session)
        self.play()
        self.assertEqual([e["method"] for e in stream.events], ["notifications/tools/list_changed"])

    def test_session_ended(self) -> None:
        """A session that ends while its server starts leaves nothing behind."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        self.list_tools(session)
        self.world.ask("DELETE", session=session)
        self.start()
        self.assertEqual(self.world.leaks(), {})
        self.assertEqual(len(self.world.cold._told), 0)
        self.assertEqual(len(self.world.cold._keys), 1)

    def test_lists_changed(self) -> None:
        """A server that says its lists are others is looked at again, a moment later."""
        session = self.first()
        stream = self.world.get(session)
        self.tools = OTHERS
        for _ in range(2):
            self.world.child.say(method="notifications/tools/list_changed")
        self.assertEqual(len(stream.events), 2)
        self.world.pass_time(1)
        self.play()
        self.assertEqual(self.looks, 2)
        self.stop()
        self.assertEqual(self.list_tools(session).json["result"]["tools"], OTHERS)

    def test_look_is_aside(self) -> None:
        """What a server says while it is looked at still belongs to the client's call."""
        opened = self.world.post(INIT)
        self.play()
        session = opened.fields[b"mcp-session-id"].decode()
        call = self.world.post(request("tools/call", 1, name="x"), session)
        self.world.settle()
        methods = [message["method"] for message in self.world.child.sent]
        self.assertEqual(methods[-2:], ["tools/call", "tools/list"])
        self.world.child.say(method="notifications/message", params={"data": "of the call"})
        self.assertEqual(call.events[0]["params"]["data"], "of the call")
        self.play()
        self.assertEqual(call.events[-1]["result"], {"content": []})

    def test_lists_changed_and_gone(self) -> None:
        """One that stopped in between is not started for it."""
        self.first()
        self.world.child.say(method="notifications/tools/list_changed")
        self.stop()
        self.world.pass_time(2)
        self.assertEqual(len(self.world.pool.instances), 1)
        self.first_again()
        self.world.child.say(method="notifications/tools/list_changed")
        self.world.cold.stop()
        self.world.pass_time(2)
        self.assertEqual(self.looks, 2)

    def first_again(self) -> None:
        """Have somebody connect, and the server looked at."""
        self.open_cold()
        self.start()

    def test_look_fails(self) -> None:
        """A server that does not answer the gate's questions is asked again later."""
        opened = self.world.post(INIT)
        self.play()
        session = opened.fields[b"mcp-session-id"].decode()
        call = request("tools/call", 1, name="x")
        self.world.post(call, session)
        self.world.pass_time(31)
        self.world.child.take()
        self.world.post(call, session)
        self.world.settle()
        for message in self.world.child.take():
            if message["method"] == "tools/list":
                self.world.child.say(id=message["id"], error={"code": -32603, "message": "no"})
        self.assertEqual(self.world.kept, {})
        self.world.post(call, session)
        self.play()
        self.assertEqual(len(self.world.kept), 1)
        self.world.pass_time(61)
        self.assertEqual(self.world.leaks(), {})

    def test_session_ends_during_the_start(self) -> None:
        """Nothing is kept of a session that ends while its server is started for it."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        self.world.pool.started()
        self.world.settle()
        self.world.sessions.end(self.world.session(session), "deleted")
        self.play()
        self.world.pass_time(60)
        kept = [one for one in self.world.cold._keys if one.ended]
        self.assertEqual((kept, self.world.cold._told), ([], {}))

    def test_nothing_kept_of_ended_sessions(self) -> None:
        """What is remembered of a server that was looked at lets go of the session it was by."""
        session = self.world.session(self.first())
        (seen,) = self.world.cold._seen.values()
        assert seen.viewer is not None
        self.assertIs(seen.viewer.session, session)
        self.world.sessions.end(session, "deleted")
        self.assertIsNone(seen.viewer)
        self.world.cold.lists_changed(self.world.spec, session)
        self.assertEqual(self.world.cold._again, {})


class HTTPColdTests(ColdCase):
    """Servers on HTTP."""

    transport = Transport.HTTP

    def take(self, answer_calls: bool) -> str | None:
        """Have the server answer one request."""
        if not self.world.pool.instances:
            return None
        self.world.server.plays = False
        for sent in self.world.server.waiting:
            message = sent.message
            if sent.method == "POST" and (
                answer_calls or (message or {}).get("method") != "tools/call"
            ):
                break
        else:
            return None
        self.world.server.waiting.remove(sent)
        if sent.aborted:
            return ""
        if "id" not in message:
            sent.empty()
        elif message["method"] == "initialize":
            sent.json({"jsonrpc": "2.0", "id": message["id"], **self.answer(message)}, session=b"u")
        else:
            sent.json({"jsonrpc": "2.0", "id": message["id"], **self.answer(message)})
        return str(message["method"])

    def first(self, **options: Any) -> str:
        """Be the first client ever; the server answers what the test has it answer."""
        self.world.pool.at_once = False
        opened = self.world.post(INIT, **options)
        self.hold_server()
        session = opened.fields[b"mcp-session-id"].decode()
        self.world.post(notification("notifications/initialized"), session, **options)
        self.play()
        listed = self.world.post(request("tools/list"), session, **options)
        self.play()
        self.assertEqual(listed.json["result"]["tools"], self.tools)
        self.world.pass_time(1)
        self.play()
        return session

    def hold_server(self) -> None:
        """Have the start come to its end, and everything answered by the test."""
        self.world.pool.started()
        self.world.server.plays = False
        self.play()

    def start(self) -> None:
        """See `ColdCase.start`."""
        self.hold_server()

    def test_answered_at_once(self) -> None:
        """While the server starts, initialize and lists are answered, and a call waits for it."""
        self.first()
        self.assertEqual((len(self.world.kept), self.looks), (1, 1))
        self.stop()
        _, session = self.open_cold()
        self.assertEqual(self.list_tools(session).json["result"]["tools"], TOOLS)
        call = self.world.post(request("tools/call", 7, name="one"), session)
        self.start()
        self.assertEqual(call.json["result"], {"content": []})
        self.assertEqual(self.world.server.heard()[:2], ["initialize", "notifications/initialized"])
        self.assertEqual(self.world.server.heard().count("notifications/initialized"), 1)
        self.assertEqual(self.looks, 2)
        self.assertEqual(self.world.leaks(), {})

    def test_introduced_before_the_client(self) -> None:
        """A server that is up before the client says ``initialized`` hears it once."""
        self.first()
        self.stop()
        opened = self.world.post(INIT)
        session = opened.fields[b"mcp-session-id"].decode()
        self.start()
        told = self.world.post(notification("notifications/initialized"), session)
        self.assertEqual(told.status, 202)
        self.assertEqual(self.world.server.heard().count("notifications/initialized"), 1)

    def test_other_lists(self) -> None:
        """Who was told lists that are others now hears so, now or on the next stream."""
        self.first()
        self.stop()
        _, session = self.open_cold()
        stream = self.world.get(session)
        _, late = self.open_cold()
        for one in (session, late):
            self.list_tools(one)
        self.tools = OTHERS
        self.start()
        self.assertEqual([e["method"] for e in stream.events], ["notifications/tools/list_changed"])
        opened = self.world.get(late)
        self.world.pass_time(16)
        self.assertEqual([e["method"] for e in opened.events], ["notifications/tools/list_changed"])

    def test_unsaid_is_bounded(self) -> None:
        """What nobody listens to is kept once each, and not without end."""
        session = self.world.session(self.first())
        link: Any = session.extras
        for number in range(20):
            link.say(Notification(f"x/{number % 10}"))
        self.assertEqual(len(link._unsaid), 8)
        link.flush()
        self.assertEqual(len(link._unsaid), 8)

    def test_lists_changed(self) -> None:
        """A server that says so, on the stream or within an answer, is looked at again."""
        session = self.first()
        self.world.get(session)
        sent = self.world.server.waiting.pop()
        sent.head()
        sent.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        self.world.pass_time(1)
        self.play()
        self.assertEqual(self.looks, 2)
        self.world.post(request("tools/call", 1, name="x"), session)
        (call,) = [one for one in self.world.server.waiting if one.method == "POST"]
        call.head()
        call.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        self.world.pass_time(1)
        self.play(answer_calls=False)
        self.assertEqual(self.looks, 3)

    def test_greeting_of_an_earlier_life(self) -> None:
        """A session that outlived the gate is not shaken hands with anew for a snapshot."""
        session = self.first()
        link: Any = self.world.session(session).extras
        link.greeting = None
        self.world.cold._seen.clear()
        self.world.kept.clear()
        for _ in range(3):
            self.list_tools(session)
            self.play()
        self.assertEqual((self.world.kept, self.looks), ({}, 1))

    def test_ended_meanwhile(self) -> None:
        """A session that ends before its server is looked at is no reason to look."""
        session = self.first()
        self.world.cold._seen.clear()
        self.list_tools(session)
        self.world.pass_time(1)
        self.world.server.waiting.clear()
        self.world.cold.lists_changed(self.world.spec, self.world.session(session))
        self.world.cold._seen.clear()
        self.world.post(request("tools/call", 1, name="x"), session)
        self.world.sessions.end(self.world.session(session), "deleted")
        self.world.pass_time(2)
        self.assertEqual(self.looks, 1)
