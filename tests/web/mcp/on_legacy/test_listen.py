"""Listens of modern clients on legacy servers: tests of mcpgate.web.mcp.on_legacy.listen."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendUnavailable
from mcpgate.model import Transport
from mcpgate.web.mcp.on_legacy.session import HEARING_S, LINGER_S
from tests.web.endpoint_kit import KEEPALIVE_S, caller_of
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.on_legacy.kit import SERVER, Bridged

ID = "io.modelcontextprotocol/subscriptionId"
TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"
UPDATED = "notifications/resources/updated"
LISTS: dict[str, object] = {"toolsListChanged": True, "promptsListChanged": True}


def frame(method: str, id: int | str = "L", **params: object) -> dict[str, Any]:
    """Make what a client hears."""
    return {"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": {ID: id}}}


def acknowledged(id: int | str = "L", **honoured: object) -> dict[str, Any]:
    """Make the first thing a client hears."""
    return frame("notifications/subscriptions/acknowledged", id, notifications=honoured)


class ListenTests(SynchronousTestCase):
    """On a stdio server."""

    @override
    def setUp(self) -> None:
        self.it = Bridged()

    def subscribe(self, *uris: str, id: int | str = "L", key: str = "k1") -> FakeInbound:
        """Listen to resources; the server agrees."""
        answer = self.it.listen(id, notifications={"resourceSubscriptions": list(uris)}, key=key)
        for message in list(self.it.world.child.sent):
            if message["method"] == "resources/subscribe":
                self.it.world.child.sent.remove(message)
                self.it.say(id=message["id"], result={})
        return answer

    def test_lists(self) -> None:
        """First what is honoured, then what changes, under the id of the right type."""
        answer = self.it.listen(7, notifications=LISTS)
        self.it.say(method=PROMPTS)
        self.it.say(method=TOOLS, params={"_meta": {"k": 1}})
        self.it.say(method="notifications/message", params={"level": "error", "data": 1})
        tools = frame(TOOLS, 7)
        tools["params"]["_meta"]["k"] = 1
        self.assertEqual(answer.events, [acknowledged(7, toolsListChanged=True), tools])
        self.it.pass_time(KEEPALIVE_S + 1)
        self.assertIn(b": keepalive", answer.body)

    def test_resources(self) -> None:
        """Each hears of its resources and what is below them; the server sees one subscription."""
        first = self.subscribe("file:///a", id=1)
        second = self.subscribe("file:///a", "file:///b", id=2)
        self.assertEqual(self.it.world.child.sent, [])
        self.it.say(method=UPDATED, params={"uri": "file:///a/x"})
        self.it.say(method=UPDATED, params={"uri": "file:///b"})
        self.it.say(method=UPDATED, params={"uri": "file:///c"})
        self.it.say(method=UPDATED, params={"uri": 3})
        self.assertEqual(first.events[1:], [frame(UPDATED, 1, uri="file:///a/x")])
        self.assertEqual(
            second.events[1:],
            [frame(UPDATED, 2, uri="file:///a/x"), frame(UPDATED, 2, uri="file:///b")],
        )
        first.go()
        self.it.settle()
        self.assertEqual(self.it.world.child.sent, [])
        second.go()
        self.it.settle()
        gone = [m["params"]["uri"] for m in self.it.world.child.take()]
        self.assertEqual(gone, ["file:///a", "file:///b"])
        self.assertEqual(self.it.released, 2)

    def test_refused_resource(self) -> None:
        """What the server does not take is not in the acknowledgement."""
        answer = self.it.listen(notifications={"resourceSubscriptions": ["a", "b"]})
        sent = self.it.take("resources/subscribe")
        self.it.say(id=sent["id"], error={"code": -32601, "message": "no"})
        sent = self.it.take("resources/subscribe")
        self.it.say(id=sent["id"], result={})
        self.assertEqual(answer.events, [acknowledged(resourceSubscriptions=["b"])])

    def test_silent_to_subscribe(self) -> None:
        """However many resources are wanted, a server is not waited for longer than for a start."""
        answer = self.it.listen(
            notifications={"toolsListChanged": True, "resourceSubscriptions": list("abcdef")}
        )
        life = self.it.world.spec.lifetime
        self.it.pass_time(life.start_wait_s + life.start_s + 1)
        self.assertEqual(answer.events, [acknowledged(toolsListChanged=True)])

    def test_early(self) -> None:
        """What changes before the acknowledgement is told after it."""
        answer = self.it.listen(
            notifications={"toolsListChanged": True, "resourceSubscriptions": ["a"]}
        )
        sent = self.it.take("resources/subscribe")
        self.it.say(method=TOOLS)
        self.assertEqual(answer.status, 0)
        self.it.say(id=sent["id"], result={})
        self.assertEqual([event["method"] for event in answer.events][1:], [TOOLS])

    def test_slow(self) -> None:
        """A client that reads slowly is told once of what changed twice."""
        answer = self.it.listen(notifications=LISTS)
        answer.read_slowly()
        self.it.say(method=TOOLS)
        self.it.say(method=TOOLS)
        self.assertEqual(len(answer.events), 1)
        answer.catch_up()
        self.assertEqual(len(answer.events), 2)

    def test_restart(self) -> None:
        """The stream outlives the server, and hears the next one with its subscriptions."""
        answer = self.subscribe("a")
        self.it.world.pool.die()
        self.it.settle()
        self.it.call("tools/list")
        self.assertEqual(self.it.take("resources/subscribe")["params"], {"uri": "a"})
        self.it.say(method=UPDATED, params={"uri": "a"})
        self.assertFalse(answer.finished)
        self.assertEqual(answer.events[-1]["method"], UPDATED)

    def test_gone_before(self) -> None:
        """For a client that is gone already nothing is opened, and nothing kept."""
        post, inbound = self.it.post("subscriptions/listen", notifications=LISTS)
        inbound.go()
        self.it.bridge.listen(post)
        self.assertEqual((len(self.it.table), self.it.released), (0, 1))
        self.assertEqual(self.it.bridge._listens, {})

    def test_left_while_stopped(self) -> None:
        """A server that does not run is not started to be told that nobody listens any more."""
        answer = self.subscribe("a")
        self.it.world.pool.die()
        self.it.settle()
        answer.go()
        self.it.settle()
        self.assertEqual(len(self.it.world.pool.instances), 1)
        self.it.call("tools/list")
        self.assertEqual([m["method"] for m in self.it.world.child.sent], ["tools/list"])

    def test_bad(self) -> None:
        """A filter of the wrong form, and a client that takes no stream, are refused at once."""
        answer = self.it.listen(notifications=3)
        self.assertEqual((answer.status, answer.json["error"]["code"]), (400, -32602))
        answer = self.it.listen(notifications={}, accepts=(True, False))
        self.assertEqual(answer.status, 406)
        self.assertEqual((self.it.released, len(self.it.table)), (2, 0))

    def test_no_server(self) -> None:
        """A server that can not be reached is said so."""
        self.it.world.pool.error = BackendUnavailable()
        answer = self.it.listen(notifications=LISTS)
        self.assertEqual((answer.status, answer.json["error"]["code"]), (200, -31001))
        self.assertEqual(self.it.released, 1)

    def test_gone_early(self) -> None:
        """A client that goes before it was acknowledged leaves nothing behind."""
        answer = self.it.listen(notifications={"resourceSubscriptions": ["a", "b"]})
        sent = self.it.take("resources/subscribe")
        answer.go()
        self.it.say(id=sent["id"], result={})
        self.it.say(id=self.it.take("resources/unsubscribe")["id"], result={})
        self.it.pass_time(LINGER_S + 1)
        self.assertEqual((self.it.leaks(), self.it.released), ({}, 1))
        self.it.world.pool.at_once = False
        self.it.world.pool.die()
        answer = self.it.listen(notifications=LISTS, can={"roots": {}})
        answer.go()
        self.it.settle()
        self.assertEqual(self.it.released, 2)

    def test_drain(self) -> None:
        """A gate that stops ends its streams politely, also those that have not begun."""
        answer = self.it.listen("x", notifications=LISTS)
        waiting = self.it.listen("y", notifications={"resourceSubscriptions": ["a"]})
        asked = self.it.tool(can={"roots": {}})
        self.it.bridge.drain()
        last = {
            "jsonrpc": "2.0",
            "id": "x",
            "result": {"resultType": "complete", "_meta": {ID: "x"}},
        }
        self.assertEqual(answer.events[-1], last)
        self.assertTrue(answer.finished)
        self.assertEqual((waiting.json["id"], waiting.json["error"]["code"]), ("y", -31001))
        self.assertFalse(asked.finished)

    def test_revoked(self) -> None:
        """A key that was revoked loses its streams and sessions; others keep theirs."""
        mine = self.it.listen(notifications=LISTS)
        other = self.it.listen(notifications=LISTS, key="k2")
        self.it.bridge.revoke(caller_of("k1").principal)
        self.assertTrue(mine.finished)
        self.assertFalse(other.finished)
        self.assertEqual(len(self.it.table), 1)


class HTTPListenTests(SynchronousTestCase):
    """On an HTTP server."""

    @override
    def setUp(self) -> None:
        self.it = Bridged(Transport.HTTP)

    def open(self) -> FakeInbound:
        """Listen; the server is up to its GET."""
        self.it.world.pool.at_once = False
        answer = self.it.listen(notifications=LISTS)
        self.it.world.pool.started()
        self.it.world.server.capabilities = dict(SERVER)
        self.it.settle()
        return answer

    def test_stream(self) -> None:
        """The session's stream feeds the client's."""
        answer = self.open()
        get = self.it.world.server.take()
        self.assertEqual((get.method, get.session), ("GET", b"up-1"))
        self.assertNotIn(b"mcp-method", get.fields)
        get.head()
        self.it.settle()
        get.event({"jsonrpc": "2.0", "method": TOOLS})
        self.assertEqual(answer.events, [acknowledged(toolsListChanged=True), frame(TOOLS)])

    def test_deaf(self) -> None:
        """A server without a stream can tell of nothing, and is not asked for it again."""
        answer = self.open()
        self.it.world.server.take().empty(405)
        self.it.settle()
        self.assertEqual(answer.events, [acknowledged()])
        again = self.it.listen(notifications=LISTS)
        self.assertEqual(again.events, [acknowledged()])
        self.assertEqual(self.it.world.server.waiting, [])

    def test_silent(self) -> None:
        """A server that does not say whether it has one is taken at its word."""
        answer = self.open()
        self.it.pass_time(HEARING_S + 1)
        self.assertEqual(answer.events, [acknowledged(toolsListChanged=True)])
