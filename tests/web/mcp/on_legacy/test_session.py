"""The sessions the gate holds: tests of mcpgate.web.mcp.on_legacy.session and sessions."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendUnavailable, RateLimited
from mcpgate.mcp.to_modern import ALL_POWERS
from mcpgate.model import Isolation, Transport
from mcpgate.web.mcp.on_legacy.session import LINGER_S
from tests.web.mcp.on_legacy.kit import ALL, SERVER, Bridged

RESULT: dict[str, object] = {"content": []}
ASKED: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "elicitation/create",
    "params": {"message": "Name?"},
}


class OpeningTests(SynchronousTestCase):
    """How sessions are made, and whom they serve."""

    @override
    def setUp(self) -> None:
        self.it = Bridged()

    def test_discover(self) -> None:
        """What a server is comes from its handshake, which is made once."""
        answer = self.it.call("server/discover", "d")
        result = answer.json["result"]
        self.assertEqual(result["supportedVersions"], ["2026-07-28"])
        self.assertEqual(result["capabilities"], SERVER)
        self.assertEqual(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "s")
        self.assertEqual(self.it.initialized["capabilities"], ALL_POWERS.declared())
        self.assertEqual(self.it.initialized["clientInfo"]["name"], "mcpgate")
        self.it.call("server/discover", can=ALL)
        self.assertEqual((len(self.it.table), self.it.released), (1, 2))

    def test_single_flight(self) -> None:
        """Who comes while a session is made waits for it; keys never share one."""
        self.it.world.pool.at_once = False
        answers = [self.it.call("server/discover", number) for number in (1, 2, 3)]
        other = self.it.call("server/discover", key="k2")
        self.it.world.pool.started()
        self.it.settle()
        self.assertEqual([answer.json["id"] for answer in answers], [1, 2, 3])
        self.assertEqual(other.json["id"], 1)
        self.assertEqual((len(self.it.table), len(self.it.world.pool.instances)), (2, 2))

    def test_failure(self) -> None:
        """All who wait hear that there is none; the next one tries again."""
        self.it.world.pool.at_once = False
        discover = self.it.call("server/discover", 1)
        call = self.it.tool(2)
        self.it.world.pool.started(BackendUnavailable("It is off."))
        self.it.settle()
        self.assertEqual((discover.status, call.status), (503, 200))
        for answer, id in ((discover, 1), (call, 2)):
            self.assertEqual(answer.json["id"], id)
            self.assertEqual(answer.json["error"]["message"], "It is off.")
        self.it.world.pool.at_once = True
        self.assertEqual(self.it.call("server/discover").status, 200)
        self.assertEqual(len(self.it.table), 1)

    def test_never_4xx(self) -> None:
        """A client must not take a limit for an older server."""
        self.it.world.pool.error = RateLimited()
        self.assertEqual(self.it.call("server/discover").status, 503)

    def test_refused(self) -> None:
        """A server that refuses the handshake is quoted."""
        self.it.world.pool.at_once = False
        answer = self.it.call("server/discover")
        self.it.world.pool.started()
        sent = self.it.world.child.take()[0]
        self.it.say(id=sent["id"], error={"code": -5, "message": "not today"})
        self.assertEqual((answer.status, answer.json["error"]["code"]), (502, -5))

    def test_classes(self) -> None:
        """Where sessions have a conversation of their own the server hears of one class each."""
        for bridged in (Bridged(isolation=Isolation.PER_SESSION), Bridged(Transport.HTTP)):
            self.it = bridged
            self.it.call("server/discover", can={"roots": {}})
            self.it.call("server/discover", can={"sampling": {}})
            self.it.call("server/discover", can={"roots": {}})
            self.assertEqual(len(self.it.table), 2)

    def test_end(self) -> None:
        """A session nobody uses ends, and its server's session with it; then one is made anew."""
        self.it = Bridged(
            isolation=Isolation.PER_SESSION, call_timeout_s=900.0, call_timeout_max_s=900.0
        )
        self.it.call("server/discover")
        self.it.tool()
        sent = self.it.take("tools/call")
        self.it.pass_time(700)
        self.it.table.sweep()
        self.assertEqual(len(self.it.table), 1)
        self.it.say(id=sent["id"], result=RESULT)
        self.it.pass_time(LINGER_S + 700)
        self.it.table.sweep()
        self.assertEqual((len(self.it.table), self.it.leaks()), (0, {}))
        self.assertEqual(len(self.it.world.pool.forgotten), 1)
        self.it.call("server/discover")
        self.assertEqual(len(self.it.table), 1)

    def test_bound(self) -> None:
        """The least recently used one makes room."""
        self.it = Bridged(Transport.HTTP)
        for roots in (True, False):
            for sampling in (True, False):
                for form in (True, False):
                    can = {"roots": roots, "sampling": sampling, "elicitation": form}
                    self.it.call(
                        "server/discover", can={name: {} for name, on in can.items() if on}
                    )
                    self.it.pass_time(LINGER_S + 1)
        self.assertEqual(len(self.it.table), 4)


