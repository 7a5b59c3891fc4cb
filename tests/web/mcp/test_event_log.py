"""Streams of stdio servers that a client takes up again."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.framing import SSEEvent, SSEReader
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.event_log import KEPT_S, LOG_BYTES, MOST_STREAMS, EventBudget, EventLog
from tests.web.endpoint_kit import World, caller_of, notification, request
from tests.web.fake_inbound import FakeInbound
from tests.web.sse_client import SSEClient


def framed(answer: FakeInbound) -> list[SSEEvent]:
    """Give the events as they are framed."""
    return SSEReader().feed(answer.body)


def begun() -> FakeInbound:
    """Make a request that is being answered."""
    inbound = FakeInbound()
    inbound.start(200, [], None)
    return inbound


class ResumeTests(SynchronousTestCase):
    """A client that loses its connection within a call."""

    def setUp(self) -> None:
        """Begin a call that tells of progress."""
        self.world = World()
        self.begin()

    def begin(self, version: str = "2025-11-25") -> None:
        """Open a session, call, and hear of progress."""
        self.session = self.world.open(version=version)
        self.answer = self.world.post(
            request("tools/call", 5, name="x", _meta={"progressToken": "p"}), self.session
        )
        self.asked = self.world.child.sent[-1]
        self.progress(1)

    def progress(self, number: int) -> None:
        """Have the child tell of progress."""
        token = self.asked["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": number}
        self.world.child.say(method="notifications/progress", params=params)

    def finish(self) -> None:
        """Have the child answer."""
        self.world.child.say(id=self.asked["id"], result={"done": True})

    def resume(self, event_id: str | None, **options: Any) -> FakeInbound:
        """Come back."""
        assert event_id is not None
        more = ((b"last-event-id", event_id.encode()),)
        return self.world.get(options.pop("session", self.session), more=more, **options)

    def last_id(self, answer: FakeInbound | None = None) -> str:
        """Give the id of the last event heard."""
        found = framed(answer or self.answer)[-1].id
        assert found is not None
        return found

    def test_priming(self) -> None:
        """From 2025-11-25 on a stream begins with an id and a time, older clients get neither."""
        first = framed(self.answer)
        self.assertIn(b"retry: 1000\n", self.answer.body)
        self.assertTrue(self.answer.body.startswith(b"id: "), self.answer.body)
        self.assertEqual((first[0].data, first[0].retry_ms, len(first)), (b"", 1000, 2))
        self.begin("2025-06-18")
        self.assertTrue(self.answer.body.startswith(b"event: message\nid: "))
        self.assertNotIn(b"retry", self.answer.body)

    def test_json_is_preferred(self) -> None:
        """Where nothing else is to be streamed there is neither stream nor log."""
        answer = self.world.post(request("tools/list", 6), self.session)
        self.world.child.say(id=self.world.child.sent[-1]["id"], result={"tools": []})
        self.assertEqual(answer.json["result"], {"tools": []})

    def test_what_was_missed_and_what_comes(self) -> None:
        """The call goes on without its client, and its rest is heard by who comes back."""
        self.answer.go()
        self.progress(2)
        back = self.resume(self.last_id())
        self.assertEqual([e["params"]["progress"] for e in back.events], [2])
        self.progress(3)
        self.finish()
        self.assertEqual(back.events[-1], {"jsonrpc": "2.0", "id": 5, "result": {"done": True}})
        self.assertTrue(back.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_an_answer_that_came_meanwhile(self) -> None:
        """Is kept for a while, and heard at once."""
        start = framed(self.answer)[0].id
        self.answer.go()
        self.finish()
        self.assertEqual(self.world.leaks(), {})
        back = self.resume(self.last_id())
        self.assertEqual([e["id"] for e in back.events], [5])
        self.assertTrue(back.finished)
        self.world.pass_time(KEPT_S + 1)
        self.assertEqual(self.resume(start).status, 405)
        self.assertEqual(self.world.leaks(), {})

    def test_from_the_priming_event(self) -> None:
        """Whoever has heard nothing else gets all."""
        primed = self.answer.body.split(b"\n")[0].partition(b": ")[2].decode()
        self.answer.go()
        back = self.resume(primed)
        self.assertEqual(back.events[0]["params"]["progress"], 1)

    def test_nothing_left(self) -> None:
        """Who asks again although all was heard is told so, and does not try for ever."""
        self.finish()
        for _ in range(3):
            back = self.resume(self.last_id())
            self.assertEqual((back.status, back.fields[b"allow"]), (405, b"POST, DELETE"))
        self.assertEqual(self.world.leaks(), {})

    def test_other_ids(self) -> None:
        """Of another session, another life, or nobody's: nothing is replayed."""
        self.answer.go()
        self.progress(2)
        mine = self.last_id()
        other = self.world.open()
        foreign = self.world.open(key="k2")
        for event_id, options in (
            (mine, {"session": other}),
            (mine, {"session": foreign, "key": "k2"}),
            ("x" * 12 + "-1-1", {}),
            ("x-1-zz", {}),
            ("nonsense", {}),
            (mine.rpartition("-")[0] + "-99", {}),
        ):
            back = self.resume(event_id, **options)
            self.assertEqual((back.status, back.body.count(b"progress")), (405, 0), event_id)
        self.assertEqual(self.resume(mine, session=self.session, key="k2").status, 404)
        self.assertEqual(self.world.leaks(), {"leases": 1, "calls": 1, "slots": 1, "in use": 1})

    def test_a_newer_connection_takes_over(self) -> None:
        """Two that come back: the first is ended, and nothing is said twice."""
        self.answer.go()
        one = self.resume(self.last_id())
        two = self.resume(self.last_id())
        self.assertTrue(one.finished)
        self.finish()
        self.assertEqual((len(one.events), len(two.events)), (0, 1))
        self.assertEqual(self.world.leaks(), {})

    def test_silence(self) -> None:
        """Comments keep whoever came back; nobody there is no trouble."""
        self.answer.go()
        self.world.pass_time(20)
        back = self.resume(self.last_id())
        self.world.pass_time(20)
        self.assertIn(b": keepalive", back.body)
        back.go()
        self.finish()
        self.assertEqual(self.world.leaks(), {})

    def test_cancelled(self) -> None:
        """The stream of a cancelled call just ends, for who came back too."""
        self.answer.go()
        back = self.resume(self.last_id())
        self.world.post(notification("notifications/cancelled", requestId=5), self.session)
        self.assertEqual((back.finished, back.events), (True, []))
        self.assertEqual(self.world.leaks(), {})

    def test_a_revoked_key(self) -> None:
        """Loses what it took up, but not the call."""
        self.answer.go()
        back = self.resume(self.last_id())
        session = self.world.session(self.session)
        session.extras.close_stream()  # type: ignore[attr-defined]  # it is a link
        self.assertTrue(back.finished)
        self.finish()
        self.assertEqual(self.world.leaks(), {})

    def test_the_sessions_end(self) -> None:
        """Nothing is kept."""
        self.answer.go()
        back = self.resume(self.last_id())
        self.world.ask("DELETE", session=self.session)
        self.assertTrue(back.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_streams_of_a_key_are_counted(self) -> None:
        """What is taken up again takes a place."""
        self.answer.go()
        self.resume(self.last_id())
        self.assertEqual(self.world.slots.taken(("stream", caller_of("k1").principal)), 1)

    def test_the_other_transport(self) -> None:
        """HTTP+SSE has no resumption: no ids there."""
        client = SSEClient(self.world).open()
        client.call("x", 1)
        self.world.child.say(id=self.world.child.sent[-1]["id"], result={})
        self.assertEqual({event.id for event in client.events}, {None})

    def test_the_standing_stream(self) -> None:
        """What its client missed is said again, then what waited, then what comes."""
        stream = self.world.get(self.session)
        say = self.world.child.say
        say(method="notifications/tools/list_changed")
        heard = self.last_id(stream)
        say(method="notifications/prompts/list_changed")
        stream.go()
        say(method="notifications/resources/list_changed")
        back = self.resume(heard)
        self.assertEqual([e["method"].split("/")[1] for e in back.events], ["prompts", "resources"])
        say(method="notifications/tools/list_changed")
        self.assertEqual(len(back.events), 3)

    def test_a_standing_stream_of_an_earlier_life(self) -> None:
        """Is opened anew, and replays nothing."""
        stream = self.world.get(self.session)
        self.world.child.say(method="notifications/tools/list_changed")
        _, number, last = self.last_id(stream).rsplit("-", 2)
        back = self.resume(f"{'y' * 12}-{number}-{last}")
        self.assertEqual((back.status, back.events), (200, []))


class LogTests(SynchronousTestCase):
    """Bounds."""

    def setUp(self) -> None:
        """Make a log."""
        self.budget = EventBudget(2 * LOG_BYTES)
        self.log = EventLog(DeadlineWheel(Clock(), 0.5), self.budget)

    def resume(self, log: EventLog, event_id: str) -> FakeInbound:
        """Come back."""
        inbound = FakeInbound("GET")
        self.assertTrue(log.resume(inbound, event_id, lambda: None))
        return inbound

    def test_of_a_session(self) -> None:
        """The oldest events go; who would miss them is refused."""
        stream = self.log.begin(begun())
        ids = []
        for number in range(5):
            event = stream.framed(b"%d" % number * (LOG_BYTES // 3))
            ids.append(SSEReader(LOG_BYTES).feed(event)[0].id or "")
        self.assertLessEqual(self.budget.taken, LOG_BYTES)
        self.assertEqual(self.resume(self.log, ids[0]).status, 405)
        self.assertEqual(self.resume(self.log, ids[3]).status, 200)
        stream.framed(b"x" * (LOG_BYTES + 1))
        self.assertEqual(self.budget.taken, 0)
        self.log.clear()

    def test_complete_streams_go_first(self) -> None:
        """What nobody waits for makes room."""
        done, live = self.log.begin(begun()), self.log.begin(begun())
        live.framed(b"a")
        done.framed(b"x" * (LOG_BYTES // 2))
        done.finish()
        live.framed(b"x" * (LOG_BYTES // 2))
        self.assertEqual((len(done.events or ()), len(live.events or ())), (0, 2))

    def test_of_all(self) -> None:
        """One session's log leaves room for others', and gives all back."""
        logs = [EventLog(DeadlineWheel(Clock(), 0.5), self.budget) for _ in range(4)]
        for log in logs:
            log.begin(begun()).framed(b"x" * (LOG_BYTES - 200))
        self.assertLessEqual(self.budget.taken, 2 * LOG_BYTES)
        for log in logs:
            log.clear()
        self.assertEqual(self.budget.taken, 0)
        logs[0].begin(begun()).framed(b"x")
        self.assertEqual(self.budget.taken, 0)

    def test_number_of_streams(self) -> None:
        """Complete ones are forgotten beyond a bound."""
        first = self.log.begin(begun())
        first.framed(b"x")
        first.finish()
        for _ in range(MOST_STREAMS):
            self.log.begin(begun())
        self.assertEqual(self.budget.taken, 0)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
    def test_streams_never_cross(self, steps: list[tuple[int, bool]]) -> None:
        """Whatever is said in whichever order, who comes back hears the rest of one stream."""
        self.setUp()
        streams = [self.log.begin(begun()) for _ in range(4)]
        said: list[list[bytes]] = [[] for _ in streams]
        ids: list[list[str]] = [[] for _ in streams]
        for which, back in steps:
            text = b"%d:%d" % (which, len(said[which]))
            event = streams[which].framed(text)
            said[which].append(text)
            ids[which].append(SSEReader().feed(event)[0].id or "")
            if back:
                heard = self.resume(self.log, ids[which][0])
                told = [e.data for e in SSEReader().feed(heard.body)]
                self.assertEqual(told, said[which][1:])
        self.log.clear()
