"""Subscriptions of modern clients on modern servers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.mcp.jsonrpc import Notification
from mcpgate.mcp.modern import META_SUBSCRIPTION
from mcpgate.model import Transport
from mcpgate.web.mcp.modern.listen import ACK_S, MAX_PENDING
from tests.web.endpoint_kit import caller_of
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.modern_kit import ModernWorld

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"
UPDATED = "notifications/resources/updated"
FILTER = {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}


def frame(id: int | str, method: str, **params: object) -> dict[str, Any]:
    """Make a frame of a subscription."""
    about = {META_SUBSCRIPTION: id}
    return {"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": about}}


def farewell(id: int | str) -> dict[str, Any]:
    """Make the frame that ends one."""
    result = {"resultType": "complete", "_meta": {META_SUBSCRIPTION: id}}
    return {"jsonrpc": "2.0", "id": id, "result": result}


def listen(world: ModernWorld, id: int | str = 7, **params: Any) -> FakeInbound:
    """Ask for a subscription."""
    params.setdefault("notifications", FILTER)
    return world.call("subscriptions/listen", id, **params)


def acknowledge(sent: Sent, **honoured: object) -> None:
    """Have the server begin one."""
    sent.head()
    sent.event(frame(sent.message["id"], ACKNOWLEDGED, notifications=honoured or FILTER))


class OverHTTPTests(SynchronousTestCase):
    """On servers with HTTP."""

    def test_frames(self) -> None:
        """The acknowledgement first, then what was asked for, each under the listener's id."""
        world = ModernWorld()
        answer = listen(world)
        sent = world.server.take()
        self.assertEqual(sent.fields[b"mcp-method"], b"subscriptions/listen")
        self.assertEqual(answer.status, 0)
        acknowledge(sent, toolsListChanged=True)
        sent.event(frame("wrong", TOOLS))
        sent.event(frame(7, PROMPTS))
        sent.event(frame(7, "notifications/progress", progress=1))
        sent.event(frame(7, UPDATED, uri="file:///a/b"))
        self.assertEqual(
            answer.events,
            [
                frame(7, ACKNOWLEDGED, notifications={"toolsListChanged": True}),
                frame(7, TOOLS),
                frame(7, UPDATED, uri="file:///a/b"),
            ],
        )
        self.assertEqual(world.pool.held, 1)
        answer.go()
        self.assertTrue(sent.aborted)
        self.assertEqual((world.leaks(), len(world.modern.listens)), ({}, 0))

    def test_the_gates_own(self) -> None:
        """What the gate says of a server goes to whoever listens to it, if it was asked for."""
        world = ModernWorld()
        answer = listen(world)
        acknowledge(world.server.take(), toolsListChanged=True)
        for server, method in (("other", TOOLS), ("notes", PROMPTS), ("notes", TOOLS)):
            world.modern.listens.tell(server, Notification(method))
        self.assertEqual(answer.events[1:], [frame(7, TOOLS)])

    def test_a_silent_stream_lives(self) -> None:
        """The client hears comments, whether the server says anything or not."""
        world = ModernWorld()
        answer = listen(world)
        world.pass_time(16)
        self.assertTrue(answer.is_stream)
        acknowledge(world.server.take())
        before = len(answer.body)
        world.pass_time(700)
        self.assertGreater(answer.body.count(b": keepalive"), 40)
        self.assertGreater(len(answer.body), before)
        self.assertFalse(answer.finished)

    def test_no_acknowledgement(self) -> None:
        """A server that answers and acknowledges nothing is not waited for for ever."""
        world = ModernWorld()
        world.call("tools/list")
        world.server.take().result(tools=[])
        answer = listen(world)
        sent = world.server.take()
        sent.head()
        world.pass_time(ACK_S - 1)
        self.assertFalse(answer.finished)
        world.pass_time(2)
        self.assertTrue(sent.aborted)
        self.assertEqual(answer.told["error"]["code"], -31002)
        self.assertTrue(answer.finished)
        self.assertEqual((world.leaks(), len(world.modern.listens)), ({}, 0))

    def test_slow_start(self) -> None:
        """The time of a start does not count as silence."""
        world = ModernWorld()
        world.pool.at_once = False
        answer = listen(world)
        world.pass_time(world.spec.lifetime.start_wait_s + ACK_S - 2)
        self.assertFalse(answer.finished)
        world.pool.started()
        acknowledge(world.server.take())
        world.pass_time(2 * ACK_S)
        self.assertFalse(answer.finished)

    def test_no_acknowledgement_any_more(self) -> None:
        """A client that listens already keeps its stream, and the server is asked again."""
        world = ModernWorld()
        answer = listen(world)
        first = world.server.take()
        acknowledge(first)
        first.fail()
        silent = self.wait(world)
        silent.head()
        world.pass_time(ACK_S + 1)
        self.assertTrue(silent.aborted)
        self.assertFalse(answer.finished)
        acknowledge(self.wait(world))
        self.assertEqual(answer.events[-1], frame(7, UPDATED, uri="file:///a"))
        answer.go()
        world.pass_time(2 * ACK_S)
        self.assertEqual(world.leaks(), {})

    def test_refusals(self) -> None:
        """Before it began one is answered as any request."""
        world = ModernWorld()
        answer = listen(world, notifications=None)
        self.assertEqual((answer.status, answer.json["error"]["code"]), (400, -32602))
        answer = listen(world, accept=b"application/json")
        self.assertEqual(answer.status, 406)
        answer = listen(world, "x")
        error = {"code": -32601, "message": "Method not found"}
        world.server.take().json({"jsonrpc": "2.0", "id": None, "error": error}, 404)
        self.assertEqual((answer.status, answer.json["error"]), (404, error))
        self.assertEqual(answer.json["id"], "x")
        answer = listen(world)
        world.pass_time(16)
        world.server.take().json({"jsonrpc": "2.0", "id": 7, "error": error}, 404)
        self.assertEqual(answer.told["error"], error)
        self.assertTrue(answer.finished)
        answer = listen(world)
        world.server.take().result()
        self.assertEqual(answer.json["error"]["code"], -31003)
        world.pool.error = BackendUnavailable()
        world.pool.die()
        answer = listen(world)
        self.assertEqual((answer.status, answer.json["error"]["code"]), (200, -31001))
        self.assertEqual((world.leaks(), len(world.modern.listens)), ({}, 0))

    def test_streams_of_a_key(self) -> None:
        """A key may have so many open, and no more."""
        world = ModernWorld(streams=2)
        first = listen(world)
        listen(world)
        self.assertEqual(listen(world).json["error"]["code"], -31005)
        first.go()
        self.assertEqual(listen(world).status, 0)

    def test_it_outlives_the_server(self) -> None:
        """When the server runs again the client hears that anything may have changed."""
        world = ModernWorld()
        answer = listen(world)
        acknowledge(world.server.take())
        begun = len(answer.events)
        world.pool.die()
        for stopped in world.pool.passive:
            stopped()
        world.pass_time(30)
        self.assertEqual(len(world.pool.instances), 1, "nobody starts a server to listen")
        self.assertFalse(answer.finished)
        call = world.call()
        world.pass_time(1)
        for sent in list(world.server.waiting):
            world.server.waiting.remove(sent)
            if sent.message["method"] == "subscriptions/listen":
                acknowledge(sent)
            else:
                sent.result(a=1)
        self.assertEqual(call.json["result"], {"a": 1})
        self.assertEqual(
            answer.events[begun:], [frame(7, TOOLS), frame(7, UPDATED, uri="file:///a")]
        )
        answer.go()
        self.assertEqual(world.leaks(), {})

    def test_a_lost_connection(self) -> None:
        """While the server runs it is asked again, later each time."""
        world = ModernWorld()
        answer = listen(world)
        first = world.server.take()
        acknowledge(first)
        first.fail()
        asked = []
        for _ in range(60):
            for sent in list(world.server.waiting):
                world.server.waiting.remove(sent)
                asked.append(world.clock.seconds())
                sent.fail()
            world.pass_time(1)
        self.assertFalse(answer.finished)
        self.assertIn(len(asked), (4, 5, 6))
        sent = self.wait(world)
        acknowledge(sent)
        sent.event(farewell(7))
        sent.done()
        sent = self.wait(world)
        self.assertFalse(answer.finished)
        sent.json({"jsonrpc": "2.0", "id": 7, "error": {"code": -32601, "message": "x"}}, 404)
        self.assertEqual(answer.events[-1], farewell(7))
        self.assertTrue(answer.finished)
        self.assertEqual(world.leaks(), {})

    def wait(self, world: ModernWorld) -> Sent:
        """Let time pass until the server is asked again."""
        for _ in range(130):
            if world.server.waiting:
                break
            world.pass_time(1)
        return world.server.take()

    def test_a_client_that_goes_while_the_server_is_lost(self) -> None:
        """Nobody is asked any more."""
        world = ModernWorld()
        answer = listen(world)
        acknowledge(world.server.take())
        world.server.all[0].fail()
        answer.go()
        world.pass_time(60)
        self.assertEqual(len(world.server.all), 1)
        self.assertEqual(world.leaks(), {})

    def test_polite_ends(self) -> None:
        """When the gate stops, and when a key is revoked."""
        world = ModernWorld()
        answer, fresh = listen(world), listen(world, "f")
        other = listen(world, key="k2")
        for instance in world.pool.instances:
            acknowledge(instance.http.waiting[0])
        world.modern.listens.close(caller_of("k1").principal)
        self.assertEqual(answer.events[-1], farewell(7))
        self.assertTrue(answer.finished)
        self.assertEqual(fresh.json["error"]["code"], -31008)
        self.assertFalse(other.finished)
        world.modern.listens.close_all()
        self.assertTrue(other.finished)
        self.assertEqual((world.leaks(), len(world.modern.listens)), ({}, 0))

    def test_slow_clients(self) -> None:
        """Alike frames are told once, and not more than a bound."""
        world = ModernWorld()
        answer = listen(world)
        sent = world.server.take()
        acknowledge(sent)
        begun = len(answer.events)
        answer.read_slowly()
        for _ in range(5):
            sent.event(frame(7, TOOLS))
        for number in range(MAX_PENDING + 5):
            sent.event(frame(7, UPDATED, uri=f"file:///a/{number}"))
        self.assertEqual(len(answer.events), begun)
        answer.catch_up()
        told = answer.events[begun:]
        self.assertEqual(len(told), MAX_PENDING)
        self.assertEqual(told[-1], frame(7, UPDATED, uri=f"file:///a/{MAX_PENDING + 4}"))

    def test_changes_empty_the_cache(self) -> None:
        """What a stream tells is not answered from memory any more."""
        world = ModernWorld()
        listen(world)
        sent = world.server.take()
        acknowledge(sent)
        for asked in (1, 0, 1):
            if asked and len(world.server.all) > 1:
                sent.event(frame(7, TOOLS))
            answer = world.call("tools/list")
            self.assertEqual(len(world.server.waiting), asked)
            if asked:
                world.server.take().result(tools=[], ttlMs=60000, cacheScope="private")
            self.assertEqual(answer.status, 200)

    def test_over_and_over(self) -> None:
        """What ends twice ends once; a woken stream that has all it needs asks nothing."""
        world = ModernWorld()
        answer = listen(world)
        sent = world.server.take()
        acknowledge(sent)
        world.call("tools/list")
        world.pass_time(1)
        self.assertEqual(world.server.heard(), ["subscriptions/listen", "tools/list"])
        sent.event(frame(7, ACKNOWLEDGED, notifications=FILTER))
        sent.event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        self.assertEqual(len(answer.events), 1)
        (opened,) = world.modern.listens._open[caller_of("k1").principal]
        world.modern.listens.close_all()
        opened.close()
        opened.wake()
        self.assertEqual(answer.events[1:], [farewell(7)])
        world.modern.listens.remove(caller_of("k1").principal, opened)

    def test_other_servers_wake_nobody(self) -> None:
        """Only a call to the very server does."""
        world = ModernWorld()
        listen(world)
        acknowledge(world.server.take())
        world.pool.die()
        for stopped in world.pool.passive:
            stopped()
        world.call(path=b"/other/mcp")
        world.pass_time(3)
        self.assertEqual([i.key.server for i in world.pool.instances], ["notes", "other"])
        self.assertEqual(world.server.heard(), ["tools/call"])


