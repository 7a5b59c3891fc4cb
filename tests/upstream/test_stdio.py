"""Conversations of many sessions with one stdio server."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    BackendDied,
    Draining,
    Overloaded,
)
from mcpgate.mcp.jsonrpc import Notification, Request, Response
from mcpgate.model import Exit
from mcpgate.upstream.stdio import was_sent
from tests.upstream.stdio_fakes import FakePeer, FakeSink, Stage


class NotifyTests(SynchronousTestCase):
    """Notifications of clients."""

    def test_passed(self) -> None:
        """Initialized is the gate's to send; others pass."""
        stage = Stage()
        ann = FakePeer()
        stage.upstream.notify(ann, Notification("notifications/initialized"))
        stage.upstream.notify(
            ann, Notification("notifications/progress", {"progressToken": 1, "progress": 1})
        )
        stage.upstream.notify(ann, Notification("notifications/roots/list_changed"))
        self.assertEqual(
            stage.channel.take(),
            [{"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}],
        )


class UnaskedTests(SynchronousTestCase):
    """What the server says without being asked."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.channel = self.stage.channel
        self.ann, self.bob = FakePeer(), FakePeer()
        self.stage.upstream.join(self.ann)
        self.stage.upstream.join(self.bob)

    def test_list_changed(self) -> None:
        """Changed lists are told to every session."""
        self.stage.call(self.ann)
        self.channel.say(method="notifications/tools/list_changed")
        for peer in (self.ann, self.bob):
            self.assertEqual(peer.heard, [Notification("notifications/tools/list_changed")])

    def test_log_in_the_only_call(self) -> None:
        """A log line comes within the only call in work."""
        sink, _ = self.stage.call(self.ann)
        self.channel.say(method="notifications/message", params={"data": "x"})
        self.assertEqual(sink.delivered, [Notification("notifications/message", {"data": "x"})])
        self.assertEqual(self.ann.heard + self.bob.heard, [])

    def test_log_of_one_owner(self) -> None:
        """Of one owner, log lines and unknown notifications go to every session otherwise."""
        self.stage.call(self.ann)
        self.stage.call(self.bob)
        self.channel.say(method="notifications/message", params={"data": "x"})
        self.channel.say(method="notifications/elicitation/complete")
        self.assertEqual(len(self.ann.heard), 2)
        self.assertEqual(self.ann.heard, self.bob.heard)


class StrangersTests(SynchronousTestCase):
    """A shared server: nothing is shown that might be another's."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage(broadcast_logs=False)
        self.channel = self.stage.channel
        self.ann, self.bob = FakePeer("roots"), FakePeer("sampling")
        self.stage.upstream.join(self.ann)
        self.stage.upstream.join(self.bob)

    def log(self) -> None:
        """Have the server log a line."""
        self.channel.say(method="notifications/message", params={"data": "secret"})

    def ask(self) -> int:
        """Have the server ask; give the code it is refused with, else 0."""
        self.channel.take()
        self.channel.say(id=9, method="roots/list")
        sent = self.channel.take()
        return sent[0]["error"]["code"] if sent else 0

    def test_only_call(self) -> None:
        """The only call in work gets logs and questions."""
        sink, _ = self.stage.call(self.ann)
        self.log()
        self.assertEqual(self.ask(), 0)
        self.assertEqual(len(sink.delivered), 2)

    def test_several_or_none(self) -> None:
        """With several calls, or none, nobody hears anything."""
        self.log()
        self.assertEqual(self.ask(), -32601)
        self.stage.call(self.ann)
        self.stage.call(self.bob)
        self.log()
        self.assertEqual(self.ask(), -32601)
        self.assertEqual(self.ann.heard + self.bob.heard, [])
        self.assertEqual(self.stage.meters.events["stdio_unattributed"], 4)

    def test_cancelled_call_still_running(self) -> None:
        """What a cancelled call still causes is not shown to the one whose call is in work."""
        _, minted = self.stage.call(self.ann)
        self.stage.upstream.cancel(self.ann, 1)
        bob, _ = self.stage.call(self.bob, timeout_s=5000, max_s=5000)
        self.log()
        self.assertEqual(self.ask(), -32601)
        self.assertEqual(bob.delivered, [])
        self.channel.say(id=minted, result={})
        self.log()
        self.assertEqual(len(bob.delivered), 1)

    def test_cancelled_call_is_forgotten(self) -> None:
        """After ten minutes a cancelled call counts no more; own ones after some seconds."""
        self.stage.call(self.ann)
        self.stage.upstream.cancel(self.ann, 1)
        ann, _ = self.stage.call(self.ann, timeout_s=5000, max_s=5000)
        self.log()
        self.assertEqual((len(ann.delivered), len(self.ann.heard)), (0, 1))
        self.stage.clock.pump([1.0] * 11)
        self.log()
        self.assertEqual(len(ann.delivered), 1)
        self.stage.upstream.cancel(self.ann, 1)
        bob, _ = self.stage.call(self.bob, timeout_s=5000, max_s=5000)
        self.stage.clock.pump([1.0] * 602)
        self.log()
        self.assertEqual(len(bob.delivered), 1)

    def test_cancelled_calls_are_bounded(self) -> None:
        """However many calls are cancelled, the memory of them is bounded."""
        for _ in range(1100):
            self.stage.call(self.ann)
            self.stage.upstream.cancel(self.ann, 1)
        self.assertEqual(len(self.stage.upstream._calls._ghosts), 1024)

    def test_one_session(self) -> None:
        """With one session joined and no other's work left, everything is its."""
        self.stage.upstream.leave(self.bob)
        self.log()
        self.assertEqual(self.ask(), 0)
        self.assertEqual(len(self.ann.heard), 2)
        self.stage.call(self.bob)
        self.stage.upstream.leave(self.bob)
        self.log()
        self.assertEqual(len(self.ann.heard), 2)

    def test_no_stderr(self) -> None:
        """A shared server's last words may be about others: they are not shown."""
        sink, _ = self.stage.call(self.ann)
        self.stage.ended.callback(Exit(code=1, stderr_tail=("secret of bob",)))
        assert sink.error is not None
        self.assertNotIn("stderr", sink.error.data)


class StateTests(SynchronousTestCase):
    """Log level and subscriptions."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.channel = self.stage.channel
        self.upstream = self.stage.upstream
        self.ann, self.bob = FakePeer(), FakePeer()

    def subscribe(self, peer: FakePeer, uri: object = "a:b", method: str = "subscribe") -> Any:
        """Subscribe or unsubscribe a session; as `Stage.call`."""
        sink, minted = self.stage.call(peer, f"resources/{method}", {"uri": uri})
        return sink, minted

    def updated(self, uri: object = "a:b") -> tuple[int, int]:
        """Have the server tell of an update; give how often each session heard it."""
        self.ann.heard, self.bob.heard = [], []
        self.channel.say(method="notifications/resources/updated", params={"uri": uri})
        return len(self.ann.heard), len(self.bob.heard)

    def test_counted(self) -> None:
        """The server sees one subscription of a URI, however many sessions have it."""
        _ann, minted = self.subscribe(self.ann)
        self.assertEqual(self.updated(), (1, 0))
        self.channel.say(id=minted, result={})
        bob, sent = self.subscribe(self.bob)
        self.assertEqual((sent, bob.answer), (0, Response(1, {})))
        self.assertEqual(self.updated(), (1, 1))
        self.assertEqual(self.upstream.subscriptions_of(self.ann), ("a:b",))
        gone, sent = self.subscribe(self.ann, method="unsubscribe")
        self.assertEqual((sent, gone.answer), (0, Response(1, {})))
        self.assertEqual(self.updated(), (0, 1))
        gone, sent = self.subscribe(self.bob, method="unsubscribe")
        self.assertNotEqual(sent, 0)
        self.assertEqual(self.updated(), (0, 0))

    def test_refused(self) -> None:
        """A subscription the server refuses is none; a refused call leaves none either."""
        _ann, minted = self.subscribe(self.ann)
        self.channel.say(id=minted, error={"code": 1, "message": "no"})
        self.channel.full = True
        self.subscribe(self.bob)
        self.channel.full = False
        self.assertEqual(self.updated(), (0, 0))
        self.assertEqual(self.upstream.subscriptions_of(self.ann), ())

    def test_below(self) -> None:
        """An update of something below a subscribed URI is told to its subscribers."""
        self.subscribe(self.ann, "file:///a")
        self.subscribe(self.bob, "file:///b/")
        self.assertEqual(self.updated("file:///a/x"), (1, 0))
        self.assertEqual(self.updated("file:///b/x"), (0, 1))
        self.assertEqual(self.updated("file:///ax"), (0, 0))
        self.assertEqual(self.updated(5), (0, 0))

    def test_leave(self) -> None:
        """The last session that leaves takes the subscription with it."""
        for peer in (self.ann, self.bob):
            _, minted = self.subscribe(peer)
            if minted:
                self.channel.say(id=minted, result={})
        self.channel.take()
        self.upstream.leave(self.ann)
        self.assertEqual(self.channel.take(), [])
        self.upstream.leave(self.bob)
        (told,) = self.channel.take()
        self.assertEqual(
            (told["method"], told["params"]), ("resources/unsubscribe", {"uri": "a:b"})
        )
        self.channel.say(id=told["id"], result={})
        self.assertEqual(self.stage.meters.events["stray_reply"], 0)

    def test_nonsense(self) -> None:
        """Malformed requests are the server's to refuse."""
        cases: list[tuple[str, dict[str, object] | None]] = [
            ("resources/subscribe", {"uri": 5}),
            ("resources/unsubscribe", None),
            ("logging/setLevel", {"level": []}),
        ]
        for method, params in cases:
            _, minted = self.stage.call(self.ann, method, params)
            self.assertNotEqual(minted, 0)
            self.channel.say(id=minted, result={})
        self.assertEqual(self.upstream.log_level, "")

    def test_bound(self) -> None:
        """There is a bound on subscriptions."""
        for n in range(1024):
            _, minted = self.subscribe(self.ann, f"a:{n}")
            self.channel.say(id=minted, result={})
        sink, minted = self.subscribe(self.bob, "a:more")
        self.assertIsInstance(sink.error, Overloaded)
        sink, minted = self.subscribe(self.bob, "a:5")
        self.assertEqual(sink.answer, Response(1, {}))

    def test_log_level(self) -> None:
        """The level the server accepted is remembered, a refused one is not."""
        _, minted = self.stage.call(self.ann, "logging/setLevel", {"level": "debug"})
        self.channel.say(id=minted, result={})
        _, minted = self.stage.call(self.ann, "logging/setLevel", {"level": "loud"})
        self.channel.say(id=minted, error={"code": 1, "message": "no"})
        self.assertEqual(self.upstream.log_level, "debug")

    def test_restore(self) -> None:
        """A new server gets back each session's level and subscriptions, once."""
        self.successResultOf(self.upstream.restore(self.ann, "debug", ("a:1", "a:2")))
        sent = self.channel.take()
        self.assertEqual(
            [(m["method"], m["params"]) for m in sent],
            [
                ("logging/setLevel", {"level": "debug"}),
                ("resources/subscribe", {"uri": "a:1"}),
                ("resources/subscribe", {"uri": "a:2"}),
            ],
        )
        self.channel.say(id=sent[0]["id"], result={})
        self.channel.say(id=sent[1]["id"], result={})
        self.channel.say(id=sent[2]["id"], error={"code": 1, "message": "gone"})
        self.upstream.restore(self.bob, "debug", ("a:1",))
        self.assertEqual(self.channel.take(), [])
        self.assertEqual(self.updated("a:1"), (1, 1))
        self.assertEqual(self.updated("a:2"), (0, 0))

    def test_restore_unanswered(self) -> None:
        """What a server never answers is forgotten after a minute."""
        self.upstream.restore(self.ann, "", ("a:1",))
        self.stage.clock.pump([1.0] * 62)
        self.assertEqual(self.updated("a:1"), (0, 0))
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])


