"""Tests of mcpgate.web.mcp.on_modern.listen, alone and in a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    Overloaded,
)
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.model import Group, Transport
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.modern.listen import ACK_S
from mcpgate.web.mcp.on_modern import sessions as bridged_sessions
from mcpgate.web.mcp.on_modern.listen import OVERLAP_S, BridgedListen, Filter
from tests.web.bridge_kit import Asked, BridgeWorld
from tests.web.endpoint_kit import INIT, caller_of, request

TOOLS: Filter = {"toolsListChanged": True}
BOTH: Filter = {"toolsListChanged": True, "resourceSubscriptions": ["a:b"]}
CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


class FakeLine:
    """See `Line`; the test answers as the server."""

    def __init__(self) -> None:
        self.legs: list[Asked] = []
        self.running = True
        self.start_wait_s = 60.0
        self.heard: list[Message] = []
        self.error: Overloaded | None = None

    def listen(self, wanted: Filter, sink: IMessageSink) -> Callable[[], None]:
        """See `Line.listen`."""
        if self.error is not None:
            raise self.error
        asked = Asked(
            caller_of("k1"),
            Request(len(self.legs), "subscriptions/listen", {"notifications": wanted}),
            sink,
            None,
            [],
        )
        self.legs.append(asked)
        return asked.take_back

    def runs(self) -> bool:
        """See `Line.runs`."""
        return self.running

    def say(self, message: Message) -> None:
        """See `Line.say`."""
        self.heard.append(message)

    @property
    def methods(self) -> list[str]:
        """What the client heard."""
        return [m.method for m in self.heard if isinstance(m, Notification)]


class BridgedListenTests(SynchronousTestCase):
    """One session's listen."""

    def setUp(self) -> None:
        """Make one."""
        self.clock = Clock()
        self.line = FakeLine()
        wheel = DeadlineWheel(self.clock)
        self.listen = BridgedListen(self.line, clock=self.clock, wheel=wheel)

    def tearDown(self) -> None:
        """Hold that nothing is left behind."""
        self.listen.stop()
        for _ in range(100):
            self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_heard(self) -> None:
        """Whoever wants to listen waits for the acknowledgement; events pass in client's words."""
        waiting = self.listen.want(TOOLS)
        self.assertNoResult(waiting)
        (leg,) = self.line.legs
        leg.acknowledge()
        self.assertEqual(self.successResultOf(waiting), TOOLS)
        leg.tell(CHANGED, _meta={"io.modelcontextprotocol/subscriptionId": 0})
        self.assertEqual(self.line.heard, [Notification(CHANGED)])
        leg.sink.deliver(Request(1, "ping"))
        leg.acknowledge({})
        self.assertEqual((len(self.line.heard), self.listen.served), (1, TOOLS))

    def test_same_filter(self) -> None:
        """What is listened to already is not asked for again."""
        first, second = self.listen.want(TOOLS), self.listen.want(dict(TOOLS))
        self.assertEqual(len(self.line.legs), 1)
        self.line.legs[0].acknowledge()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.listen.want(TOOLS))
        self.listen.keep(TOOLS)
        self.assertEqual(len(self.line.legs), 1)

    def test_new_before_old(self) -> None:
        """Another filter is another listen; the old one goes when the new one is heard."""
        self.listen.want(TOOLS)
        old = self.line.legs[0]
        old.acknowledge()
        waiting = self.listen.want(BOTH)
        new = self.line.legs[1]
        self.assertFalse(old.taken_back)
        # What both tell while both are open is told once, and after both were heard.
        old.tell(CHANGED)
        new.acknowledge()
        self.successResultOf(waiting)
        self.assertTrue(old.taken_back)
        new.tell(CHANGED)
        new.tell(UPDATED, uri="a:b")
        old.tell(CHANGED)
        self.assertEqual(self.line.heard, [])
        self.clock.advance(OVERLAP_S)
        self.assertEqual(self.line.methods, [CHANGED, UPDATED])
        new.tell(CHANGED)
        self.assertEqual(self.line.methods, [CHANGED, UPDATED, CHANGED])

    def test_overtaken(self) -> None:
        """Whoever waits for an older filter is content with a newer one."""
        first = self.listen.want(TOOLS)
        second = self.listen.want(BOTH)
        self.line.legs[1].acknowledge()
        self.assertEqual(self.successResultOf(first), BOTH)
        self.assertEqual(self.successResultOf(second), BOTH)
        self.assertTrue(self.line.legs[0].taken_back)

    def test_in_order(self) -> None:
        """The older of two that are asked for serves until the newer is heard."""
        self.listen.want(TOOLS)
        self.listen.want(BOTH)
        self.line.legs[0].acknowledge()
        self.assertEqual(self.listen.served, TOOLS)
        self.line.legs[1].acknowledge()
        self.assertEqual(self.listen.served, BOTH)

    def test_refused(self) -> None:
        """A filter that is refused leaves what was heard; it is not asked for again and again."""
        self.listen.want(TOOLS)
        self.line.legs[0].acknowledge()
        waiting = self.listen.want(BOTH)
        new = self.line.legs[1]
        self.line.legs[0].tell(CHANGED)
        new.error(-32601)
        self.failureResultOf(waiting, BackendUnavailable)
        self.line.legs[0].tell(CHANGED)
        self.assertFalse(self.line.legs[0].taken_back)

    def test_not_known(self) -> None:
        """A server that can not listen is not asked by itself; the client may ask."""
        self.listen.keep(TOOLS)
        self.line.legs[0].error(-32601)
        self.listen.keep(TOOLS)
        self.assertEqual(len(self.line.legs), 1)
        waiting = self.listen.want(TOOLS)
        self.assertEqual(len(self.line.legs), 2)
        self.line.legs[1].acknowledge()
        self.successResultOf(waiting)

    def test_broken(self) -> None:
        """A listen that breaks is opened again, and what may have been missed is told."""
        self.listen.want(BOTH)
        self.line.legs[0].acknowledge()
        self.line.legs[0].fail(BackendDied())
        self.assertEqual(self.listen.served, {})
        self.clock.advance(1)
        self.line.legs[1].fail(BackendDied())
        self.clock.advance(1)
        self.assertEqual(len(self.line.legs), 2)
        self.clock.advance(1)
        self.line.legs[2].acknowledge()
        self.assertEqual(
            self.line.heard, [Notification(CHANGED), Notification(UPDATED, {"uri": "a:b"})]
        )

    def test_ended_by_server(self) -> None:
        """A server that ends it politely has ended it all the same."""
        self.listen.want(TOOLS)
        self.line.legs[0].acknowledge()
        self.line.legs[0].sink.finish(Response(0, {"resultType": "complete"}))
        self.clock.advance(1)
        self.assertEqual(len(self.line.legs), 2)

    def test_server_does_not_run(self) -> None:
        """A listen starts no server; the next thing the client asks opens it."""
        self.line.running = False
        self.listen.keep(TOOLS)
        self.assertEqual(self.line.legs, [])
        self.line.running = True
        self.listen.keep(TOOLS)
        self.line.legs[0].acknowledge()
        self.line.running = False
        self.line.legs[0].fail(BackendDied())
        self.clock.advance(60)
        self.assertEqual(len(self.line.legs), 1)
        self.line.running = True
        self.listen.keep(TOOLS)
        self.assertEqual(len(self.line.legs), 2)

    def test_again_before_its_time(self) -> None:
        """A client that asks while a new try is waited for need not wait."""
        waiting = self.listen.want(TOOLS)
        self.line.legs[0].fail(BackendDied())
        self.failureResultOf(waiting, BackendDied)
        self.listen.want(TOOLS).addErrback(lambda _: None)
        self.assertEqual(len(self.line.legs), 2)
        self.clock.advance(10)
        self.assertEqual(len(self.line.legs), 2)

    def test_silent(self) -> None:
        """A server that acknowledges nothing is not waited for for ever."""
        waiting = self.listen.want(TOOLS)
        for _ in range(int(ACK_S) + 2):
            self.clock.advance(1)
        self.failureResultOf(waiting, BackendTimeout)
        self.assertTrue(self.line.legs[0].taken_back)

    def test_slow_start(self) -> None:
        """The time of a start does not count as silence."""
        self.line.running = False
        waiting = self.listen.want(TOOLS)
        for _ in range(int(self.line.start_wait_s + ACK_S) - 1):
            self.clock.advance(1)
        self.assertNoResult(waiting)
        for _ in range(3):
            self.clock.advance(1)
        self.failureResultOf(waiting, BackendTimeout)

    def test_stopped(self) -> None:
        """Nobody is left waiting, and nothing is heard any more."""
        waiting = self.listen.want(TOOLS)
        self.listen.stop()
        self.failureResultOf(waiting, CallCancelled)
        (leg,) = self.line.legs
        self.assertTrue(leg.taken_back)
        leg.acknowledge()
        leg.tell(CHANGED)
        leg.fail(BackendDied())
        self.assertEqual(self.line.heard, [])
        self.assertEqual(self.successResultOf(self.listen.want({})), {})
        self.listen.keep({})

    def test_can_not_be_asked(self) -> None:
        """A failure to ask is one like any other."""
        self.line.error = Overloaded()
        self.failureResultOf(self.listen.want(TOOLS), Overloaded)

    def test_stopped_in_overlap(self) -> None:
        """Stopping forgets what was held back."""
        self.listen.want(TOOLS)
        self.line.legs[0].acknowledge()
        self.listen.want(BOTH)
        self.line.legs[0].tell(CHANGED)
        self.line.legs[1].acknowledge()
        self.listen.stop()
        self.clock.advance(1)
        self.assertEqual(self.line.heard, [])

    def test_new_dies_in_overlap(self) -> None:
        """What was held back is told when nothing more can come."""
        self.listen.want(TOOLS)
        old = self.line.legs[0]
        old.acknowledge()
        waiting = self.listen.want(BOTH)
        old.tell(CHANGED)
        self.line.legs[1].fail(BackendDied())
        self.failureResultOf(waiting, BackendDied)
        self.assertEqual(self.line.methods, [CHANGED])


