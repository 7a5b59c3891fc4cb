"""Tests of mcpgate.web.mcp.pinned.speakers and listing: what clients are told of tools."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import Starting
from mcpgate.model import Isolation, Pinning, Transport
from tests.web.bridge_kit import BridgeWorld
from tests.web.endpoint_kit import INIT, World, caller_of, notification, request
from tests.web.fake_inbound import FakeInbound
from tests.web.modern_kit import ModernWorld
from tests.web.sse_client import SSEClient

GOOD: list[Any] = [{"name": "a", "description": "x"}, {"name": "b", "description": "y"}]
EVIL: list[Any] = [GOOD[0], {"name": "b", "description": "evil"}, {"name": "c"}]


def names(answer: FakeInbound) -> list[str]:
    """Name the tools of an answer."""
    return [tool["name"] for tool in answer.told["result"]["tools"]]


class Case(SynchronousTestCase):
    """A server whose tools are trusted, and that turns on its users."""

    pinned = Pinning.BLOCK

    def trust(self, world: World) -> None:
        """Have it list harmless tools first."""
        world.pins.told(world.spec, caller_of("k1").principal, GOOD)


class StdioTests(Case):
    """Legacy clients, a server on stdio."""

    def setUp(self) -> None:
        """Open a session."""
        self.world = World(tools_pinned=Pinning.BLOCK)
        self.session = self.world.open()
        self.trust(self.world)

    def list(self, tools: list[Any], id: int = 5, **result: Any) -> FakeInbound:
        """List tools; the server has these."""
        answer = self.world.post(request("tools/list", id), self.session)
        self.world.child.say(
            id=self.world.child.sent.pop()["id"], result={"tools": tools, **result}
        )
        return answer

    def test_list(self) -> None:
        """What differs is left out, what goes with the list stays."""
        answer = self.list(EVIL, _meta={"m": 1})
        self.assertEqual((answer.json["id"], names(answer)), (5, ["a"]))
        self.assertEqual(answer.json["result"]["_meta"], {"m": 1})
        self.assertEqual(names(self.list(GOOD)), ["a", "b"])
        self.assertEqual(self.world.leaks(), {})

    def test_call(self) -> None:
        """A withheld tool is refused at once, and the server hears nothing; others are called."""
        self.list(EVIL)
        sent = len(self.world.child.sent)
        for name in ("b", "c"):
            answer = self.world.post(request("tools/call", 6, name=name), self.session)
            error = answer.json["error"]
            self.assertEqual((answer.status, error["code"]), (200, -31011))
            self.assertEqual(error["data"]["reason"], "tool_withheld")
            self.assertIn("mcpgate tools notes --accept", error["message"])
        self.assertEqual(len(self.world.child.sent), sent)
        self.world.post(request("tools/call", 7, name="a"), self.session)
        self.world.child.say(id=self.world.child.sent.pop()["id"], result={"content": []})
        self.assertEqual(self.world.leaks(), {})

    def test_error(self) -> None:
        """The server's error is told, and a cancelled list ends."""
        answer = self.world.post(request("tools/list", 5), self.session)
        sent = self.world.child.sent.pop()
        self.world.child.say(id=sent["id"], error={"code": -1, "message": "no"})
        self.assertEqual(answer.json["error"], {"code": -1, "message": "no"})
        answer = self.world.post(request("tools/list", 6), self.session)
        cancelled = notification("notifications/cancelled", requestId=6)
        self.world.post(cancelled, self.session)
        self.world.pass_time(120)
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_client_gone(self) -> None:
        """Nothing is left of a list nobody waits for."""
        answer = self.world.post(request("tools/list", 5), self.session)
        answer.go()
        self.world.child.say(id=self.world.child.sent.pop()["id"], result={"tools": EVIL})
        self.assertEqual(self.world.leaks(), {})

    def test_slow(self) -> None:
        """A client that waits for long gets an event stream."""
        answer = self.world.post(request("tools/list", 5), self.session)
        self.world.pass_time(30)
        self.assertEqual(answer.fields[b"content-type"], b"text/event-stream")
        self.world.child.say(id=self.world.child.sent.pop()["id"], result={"tools": EVIL})
        self.assertEqual([t["name"] for t in answer.events[-1]["result"]["tools"]], ["a"])
        self.assertEqual(self.world.leaks(), {})

    def test_batch(self) -> None:
        """A batch is no way around."""
        old = {**INIT, "params": {**INIT["params"], "protocolVersion": "2025-03-26"}}
        opened = self.world.post(old)
        self.world.answer_initialize("2025-03-26")
        session = opened.fields[b"mcp-session-id"].decode()
        self.list(EVIL)
        batch = [request("tools/call", 1, name="b"), request("tools/list", 2), request("x", 3)]
        answer = self.world.post(batch, session)
        for sent in self.world.child.sent[-2:]:
            told = {"tools": EVIL} if sent["method"] == "tools/list" else {}
            self.world.child.say(id=sent["id"], result=told)
        found = {one["id"]: one for one in answer.json}
        self.assertEqual(found[1]["error"]["code"], -31011)
        self.assertEqual([tool["name"] for tool in found[2]["result"]["tools"]], ["a"])
        self.assertEqual(found[3]["result"], {})
        self.assertEqual(self.world.leaks(), {})

    def test_old_transport(self) -> None:
        """Clients of HTTP+SSE are told the same."""
        client = SSEClient(self.world)
        client.open()
        client.post(request("tools/list", 8))
        self.world.child.say(id=self.world.child.sent.pop()["id"], result={"tools": EVIL})
        self.assertEqual([t["name"] for t in client.heard[-1]["result"]["tools"]], ["a"])
        client.post(request("tools/call", 9, name="c"))
        self.assertEqual(client.heard[-1]["error"]["code"], -31011)