class EndTests(SynchronousTestCase):
    """The server ends, or is stopped."""

    def setUp(self) -> None:
        """Set the stage."""
        self.stage = Stage()
        self.ann = FakePeer("roots")
        self.stage.upstream.join(self.ann)

    def test_died(self) -> None:
        """Calls in work fail at once and tell how the server ended."""
        first, _ = self.stage.call(self.ann, id=1)
        second, _ = self.stage.call(self.ann, id=2)
        self.stage.channel.say(id=0, method="roots/list")
        self.stage.upstream.restore(self.ann, "debug")
        self.stage.ended.callback(
            Exit(code=3, reason="exited", stderr_tail=("a",) * 20 + ("x" * 500,))
        )
        self.assertEqual(len(self.stage.upstream._asks), 0)
        for sink in (first, second):
            assert isinstance(sink.error, BackendDied)
            data = sink.error.data
            self.assertEqual((data["exitCode"], data["signal"]), (3, None))
            self.assertEqual((data["exitReason"], data["sent"]), ("exited", True))
            self.assertEqual(data["stderr"], ["a"] * 9 + ["x" * 400])
        self.stage.clock.advance(0.5)
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])

    def test_after_the_end(self) -> None:
        """Afterwards calls are refused as never sent, and nothing else has an effect."""
        upstream = self.stage.upstream
        self.stage.ended.callback(Exit(signal=9, reason="killed"))
        self.stage.channel.take()
        sink, _ = self.stage.call(self.ann)
        assert isinstance(sink.error, BackendDied)
        self.assertFalse(was_sent(sink.error))
        upstream.notify(self.ann, Notification("notifications/x"))
        upstream.restore(self.ann, "debug", ("a:b",))
        self.assertEqual(upstream.subscriptions_of(self.ann), ())
        self.assertFalse(upstream.answer(self.ann, Response("i1-1", {})))
        upstream.leave(self.ann)
        self.stage.channel.say(id=1, result={})
        upstream._line(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        upstream.close(Draining())
        self.assertEqual(self.stage.channel.take(), [])

    def test_close(self) -> None:
        """Closing ends every exchange with the given error; a later end changes nothing."""
        sink, _ = self.stage.call(self.ann)
        error = Draining()
        self.stage.upstream.close(error)
        self.assertIdentical(sink.error, error)
        later, _ = self.stage.call(self.ann)
        assert isinstance(later.error, BackendDied)
        self.assertFalse(was_sent(later.error))
        self.stage.ended.callback(Exit())

    def test_lost(self) -> None:
        """When nobody can tell how it ended, calls fail all the same."""
        sink, _ = self.stage.call(self.ann)
        self.stage.ended.errback(RuntimeError("no"))
        assert isinstance(sink.error, BackendDied)
        self.assertEqual(sink.error.data["exitReason"], "lost")
        self.flushLoggedErrors(RuntimeError)

    def test_failing_sink(self) -> None:
        """A bug in one sink does not keep the others waiting."""
        first, _ = self.stage.call(self.ann)
        second, _ = self.stage.call(self.ann)
        first.answer = Response(0, {})
        self.stage.ended.callback(Exit())
        self.assertIsInstance(second.error, BackendDied)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)