class OverStdioTests(SynchronousTestCase):
    """On children."""

    def test_frames(self) -> None:
        """The child knows the subscription by the gate's id."""
        world = ModernWorld(Transport.STDIO)
        answer = listen(world, "s")
        (sent,) = world.child.take()
        world.child.say(**{**frame(sent["id"], ACKNOWLEDGED, notifications=FILTER)})
        world.child.say(**frame(sent["id"], TOOLS))
        self.assertEqual(
            answer.events,
            [frame("s", ACKNOWLEDGED, notifications=FILTER), frame("s", TOOLS)],
        )
        answer.go()
        (told,) = world.child.take()
        self.assertEqual(told["params"]["requestId"], sent["id"])
        self.assertEqual(world.leaks(), {})

    def test_it_outlives_the_child(self) -> None:
        """It is taken up when somebody calls again."""
        world = ModernWorld(Transport.STDIO)
        answer = listen(world)
        (sent,) = world.child.take()
        world.child.say(**frame(sent["id"], ACKNOWLEDGED, notifications=FILTER))
        world.pool.die()
        world.pass_time(10)
        self.assertFalse(answer.finished)
        self.assertEqual(len(world.pool.instances), 1)
        world.call()
        world.pass_time(1)
        methods = [sent["method"] for sent in world.child.sent]
        self.assertEqual(methods, ["tools/call", "subscriptions/listen"])
        world.child.say(**frame(world.child.sent[1]["id"], ACKNOWLEDGED, notifications=FILTER))
        self.assertEqual(answer.events[1], frame(7, TOOLS))
        answer.go()
        self.assertEqual(world.pool.held, 1, "that of the call")