class WarnTests(Case):
    """Where it is only told."""

    def test_bytes(self) -> None:
        """A list comes in the bytes it came in, and calls go on."""
        world = World(Transport.HTTP)
        session = world.open()
        self.trust(world)
        for head, told in (
            (b"application/json", b'{ "jsonrpc":"2.0", "id":5, "result":{"tools":[{"name":"z"}]}}'),
            (b"application/json", b'{"jsonrpc":"2.0","id":5,"result":{"tools":' + b"[" * 200),
        ):
            answer = world.post(request("tools/list", 5), session)
            sent = world.server.take()
            sent.head(200, head, length=len(told))
            sent.data(told)
            sent.done()
            self.assertEqual(answer.body, told)
        self.assertEqual(world.meters.events["tools_changed"], 1)
        world.post(request("tools/call", 6, name="z"), session)
        world.server.take().result(content=[])
        self.assertEqual(world.leaks(), {})

    def test_unreadable_event(self) -> None:
        """What is beyond the bounds passes."""
        world = World(Transport.HTTP)
        session = world.open()
        answer = world.post(request("tools/list", 5), session)
        sent = world.server.take()
        sent.head()
        sent.data(b'data: {"jsonrpc":"2.0","id":5,"result":' + b"[" * 200 + b"\n\n")
        sent.done()
        self.assertTrue(answer.finished)
        self.assertIn(b"[[[[", answer.body)
        self.assertEqual(world.leaks(), {})


