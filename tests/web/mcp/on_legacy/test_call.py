"""Calls of modern clients on a legacy stdio server: tests of mcpgate.web.mcp.on_legacy.call."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.web.mcp.on_legacy.session import LINGER_S
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.on_legacy.kit import ALL, Bridged

RESULT = {"content": [{"type": "text", "text": "ok"}]}
SERVER = {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}
GIVEN = {"action": "accept", "content": {"name": "x"}}
ASKED: dict[str, Any] = {"method": "elicitation/create", "params": {"message": "Name?"}}


class CallTests(SynchronousTestCase):
    """Calls that need one exchange."""

    @override
    def setUp(self) -> None:
        self.it = Bridged()

    def test_call(self) -> None:
        """A call reaches the server in its words, and its answer the client in today's."""
        answer = self.it.tool("mine", meta={"progressToken": "p", "vendor/key": 1})
        sent = self.it.take("tools/call")
        token = sent["params"].pop("_meta")
        self.assertEqual(sent["params"], {"name": "t", "arguments": {"a": 1}})
        self.assertEqual(token["vendor/key"], 1)
        self.it.say(
            method="notifications/progress",
            params={"progressToken": token["progressToken"], "progress": 1},
        )
        self.it.say(id=sent["id"], result=RESULT)
        self.assertEqual(
            answer.events,
            [
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": "p", "progress": 1},
                },
                {
                    "jsonrpc": "2.0",
                    "id": "mine",
                    "result": {**RESULT, "resultType": "complete", "_meta": SERVER},
                },
            ],
        )
        self.assertEqual(self.it.released, 1)
        self.it.pass_time(LINGER_S + 1)
        self.assertEqual(self.it.leaks(), {})

    def test_plain(self) -> None:
        """What needs no stream is plain JSON; the same session serves the next call."""
        answer = self.it.call("tools/list")
        self.it.say(id=self.it.take("tools/list")["id"], result={"tools": []})
        self.assertEqual(answer.json["result"]["cacheScope"], "private")
        self.it.call("tools/list", 2)
        self.it.take("tools/list")
        self.assertEqual((len(self.it.table), len(self.it.world.pool.instances)), (1, 1))

    def test_errors(self) -> None:
        """A method nobody knows is a 404; other errors of the server are within 200."""
        answer = self.it.call("vendor/thing", 5)
        self.it.say(id=self.it.take("vendor/thing")["id"], error={"code": -32601, "message": "no"})
        self.assertEqual((answer.status, answer.json["id"]), (404, 5))
        answer = self.it.call("resources/read", uri="a")
        sent = self.it.take("resources/read")
        self.it.say(id=sent["id"], error={"code": -32002, "message": "no"})
        self.assertEqual((answer.status, answer.json["error"]["code"]), (200, -32602))

    def test_removed(self) -> None:
        """What is no method of today is refused without asking anybody."""
        for method in ("ping", "initialize", "logging/setLevel", "tasks/get", "tasks/list"):
            answer = self.it.call(method)
            self.assertEqual((answer.status, answer.json["error"]["code"]), (404, -32601))
        self.assertEqual((len(self.it.table), self.it.released), (0, 5))

    def test_completion(self) -> None:
        """A server that does not complete is not asked to."""
        answer = self.it.call("completion/complete", ref={})
        self.assertEqual(answer.status, 404)
        self.it = Bridged()
        self.it.server["completions"] = {}
        answer = self.it.call("completion/complete", ref={})
        self.it.say(id=self.it.take("completion/complete")["id"], result={"completion": {}})
        self.assertEqual(answer.json["result"]["resultType"], "complete")

    def test_gone(self) -> None:
        """A client that goes has cancelled: the server is told, and nothing is left."""
        answer = self.it.tool()
        sent = self.it.take("tools/call")
        answer.go()
        self.it.settle()
        cancelled = self.it.take("notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], sent["id"])
        self.it.say(id=sent["id"], result=RESULT)
        self.it.pass_time(LINGER_S + 1)
        self.assertEqual((self.it.leaks(), self.it.released), ({}, 1))

    def test_gone_early(self) -> None:
        """A client that goes while the server starts is forgotten; the handshake goes on."""
        self.it.world.pool.at_once = False
        answer = self.it.tool()
        answer.go()
        self.it.world.pool.started()
        self.it.settle()
        self.assertEqual(self.it.world.child.sent, [])
        self.assertEqual((self.it.released, len(self.it.table)), (1, 1))

    def test_death(self) -> None:
        """A server that dies in the middle fails the call, in words and with its id."""
        answer = self.it.tool(3)
        self.it.take("tools/call")
        self.it.world.pool.die()
        self.it.settle()
        self.assertEqual(answer.told["error"]["code"], -31003)
        self.assertEqual((answer.status, answer.told["id"]), (200, 3))

    def test_full(self) -> None:
        """A server that does not read is no reason to wait."""
        self.it.call("tools/list")
        self.it.world.child.full = True
        answer = self.it.tool()
        self.assertEqual(answer.json["error"]["code"], -31005)


class LogTests(SynchronousTestCase):
    """Log lines, which a request asks for."""

    @override
    def setUp(self) -> None:
        self.it = Bridged()

    def lines(self, answer: FakeInbound) -> list[str]:
        """Give what lines a client got."""
        return [
            e["params"]["data"] for e in answer.events if e.get("method", "").endswith("message")
        ]

    def log(self, level: str) -> None:
        """Have the server write a line."""
        self.it.say(method="notifications/message", params={"level": level, "data": level})

    def test_level(self) -> None:
        """The level is set first; lines below it, and those nobody asked for, are dropped."""
        answer = self.it.tool(log="warning")
        set_level = self.it.take("logging/setLevel")
        self.assertEqual(set_level["params"], {"level": "warning"})
        self.assertEqual(self.it.world.child.sent, [])
        self.it.say(id=set_level["id"], result={})
        sent = self.it.take("tools/call")
        self.log("info")
        self.log("error")
        self.it.say(id=sent["id"], result=RESULT)
        self.assertEqual(self.lines(answer), ["error"])
        answer = self.it.tool(2)
        sent = self.it.take("tools/call")
        self.log("error")
        self.it.say(id=sent["id"], result=RESULT)
        self.assertFalse(answer.is_stream)
        self.it.tool(3, log="warning")
        self.it.take("tools/call")

    def test_refused(self) -> None:
        """A server that takes no level, or is silent, is called all the same."""
        self.it.tool(log="info")
        sent = self.it.take("logging/setLevel")
        self.it.say(id=sent["id"], error={"code": -1, "message": "no"})
        self.it.take("tools/call")
        self.it.tool(2, log="info")
        self.it.take("logging/setLevel")
        self.it.pass_time(6)
        self.it.take("tools/call")

    def test_no_logging(self) -> None:
        """A server that does not log is not asked to; a level nobody knows is refused."""
        del self.it.server["logging"]
        self.it.tool(log="info")
        self.it.take("tools/call")
        answer = self.it.tool(log="loud")
        self.assertEqual(answer.json["error"]["code"], -32602)


class AskTests(SynchronousTestCase):
    """Calls in which the server asks its client."""

    @override
    def setUp(self) -> None:
        self.it = Bridged()

    def park(self, **options: Any) -> tuple[FakeInbound, dict[str, Any]]:
        """Have a call come to its question."""
        answer = self.it.tool(can=ALL, **options)
        sent = self.it.take("tools/call")
        self.it.say(id=0, **ASKED)
        self.it.collect()
        return answer, sent

    def test_round(self) -> None:
        """A question ends the exchange; the answer comes with the next, and the result too."""
        asked, sent = self.park()
        result = asked.json["result"]
        self.assertEqual(result["resultType"], "input_required")
        self.assertEqual(result["inputRequests"], {"elicitation-1": ASKED})
        self.assertEqual((self.it.released, self.it.bridge.parked), (1, 1))
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, "other", can=ALL)
        self.assertEqual(self.it.take(), {"jsonrpc": "2.0", "id": 0, "result": GIVEN})
        self.it.say(id=sent["id"], result=RESULT)
        self.assertEqual(answer.json["id"], "other")
        self.assertEqual(answer.json["result"]["content"], RESULT["content"])
        self.it.pass_time(LINGER_S + 1)
        self.assertEqual((self.it.leaks(), self.it.released), ({}, 2))

    def test_progress_goes_on(self) -> None:
        """The new exchange has its own progress token and level."""
        asked, sent = self.park(meta={"progressToken": 1})
        token = sent["params"]["_meta"]["progressToken"]
        told = {"progressToken": token, "progress": 1}
        self.it.say(method="notifications/progress", params=told)
        answer = self.it.again(
            asked, {"elicitation-1": GIVEN}, can=ALL, meta={"progressToken": "new"}, log="info"
        )
        self.it.say(method="notifications/progress", params=told)
        self.it.say(id=self.it.take("logging/setLevel")["id"], result={})
        self.it.say(method="notifications/message", params={"level": "info", "data": 1})
        self.it.say(id=sent["id"], result=RESULT)
        self.assertEqual(answer.events[0]["params"]["progressToken"], "new")
        self.assertEqual(len(answer.events), 3)

    def test_state_is_of_one_round_of_one_caller(self) -> None:
        """A state serves once, for the same call, to the same key."""
        asked, _ = self.park()
        for options in (
            {"key": "k2"},
            {"requestState": "nonsense"},
            {"requestState": 3},
            {"requestState": "x" * 5000},
            {"spec": self.it.world.other},
            {"arguments": {"a": 2}},
        ):
            if "arguments" in options:
                state = asked.told["result"]["requestState"]
                answer = self.it.call(
                    "tools/call", name="t", requestState=state, inputResponses={}, **options
                )
            else:
                answer = self.it.again(asked, {}, can=ALL, **options)
            self.assertEqual((answer.status, answer.json["error"]["code"]), (400, -32602))
            self.assertEqual(answer.json["error"]["message"], "Invalid or expired requestState")
        self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertEqual(answer.json["error"]["code"], -32602)

    def test_answers_are_objects(self) -> None:
        """Answers of another form are refused, and the call still waits."""
        asked, _ = self.park()
        bad: list[object] = [[], {"a": 1}, {str(number): {} for number in range(100)}]
        for answers in bad:
            answer = self.it.again(asked, answers, can=ALL)
            self.assertEqual(answer.json["error"]["code"], -32602)
        self.assertEqual(self.it.bridge.parked, 1)

    def test_missing(self) -> None:
        """Without an answer the client is asked again."""
        asked, _ = self.park()
        again = self.it.again(asked, {"unknown": {}}, can=ALL)
        self.it.collect()
        self.assertEqual(again.json["result"]["inputRequests"], {"elicitation-1": ASKED})
        self.assertEqual(self.it.bridge.parked, 1)

    def test_expired(self) -> None:
        """A client that does not come back in time finds nothing; the server was told."""
        self.it = Bridged(call_timeout_max_s=90.0)
        asked, sent = self.park()
        self.it.pass_time(91)
        cancelled = self.it.take("notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], sent["id"])
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertEqual(answer.json["error"]["code"], -32602)
        self.it.pass_time(LINGER_S + 1)
        self.assertEqual(self.it.leaks(), {})

    def test_gone_after_return(self) -> None:
        """A client that comes back and goes again has cancelled."""
        asked, sent = self.park()
        self.it.again(asked, {}, can=ALL).go()
        self.it.settle()
        cancelled = self.it.take("notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], sent["id"])
        self.assertEqual(self.it.bridge.parked, 0)

    def test_gone_before_return(self) -> None:
        """One that is gone before its answer is looked at, too."""
        asked, _ = self.park()
        state = asked.told["result"]["requestState"]
        post, inbound = self.it.post(
            "tools/call", 2, name="t", arguments={"a": 1}, requestState=state, can=ALL
        )
        inbound.go()
        self.it.bridge.call(post)
        self.it.take("notifications/cancelled")
        self.assertEqual(self.it.bridge.parked, 0)

    def test_dead_while_parked(self) -> None:
        """A server that died meanwhile is told of when the client is back."""
        asked, _ = self.park()
        self.it.world.pool.die()
        self.it.settle()
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertEqual(answer.json["error"]["code"], -31003)
        self.assertEqual(self.it.bridge.parked, 0)

    def test_bound(self) -> None:
        """Not more calls are parked than there are places; the rest is cancelled."""
        self.it.bridge._lot.parked._per_principal = 0
        answer, sent = self.park()
        self.assertEqual(answer.json["error"]["code"], -31005)
        cancelled = self.it.take("notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], sent["id"])
        self.assertEqual(self.it.bridge.parked, 0)

    def test_capability(self) -> None:
        """A client that did not declare what the call needed is told what."""
        answer = self.it.tool(can={})
        sent = self.it.take("tools/call")
        self.it.say(id="q", **ASKED)
        self.it.collect()
        self.assertEqual(self.it.take()["error"]["code"], -32601)
        self.it.say(id=sent["id"], result={"content": [], "isError": True})
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["error"]["code"], -32021)
        self.assertEqual(
            answer.json["error"]["data"]["requiredCapabilities"], {"elicitation": {"form": {}}}
        )

    def test_pages(self) -> None:
        """Pages to visit: the call is sent anew when the client is back, unless it declines."""
        data = {"elicitations": [{"mode": "url", "url": "https://x", "elicitationId": "e"}]}
        asked = self.it.tool(can=ALL)
        sent = self.it.take("tools/call")
        self.it.say(id=sent["id"], error={"code": -32042, "message": "visit", "data": data})
        self.assertEqual(list(asked.json["result"]["inputRequests"]), ["url-1"])
        self.assertEqual(self.it.bridge.parked, 0)
        answer = self.it.again(asked, {"url-1": {"action": "accept"}}, can=ALL)
        sent = self.it.take("tools/call")
        self.assertEqual(sent["params"], {"name": "t", "arguments": {"a": 1}})
        self.it.say(id=sent["id"], result=RESULT)
        self.assertEqual(answer.json["result"]["content"], RESULT["content"])
        answer = self.it.again(asked, {"url-1": {"action": "decline"}}, can=ALL)
        self.assertEqual(answer.json["error"]["message"], "The user declined.")

    def test_drain(self) -> None:
        """A gate that stops gives parked calls up: nobody could come back."""
        asked, sent = self.park()
        self.it.bridge.drain()
        self.it.settle()
        cancelled = self.it.take("notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], sent["id"])
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertEqual(answer.json["error"]["code"], -32602)

    def test_session_ends_meanwhile(self) -> None:
        """A call whose session was ended is told so when its client is back."""
        asked, _ = self.park()
        for session in self.it.table:
            self.it.table.end(session, "deleted")
        self.it.settle()
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertIn("error", answer.json)
        self.assertEqual(self.it.bridge.parked, 0)

    def test_withdrawn(self) -> None:
        """What the server takes back nobody is asked."""
        asked, _ = self.park()
        self.it.say(method="notifications/cancelled", params={"requestId": 0})
        self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertEqual(self.it.world.child.sent, [])

    def test_full(self) -> None:
        """A server that does not read the answer fails the call."""
        asked, _ = self.park()
        self.it.world.child.full = True
        answer = self.it.again(asked, {"elicitation-1": GIVEN}, can=ALL)
        self.assertEqual(answer.json["error"]["code"], -31005)
        self.assertEqual(self.it.bridge.parked, 0)

    def test_unattributed(self) -> None:
        """Who is meant can not be told: with two calls in work the server is refused."""
        self.it.tool(can=ALL)
        self.it.tool(2, can=ALL)
        self.it.say(id="q", **ASKED)
        for _ in range(2):
            self.it.take("tools/call")
        self.assertEqual(self.it.take()["error"]["code"], -32601)

    def test_attributed(self) -> None:
        """A call that waits for its client is not the one that asks."""
        self.park()
        answer = self.it.tool(2, can=ALL)
        self.it.take("tools/call")
        self.it.say(id="q", **ASKED)
        self.it.collect()
        self.assertEqual(answer.json["result"]["resultType"], "input_required")
        self.assertEqual(self.it.bridge.parked, 2)