steps: Any = st.lists(
    st.tuples(
        st.sampled_from(
            ["call", "call", "answer", "answer", "progress", "log", "cancel", "leave", "detach",
             "stray", "ask", "wait"]
        ),
        st.integers(0, 4),
        st.integers(0, 9),
    ),
    max_size=60,
)  # fmt: skip


class InterleavingTests(SynchronousTestCase):
    """R72: users with identical ids never hear each other."""

    @settings(max_examples=100, deadline=None)
    @given(steps)
    def test_never_crosses(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever order things happen in, each user gets only what is marked as its own."""
        stage = Stage(broadcast_logs=False, max_calls=0)
        peers = [FakePeer("roots") for _ in range(5)]
        for peer in peers:
            stage.upstream.join(peer)
        work: list[tuple[int, int, FakeSink, Any]] = []
        sinks: list[tuple[int, FakeSink]] = []
        answered: set[int] = set()
        for what, user, pick in steps:
            if what == "call":
                sink = FakeSink()
                call = stage.upstream.call(
                    peers[user],
                    Request(1, "tools/call", {"user": user, "_meta": {"progressToken": 1}}),
                    sink,
                    timeout_s=20,
                    max_s=60,
                )
                sinks.append((user, sink))
                self.assertEqual(stage.channel.sent[-1]["params"]["user"], user)
                work.append((call.id, user, sink, call))
            elif what == "leave":
                stage.upstream.leave(peers[user])
            elif what == "cancel":
                running = [(owner, sink) for owner, sink in sinks if not sink.over]
                stage.upstream.notify(
                    peers[user], Notification("notifications/cancelled", {"requestId": 1})
                )
                self.assertLessEqual({owner for owner, sink in running if sink.over}, {user})
            elif what == "wait":
                stage.clock.pump([1.0] * pick)
            elif what == "stray":
                stage.channel.say(id=1000 + pick, result={"user": user})
            elif work:
                minted, owner, _, call = work[pick % len(work)]
                if what == "answer":
                    # Also for calls already answered, cancelled or timed out: late, duplicate.
                    stage.channel.say(id=minted, result={"user": owner})
                    answered.add(minted)
                    if pick % 2:
                        work.pop(pick % len(work))
                elif what == "progress":
                    stage.channel.say(
                        method="notifications/progress",
                        params={"progressToken": minted, "user": owner},
                    )
                elif what == "detach":
                    call.detach()
                elif minted not in answered:
                    # Cancelled or not: the server has not stopped working on it.
                    if what == "log":
                        stage.channel.say(method="notifications/message", params={"user": owner})
                    else:
                        stage.channel.say(id=1, method="roots/list", params={"user": owner})
        for user, sink in sinks:
            if isinstance(sink.answer, Response):
                self.assertEqual(sink.answer, Response(1, {"user": user}))
            for message in sink.delivered:
                assert isinstance(message, Notification | Request)
                params = message.params or {}
                self.assertEqual(params.get("user", user), user)
                self.assertIn(params.get("progressToken"), (1, None))
        for user, peer in enumerate(peers):
            for message in peer.heard:
                assert isinstance(message, Notification | Request)
                self.assertEqual((message.params or {}).get("user", user), user)