class HTTPTests(Case):
    """Legacy clients, a server on HTTP."""

    def setUp(self) -> None:
        """Open a session."""
        self.world = World(Transport.HTTP, tools_pinned=Pinning.BLOCK)
        self.session = self.world.open()
        self.trust(self.world)

    def test_stream(self) -> None:
        """A list in an event stream; lists for others in it are not told."""
        answer = self.world.post(request("tools/list", 5), self.session)
        sent = self.world.server.take()
        sent.head()
        sent.event(notification("notifications/x"))
        sent.event({"jsonrpc": "2.0", "id": 4, "result": {"tools": EVIL}})
        sent.event({"jsonrpc": "2.0", "id": 5, "result": {"tools": EVIL}})
        sent.done()
        self.assertEqual(answer.events[0]["method"], "notifications/x")
        self.assertEqual(len(answer.events), 2)
        self.assertEqual([t["name"] for t in answer.events[1]["result"]["tools"]], ["a"])
        self.assertEqual(self.world.leaks(), {})

    def test_array(self) -> None:
        """Beside the list that is asked for nothing comes through, whatever its id looks like."""
        answer = self.world.post(request("tools/list", 1), self.session)
        sent = self.world.server.take()
        told = [
            {"jsonrpc": "2.0", "id": "1", "result": {"tools": EVIL}},
            {"jsonrpc": "2.0", "id": 1, "result": {"tools": GOOD}},
        ]
        body = json.dumps(told).encode()
        sent.head(200, b"application/json", length=len(body))
        sent.data(body)
        sent.done()
        self.assertEqual((answer.json["id"], names(answer)), (1, ["a", "b"]))
        self.assertEqual(self.world.leaks(), {})

    def test_ambiguous(self) -> None:
        """What clients could read in two ways is told in one: a member twice, or in capitals."""
        evil, good = json.dumps(EVIL), json.dumps(GOOD)
        shout = json.dumps([{**tool, "Description": "evil"} for tool in GOOD])
        for members in (
            f'"tools":{evil},"tools":{good}',
            f'"tools":{good},"Tools":{evil}',
            f'"tools":{shout}',
        ):
            answer = self.world.post(request("tools/list", 1), self.session)
            sent = self.world.server.take()
            body = f'{{"jsonrpc":"2.0","id":1,"result":{{{members}}}}}'.encode()
            sent.head(200, b"application/json", length=len(body))
            sent.data(body)
            sent.done()
            self.assertEqual(answer.json["result"], {"tools": GOOD})
            self.assertNotIn(b"evil", answer.body)
        self.assertEqual(self.world.leaks(), {})

    def test_unreadable(self) -> None:
        """A list that can not be read is not passed on."""
        answer = self.world.post(request("tools/list", 5), self.session)
        sent = self.world.server.take()
        told = json.dumps({"jsonrpc": "2.0", "id": 5, "result": {}}).encode()[:-1]
        sent.head(200, b"application/json", length=len(told))
        sent.data(told)
        sent.done()
        self.assertEqual(answer.json["error"]["code"], -31003)
        self.assertEqual(self.world.leaks(), {})

    def test_refused_start(self) -> None:
        """What the gate refuses keeps its words, and when to come again."""
        del self.world.pool._running[self.world.pool.newest.key]
        self.world.pool.at_once = False
        answer = self.world.post(request("tools/list", 5), self.session)
        self.world.pool.started(Starting(retry_after_s=3.0))
        self.world.settle()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (200, -31004))
        self.assertEqual(answer.fields[b"retry-after"], b"3")
        self.assertEqual(self.world.leaks(), {})


class ModernTests(Case):
    """Modern clients, modern servers."""

    def setUp(self) -> None:
        """Make a gate."""
        self.world = ModernWorld(tools_pinned=Pinning.BLOCK)
        self.trust(self.world)

    def test_list(self) -> None:
        """What differs is left out, also of what is kept."""
        for _ in range(2):
            answer = self.world.call("tools/list")
            if self.world.server.waiting:
                self.world.server.take().result(
                    resultType="complete", tools=EVIL, ttlMs=60_000, cacheScope="private"
                )
            self.assertEqual(names(answer), ["a"])
        self.assertEqual(self.world.leaks(), {})

    def test_call(self) -> None:
        """A withheld tool is refused, others are called."""
        answer = self.world.call(name="c")
        self.assertEqual((answer.status, answer.json["error"]["code"]), (200, -31011))
        self.world.call(name="a")
        self.world.server.take().result(content=[])
        self.assertEqual(self.world.leaks(), {})

    def test_gone(self) -> None:
        """A client that goes has taken its question back."""
        answer = self.world.call("tools/list")
        sent = self.world.server.take()
        answer.go()
        self.assertTrue(sent.aborted)
        self.assertEqual(self.world.leaks(), {})

    def test_error(self) -> None:
        """An error keeps its status."""
        answer = self.world.call("tools/list")
        sent = self.world.server.take()
        told = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}'
        sent.head(404, b"application/json", length=len(told))
        sent.data(told)
        sent.done()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (404, -32601))
        self.assertEqual(self.world.leaks(), {})


class BridgedTests(Case):
    """Legacy clients, a modern server."""

    def test_list(self) -> None:
        """A tool is the same on both sides of the bridge."""
        world = BridgeWorld(isolation=Isolation.SHARED, tools_pinned=Pinning.BLOCK)
        session = world.open()
        self.trust(world)
        answer = world.post(request("tools/list", 5), session)
        world.asker.take().result(tools=EVIL, ttlMs=1, cacheScope="public")
        self.assertEqual(names(answer), ["a"])
        answer = world.post(request("tools/call", 6, name="b"), session)
        self.assertEqual(answer.json["error"]["code"], -31011)