class SessionTests(SynchronousTestCase):
    """Listening in a session: GET, subscribe and unsubscribe."""

    def setUp(self) -> None:
        """Make a gate before a modern server, and a session."""
        self.world = BridgeWorld()
        self.asker = self.world.asker
        # As if it ran: what only listens starts nothing.
        lease = self.successResultOf(
            self.world.pool.lease(
                self.world.spec,
                self.world.bridge._owner(self.world.spec, self.make()),
                caller_of("k1"),
            )
        )
        lease.release()

    def make(self) -> Any:
        """Begin the session."""
        answer = self.world.post(INIT)
        self.sid = answer.fields[b"mcp-session-id"].decode()
        return self.world.session(self.sid)

    def tearDown(self) -> None:
        """Hold that whatever was taken is given back."""
        for session in self.world.sessions:
            self.world.sessions.end(session, "test")
        self.world.settle()
        self.assertEqual(self.world.leaks(), {})
        for asked in self.asker.all:
            if asked.request.method == "subscriptions/listen":
                self.assertTrue(asked.taken_back or asked not in self.asker.waiting)

    def test_stream(self) -> None:
        """A GET stream hears every list that the server tells of."""
        stream = self.world.get(self.sid)
        listen = self.asker.waiting[0]
        self.assertEqual(
            listen.params,
            {"notifications": {"toolsListChanged": True, "resourcesListChanged": True}},
        )
        listen.acknowledge()
        listen.tell(CHANGED)
        self.assertEqual([event["method"] for event in stream.events], [CHANGED])
        stream.go()
        self.world.settle()
        self.assertTrue(listen.taken_back)
        self.asker.waiting.clear()

    def test_newer_stream(self) -> None:
        """A newer stream takes the older one's place; the listen stays."""
        first = self.world.get(self.sid)
        self.asker.waiting[0].acknowledge()
        second = self.world.get(self.sid)
        self.assertTrue(first.finished)
        self.assertEqual(len(self.asker.waiting), 1)
        self.asker.waiting[0].tell(CHANGED)
        self.assertEqual(len(second.events), 1)

    def test_subscribe(self) -> None:
        """A subscription is confirmed when the server has acknowledged it, and kept."""
        answer = self.world.post(request("resources/subscribe", 3, uri="a:b"), self.sid)
        self.assertFalse(answer.finished)
        listen = self.asker.take()
        self.assertEqual(listen.params["notifications"]["resourceSubscriptions"], ["a:b"])
        listen.acknowledge()
        self.assertEqual(answer.json["result"], {})
        again = self.world.post(request("resources/subscribe", 4, uri="a:b"), self.sid)
        self.assertEqual(again.json["result"], {})
        self.assertEqual(self.world.session(self.sid).record.subscriptions, ("a:b",))
        # Without a stream it is kept for the next one.
        listen.tell(UPDATED, uri="a:b")
        stream = self.world.get(self.sid)
        self.assertEqual(stream.events[0]["params"], {"uri": "a:b"})

    def test_ended_meanwhile(self) -> None:
        """A session that ends while its server is asked what it can do never listens."""
        link = self.world.session(self.sid).extras
        link.discovered = None  # type: ignore[attr-defined]  # as after a restart of the gate
        self.asker.plays = False
        answer = self.world.post(request("resources/subscribe", 3, uri="a:b"), self.sid)
        discovering = self.asker.take()
        self.world.ask("DELETE", session=self.sid)
        discovering.result(supportedVersions=["2026-07-28"], capabilities=self.asker.capabilities)
        self.assertEqual(self.asker.waiting, [])
        self.assertEqual(answer.json["error"]["code"], -31010)

    def test_unsubscribe(self) -> None:
        """The last subscription takes the listen with it; unknown ones do no harm."""
        self.world.post(request("resources/subscribe", 3, uri="a:b"), self.sid)
        listen = self.asker.take()
        listen.acknowledge()
        answer = self.world.post(request("resources/unsubscribe", 4, uri="a:b"), self.sid)
        self.assertEqual(answer.json["result"], {})
        self.assertTrue(listen.taken_back)
        self.assertEqual(self.world.session(self.sid).record.subscriptions, ())
        answer = self.world.post(request("resources/unsubscribe", 5, uri="x:y"), self.sid)
        self.assertEqual(answer.json["result"], {})

    def test_not_honoured(self) -> None:
        """What the server does not tell of can not be subscribed to."""
        answer = self.world.post(request("resources/subscribe", 3, uri="a:b"), self.sid)
        self.asker.take().acknowledge({"toolsListChanged": True})
        self.assertEqual(answer.json["error"]["code"], -32602)
        self.assertEqual(self.world.session(self.sid).record.subscriptions, ())

    def test_bounded(self) -> None:
        """The oldest of too many subscriptions is given up."""
        self.patch(bridged_sessions, "MAX_SUBSCRIPTIONS", 1)
        for uri in ("a:b", "c:d"):
            self.world.post(request("resources/subscribe", 3, uri=uri), self.sid)
            self.asker.waiting[-1].acknowledge()
        wanted = self.asker.waiting[-1].params["notifications"]
        self.assertEqual(wanted["resourceSubscriptions"], ["c:d"])
        self.assertTrue(self.asker.waiting[0].taken_back)

    def test_no_subscriptions(self) -> None:
        """A server without subscriptions has no such method; nor is nonsense one."""
        answer = self.world.post(request("resources/subscribe", 3), self.sid)
        self.assertEqual(answer.json["error"]["code"], -32602)
        self.asker.capabilities = {"resources": {}}
        other = self.world.post(INIT).fields[b"mcp-session-id"].decode()
        answer = self.world.post(request("resources/subscribe", 3, uri="a:b"), other)
        self.assertEqual(answer.json["error"]["code"], -32601)

    def test_after_restart(self) -> None:
        """A session of an earlier life hears what it subscribed to as soon as it calls."""
        self.world.post(request("resources/subscribe", 3, uri="a:b"), self.sid)
        self.asker.take().acknowledge()
        again = BridgeWorld(store=self.world.store)
        self.successResultOf(again.sessions.load())
        session = again.session(self.sid)
        lease = self.successResultOf(
            again.pool.lease(again.spec, again.bridge._owner(again.spec, session), caller_of("k1"))
        )
        lease.release()
        again.post(request("tools/list"), self.sid)
        again.asker.take().result(tools=[])
        listen = again.asker.take()
        self.assertEqual(listen.params["notifications"]["resourceSubscriptions"], ["a:b"])
        # What changed between the two lives nobody heard.
        listen.acknowledge()
        stream = again.get(self.sid)
        self.assertIn(UPDATED, [event["method"] for event in stream.events])

    def test_server_stopped(self) -> None:
        """A stream of a server that does not run waits for the next call."""
        self.world.pool.die()
        stream = self.world.get(self.sid)
        link = self.world.session(self.sid).extras
        link.discovered = None  # type: ignore[attr-defined]  # as after a restart of the gate
        self.assertEqual(self.asker.waiting, [])
        self.world.post(request("tools/list"), self.sid)
        self.asker.take().result(tools=[])
        self.assertEqual(self.asker.waiting, [])
        self.assertFalse(stream.finished)

    def test_rest_service(self) -> None:
        """A REST service does not run and is listened to all the same: the gate itself tells."""
        self.world = BridgeWorld(Transport.REST)
        self.asker = self.world.asker
        link = self.make().extras
        link.discovered = None
        stream = self.world.get(self.sid)
        listen = self.asker.take()
        listen.acknowledge()
        listen.tell(CHANGED)
        self.assertEqual([event["method"] for event in stream.events], [CHANGED])

    def test_discover_fails(self) -> None:
        """A server that can not be asked now is listened to another time."""
        link = self.world.session(self.sid).extras
        link.discovered = None  # type: ignore[attr-defined]  # as after a restart of the gate
        self.asker.plays = False
        self.world.get(self.sid)
        self.asker.take().sink.finish(ErrorResponse(1, -32603, "no"))
        self.assertEqual(self.asker.waiting, [])