class ServerTests(SynchronousTestCase):
    """What an HTTP server says, and where it says it."""

    @override
    def setUp(self) -> None:
        self.it = it = Bridged(Transport.HTTP)
        it.world.pool.at_once = False
        it.call("server/discover", can=ALL)
        it.world.pool.started()
        it.world.server.capabilities = dict(SERVER)
        it.settle()

    def take(self, method: str) -> Any:
        """Give the oldest request of a method, or of an HTTP method."""
        for sent in self.it.world.server.waiting:
            if method in (sent.method, (sent.message or {}).get("method")):
                self.it.world.server.waiting.remove(sent)
                return sent
        raise AssertionError(f"no {method}")

    def reply(self) -> dict[str, Any]:
        """Give what the server was answered, and take it."""
        for sent in self.it.world.server.waiting:
            if sent.method == "POST" and "method" not in sent.message:
                self.it.world.server.waiting.remove(sent)
                sent.empty()
                return dict(sent.message)
        raise AssertionError("no answer")

    def test_call(self) -> None:
        """The client's fields go up, without those of its era; the answer comes down."""
        answer = self.it.tool(can=ALL)
        sent = self.take("tools/call")
        self.assertEqual(sent.fields[b"x-own"], b"1")
        self.assertNotIn(b"mcp-method", sent.fields)
        self.assertEqual(sent.fields[b"mcp-protocol-version"], b"2025-11-25")
        sent.result(content=[])
        self.assertEqual(answer.json["result"]["resultType"], "complete")

    def test_question(self) -> None:
        """A question on the call's stream; no deadline is over while the client thinks."""
        asked = self.it.tool(can=ALL)
        sent = self.take("tools/call")
        sent.head()
        sent.event(ASKED)
        self.it.collect()
        self.assertEqual(asked.told["result"]["resultType"], "input_required")
        self.assertTrue(sent.paused)
        self.it.pass_time(200)
        self.assertFalse(sent.aborted)
        answer = self.it.again(asked, {"elicitation-1": {"action": "decline"}}, can=ALL)
        self.assertEqual(self.reply(), {"jsonrpc": "2.0", "id": 0, "result": {"action": "decline"}})
        self.assertFalse(sent.paused)
        sent.event({"jsonrpc": "2.0", "id": sent.message["id"], "result": RESULT})
        sent.done()
        self.assertEqual(answer.json["result"]["content"], [])

    def test_gone(self) -> None:
        """A client that goes: the server is told, though over HTTP it would not notice."""
        answer = self.it.tool(can=ALL)
        sent = self.take("tools/call")
        sent.head()
        answer.go()
        heard = [one for one in self.it.world.server.waiting if one.method == "POST"]
        self.assertEqual(heard[0].message["method"], "notifications/cancelled")
        self.assertEqual(heard[0].message["params"]["requestId"], sent.message["id"])

    def test_asked_elsewhere(self) -> None:
        """A question on the session's stream is for the one call that may ask."""
        self.it.tool(can=ALL)
        get = self.take("GET")
        get.head()
        get.event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        self.assertEqual(self.reply(), {"jsonrpc": "2.0", "id": "p", "result": {}})
        self.take("tools/call").result(content=[])
        get.event(ASKED)
        self.assertEqual(self.reply()["error"]["code"], -32601)
        answer = self.it.tool(2, can=ALL)
        get.event(ASKED)
        self.it.collect()
        self.assertEqual(answer.json["result"]["resultType"], "input_required")
        get.event(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 0}}
        )
        again = self.it.again(answer, {}, can=ALL)
        self.it.collect()
        self.assertFalse(again.finished)

    def test_progress_elsewhere(self) -> None:
        """Progress finds its call wherever it is said; of no call it is dropped."""
        answer = self.it.tool(can=ALL, meta={"progressToken": "p"})
        get, sent = self.take("GET"), self.take("tools/call")
        get.head()
        token = sent.message["params"]["_meta"]["progressToken"]
        for value in (token, "other", token + 1):
            params = {"progressToken": value, "progress": 1}
            get.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        sent.head()
        sent.event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        self.assertEqual(self.reply()["id"], "p")
        sent.event({"jsonrpc": "2.0", "id": 12345, "result": {}})
        sent.event({"jsonrpc": "2.0", "id": sent.message["id"], "result": RESULT})
        self.assertEqual([e.get("method") for e in answer.events], ["notifications/progress", None])

    def test_stream_refused(self) -> None:
        """A stream that can not be asked for is tried again with the next call."""
        self.it.tool(can=ALL)
        self.take("GET").empty(500)
        self.take("tools/call").result(content=[])
        self.it.pass_time(LINGER_S + 1)
        self.it.tool(can=ALL)
        self.take("GET")

    def test_server_gone(self) -> None:
        """A level that could not be set does not keep the call."""
        answer = self.it.tool(can=ALL, log="info")
        for _ in range(2):
            self.take("logging/setLevel").fail()
            self.it.pass_time(1)
        self.take("tools/call").result(content=[])
        self.assertIn("result", answer.told)

    def test_cut(self) -> None:
        """A call whose answer is cut off is over."""
        answer = self.it.tool(can=ALL)
        sent = self.take("tools/call")
        sent.head()
        sent.fail()
        self.assertEqual(answer.told["error"]["code"], -31003)