class GroupTests(SynchronousTestCase):
    """Listening in a session with a group, which has no instance of its own."""

    def setUp(self) -> None:
        """Make a gate before a group, and a session."""
        self.world = BridgeWorld(Transport.GROUP, runtime="group", group=Group(servers=("a",)))
        self.sid = self.world.post(INIT).fields[b"mcp-session-id"].decode()

    def test_stream(self) -> None:
        """A GET stream hears every list at once: the group sees to it that nothing starts."""
        stream = self.world.get(self.sid)
        listen = self.world.asker.take()
        self.assertIsNone(listen.source)
        listen.acknowledge()
        listen.tell(CHANGED)
        self.assertEqual([event["method"] for event in stream.events], [CHANGED])
        self.world.get(self.sid)
        self.assertEqual(self.world.asker.waiting, [])

    def test_after_restart(self) -> None:
        """A session of an earlier life listens to every list, and asks nobody what there is."""
        again = BridgeWorld(
            Transport.GROUP, store=self.world.store, runtime="group", group=self.world.spec.group
        )
        self.successResultOf(again.sessions.load())
        again.get(self.sid)
        lists = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
        wanted = again.asker.take().params["notifications"]
        self.assertEqual(wanted, dict.fromkeys(lists, True))
        self.assertEqual(again.asker.discovered, 0)
