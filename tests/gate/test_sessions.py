"""Tests of live sessions: who finds which, how many, for how long."""

from __future__ import annotations

import tracemalloc
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import Internal, Overloaded, TooLarge
from mcpgate.gate.sessions import PARAMS_LIMIT_BYTES, PERSIST_S, Session, SessionTable
from mcpgate.model import Principal
from mcpgate.stores.memory import MemoryStore
from mcpgate.telemetry.meters import Meters
from mcpgate.testing.store_contract import make_record

ADA = Principal("keys", "ada", "a" * 32)
BOB = Principal("keys", "bob", "b" * 32)
PARAMS = b'{"protocolVersion":"2025-06-18","capabilities":{"roots":{}},"clientInfo":{}}'


class CountingStore(MemoryStore):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    def put(self, record: object) -> None:
        """Count."""
        self.puts += 1
        super().put(record)  # type: ignore[arg-type]  # passed on


class SessionCase(SynchronousTestCase):
    """A table on a clock of its own."""

    def setUp(self) -> None:
        """Make an empty table; the wall clock starts at 1 000 000."""
        self.store = CountingStore()
        self.wall = 1_000_000.0
        self.table = self.make()

    def make(self, **options: Any) -> SessionTable:
        """Make a table over the same store, as after a restart."""
        self.clock = Clock()
        self.clock.advance(5000)
        self.meters = Meters()
        numbers = count()
        return SessionTable(
            self.store,
            clock=self.clock,
            wall=lambda: self.wall,
            make_id=lambda: f"id-{len(self.store.records)}-{next(numbers)}",
            meters=self.meters,
            **options,
        )

    def create(self, principal: Principal = ADA, server: str = "files") -> Session:
        """Make a session as an initialize does."""
        return self.table.create(principal, server, PARAMS, "2025-06-18", {"roots": {}})

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.clock.advance(seconds)
        self.wall += seconds


class FindTests(SessionCase):
    """Who finds a session (R70)."""

    def test_found_by_its_owner(self) -> None:
        """A client finds its session under the id it was given."""
        session = self.create()
        found = self.table.find(ADA, "files", session.record.key.session_id)
        self.assertIs(found, session)
        self.assertEqual(self.meters.events["session_created"], 1)
        self.assertEqual(self.meters.events["session_theft"], 0)

    def test_unknown(self) -> None:
        """An id nobody has finds nothing, and is no theft."""
        self.create()
        self.assertIsNone(self.table.find(ADA, "files", "no-such"))
        self.assertIsNone(self.table.find(BOB, "files", "no-such"))
        self.assertEqual(self.meters.events["session_theft"], 0)

    def test_somebody_elses(self) -> None:
        """Somebody else's id finds nothing and is counted, whether he has sessions or not."""
        session_id = self.create().record.key.session_id
        self.assertIsNone(self.table.find(BOB, "files", session_id))
        self.create(BOB)
        self.assertIsNone(self.table.find(BOB, "files", session_id))
        self.assertEqual(self.meters.events["session_theft"], 2)

    def test_another_key_of_the_same_user(self) -> None:
        """Two keys of one user do not share sessions."""
        session_id = self.create().record.key.session_id
        other_key = Principal("keys", "ada", "c" * 32)
        self.assertIsNone(self.table.find(other_key, "files", session_id))

    def test_another_server(self) -> None:
        """An id of one server finds nothing on another; that is no theft."""
        session_id = self.create().record.key.session_id
        self.assertIsNone(self.table.find(ADA, "mail", session_id))
        self.assertEqual(self.meters.events["session_theft"], 0)

    def test_ended(self) -> None:
        """An ended session is found by nobody, not even as stolen."""
        session = self.create()
        session_id = session.record.key.session_id
        self.table.end(session, "deleted")
        self.assertIsNone(self.table.find(ADA, "files", session_id))
        self.assertIsNone(self.table.find(BOB, "files", session_id))
        self.assertEqual(self.meters.events["session_theft"], 0)

    def test_ids_are_fresh_and_visible(self) -> None:
        """An id in use or with unprintable characters is not given out."""
        ids = iter(["one", "one", "two\n", "zw\u00f6i", "", "three"])
        table = SessionTable(
            self.store,
            clock=self.clock,
            wall=lambda: self.wall,
            make_id=lambda: next(ids),
            meters=self.meters,
        )
        table.create(ADA, "files", PARAMS, "r", {})
        with self.assertRaises(Internal):
            table.create(ADA, "files", PARAMS, "r", {})
        self.assertEqual(table.create(ADA, "files", PARAMS, "r", {}).record.key.session_id, "three")

    def test_never_shown(self) -> None:
        """Neither repr nor label shows the id."""
        session = self.create()
        self.assertNotIn(session.record.key.session_id, repr(session))
        self.assertEqual(len(session.label), 8)
        self.assertNotIn(session.label, session.record.key.session_id)


class PooledTests(SessionCase):
    """Clients that never send their session id (seed 001)."""

    def test_last_session_of_this_key_and_server(self) -> None:
        """A client without an id is served from its most recently used session."""
        self.assertIsNone(self.table.pooled(ADA, "files"))
        first, second = self.create(), self.create()
        self.create(ADA, "mail")
        self.create(BOB)
        self.advance(1)
        self.table.touch(second)
        self.assertIs(self.table.pooled(ADA, "files"), second)
        self.advance(1)
        self.table.touch(first)
        self.assertIs(self.table.pooled(ADA, "files"), first)

    def test_never_one_whose_client_returns_ids(self) -> None:
        """A client that returns its id never has its session shared."""
        session = self.create()
        session.record.id_returned = True
        self.assertIsNone(self.table.pooled(ADA, "files"))

    def test_never_another_principal(self) -> None:
        """Nobody is served from somebody else's session."""
        self.create(BOB)
        self.assertIsNone(self.table.pooled(ADA, "files"))


class ExpiryTests(SessionCase):
    """How long a session lives."""

    def test_idle_hour(self) -> None:
        """A session not used for an hour ends; its streams are told, once."""
        session = self.create()
        told: list[str] = []
        session.on_end.append(told.append)
        self.advance(3599)
        self.assertEqual(self.successResultOf(self.table.sweep()), 0)
        self.advance(1)
        self.assertEqual(self.successResultOf(self.table.sweep()), 1)
        self.table.end(session, "again")
        self.assertEqual(told, ["idle"])
        self.assertEqual(len(self.table), 0)
        self.assertEqual(self.store.records, {})

    def test_used(self) -> None:
        """Use keeps a session alive."""
        session = self.create()
        for _ in range(4):
            self.advance(1800)
            self.table.touch(session)
            self.table.sweep()
        self.assertEqual(len(self.table), 1)

    def slow(self) -> None:
        """Have the end of each session take 4 ms."""

        def end(reason: str) -> None:
            self.clock.rightNow += 0.004

        for session in self.table:
            session.on_end.append(end)

    def test_many(self) -> None:
        """Many sessions end in several turns; one that is used meanwhile does not."""
        sessions = [self.create() for _ in range(8)]
        self.slow()
        self.advance(3600)
        swept = self.table.sweep()
        self.assertNoResult(swept)
        self.assertEqual(len(self.table), 5)
        self.table.touch(sessions[4])
        sessions[5].in_use += 1
        self.table.end(sessions[6], "deleted")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(swept), 5)
        self.assertEqual(list(self.table), [sessions[4], sessions[5]])

    def test_those_of_a_server(self) -> None:
        """Sessions of servers that were taken out end, a few each turn."""
        kept = self.create(server="mail")
        for _ in range(6):
            self.create()
        self.slow()
        ended = self.table.end_those_of({"files"}, "removed")
        self.assertNoResult(ended)
        self.clock.advance(0)
        self.successResultOf(ended)
        self.assertEqual(list(self.table), [kept])
        self.assertEqual(self.table.count_by_server(), {"mail": 1})

    def test_in_use(self) -> None:
        """An open call or stream keeps a session alive, here and on disk, and an hour more."""
        session = self.create()
        session.in_use += 1
        for _ in range(100):
            self.advance(60)
            self.table.sweep()
        kept = self.store.records[session.record.key]
        self.assertGreater(kept.last_used_at, self.wall - 2 * PERSIST_S)
        session.in_use -= 1
        self.advance(3000)
        self.table.sweep()
        self.assertEqual(len(self.table), 1)
        self.advance(600)
        self.table.sweep()
        self.assertEqual(len(self.table), 0)

    def test_wall_clock_jumps(self) -> None:
        """A wall clock put forward or back by a day ends nothing (R60)."""
        session = self.create()
        for jump in (86400, -2 * 86400):
            self.wall += jump
            self.clock.advance(PERSIST_S)
            self.table.touch(session)
            self.table.sweep()
        self.assertEqual(len(self.table), 1)

    def test_never(self) -> None:
        """With idle_s of 0 sessions do not expire."""
        self.table = self.make(idle_s=0)
        self.create()
        self.advance(1e9)
        self.assertEqual(self.successResultOf(self.table.sweep()), 0)
        self.wall += 1e9
        self.table = self.make(idle_s=0)
        self.assertEqual(self.successResultOf(self.table.load()), 1)

    def test_callback_fails(self) -> None:
        """One stream that fails to close does not keep the others open."""
        session = self.create()
        told: list[str] = []
        session.on_end.extend([lambda _: 1 / 0, told.append])
        self.table.end(session, "deleted")
        self.assertEqual(told, ["deleted"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_revoked_key(self) -> None:
        """All sessions of a principal can be ended at once."""
        self.create()
        self.create(ADA, "mail")
        self.create(BOB)
        self.assertEqual(self.table.end_all(ADA, "revoked"), 2)
        self.assertEqual(self.table.end_all(ADA, "revoked"), 0)
        self.assertEqual(len(self.table), 1)


class CapTests(SessionCase):
    """How many sessions there may be."""

    def test_per_principal(self) -> None:
        """One session over the cap ends the least recently used idle one of the same key."""
        self.table = self.make(per_principal=3)
        self.create(BOB)
        first, second, third = self.create(), self.create(), self.create()
        self.advance(1)
        self.table.touch(first)
        second.in_use += 1
        self.create()
        self.assertEqual([s.ended for s in (first, second, third)], [False, False, True])
        self.assertEqual(len(self.table), 4)

    def test_all_of_a_principal_in_use(self) -> None:
        """When nothing can be ended the caller is told to come again, others are served."""
        self.table = self.make(per_principal=1)
        self.create().in_use += 1
        with self.assertRaises(Overloaded) as caught:
            self.create()
        self.assertEqual(caught.exception.retry_after_s, 5.0)
        self.create(BOB)

    def test_short_of_memory(self) -> None:
        """Nothing new is begun, and nothing old ended for it, while memory is short."""
        room = [True]
        self.table = self.make(has_room=lambda: room[0], total=1)
        session = self.create()
        room[0] = False
        with self.assertRaises(Overloaded) as caught:
            self.create(BOB)
        self.assertIn("memory", caught.exception.detail)
        self.assertEqual(list(self.table), [session])

    def test_total(self) -> None:
        """Over all keys the least recently used idle session ends."""
        self.table = self.make(total=2)
        busy, idle = self.create(), self.create(BOB)
        busy.in_use += 1
        self.create()
        self.assertTrue(idle.ended)
        self.assertFalse(busy.ended)
        for session in self.table:
            session.in_use += 1
        with self.assertRaises(Overloaded):
            self.create(BOB)

    def test_no_caps(self) -> None:
        """A cap of 0 is none."""
        self.table = self.make(total=0, per_principal=0)
        for _ in range(50):
            self.create()
        self.assertEqual(len(self.table), 50)

    def test_parameters(self) -> None:
        """A handshake too large to remember is refused."""
        with self.assertRaises(TooLarge):
            self.table.create(ADA, "files", b" " * (PARAMS_LIMIT_BYTES + 1), "r", {})

    def test_memory(self) -> None:
        """An idle session takes at most 4 KiB, strings of its own included."""
        ids = iter([f"{number:022d}" for number in range(2000)])
        params = [PARAMS + b" " * 300 + b"%d" % number for number in range(2000)]
        table = SessionTable(
            MemoryStore(),
            clock=self.clock,
            wall=lambda: self.wall,
            make_id=lambda: next(ids),
            meters=self.meters,
        )
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(2000):
                principal = Principal("keys", f"user{number}", f"{number:032x}")
                capabilities: dict[str, object] = {"roots": {"listChanged": True}, "sampling": {}}
                table.create(principal, "files", bytes(params[number]), "2025-06-18", capabilities)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(len(table), 2000)
        # The memory store's own copies are counted, too; ``bytes`` shares what was made before.
        self.assertLess((after - before) / 2000 + 400, 4096)


class PersistTests(SessionCase):
    """What reaches the store, and what comes back."""

    def test_use_is_written_now_and_then(self) -> None:
        """Of a thousand uses in ten seconds none is written; the next after 30 s is."""
        session = self.create()
        self.assertEqual(self.store.puts, 1)
        for _ in range(1000):
            self.advance(0.01)
            self.table.touch(session)
        self.assertEqual(self.store.puts, 1)
        self.advance(PERSIST_S)
        self.table.touch(session)
        self.assertEqual(self.store.puts, 2)

    def test_before_the_end(self) -> None:
        """At the end what was used since is written; what was not is not."""
        session = self.create()
        self.create()
        self.advance(1)
        self.table.touch(session)
        self.table.persist()
        self.assertEqual(self.store.puts, 3)
        self.assertEqual(self.store.records[session.record.key].last_used_at, self.wall)

    def test_changed_is_written_with_the_last_use(self) -> None:
        """A change is written with the time of last use, not of writing."""
        session = self.create()
        self.advance(10)
        session.record.log_level = "debug"
        self.table.changed(session)
        kept = self.store.records[session.record.key]
        self.assertEqual((kept.log_level, kept.last_used_at), ("debug", self.wall - 10))

    def test_after_the_end(self) -> None:
        """An ended session is not written again by somebody who still holds it."""
        session = self.create()
        self.table.end(session, "deleted")
        self.table.touch(session)
        self.table.changed(session)
        self.assertEqual(self.store.records, {})

    def test_restart(self) -> None:
        """A session of before the restart is found again, with its capabilities and idle time."""
        session = self.create()
        self.wall += 3000
        self.table = self.make()
        self.assertEqual(self.successResultOf(self.table.load()), 1)
        found = self.table.find(ADA, "files", session.record.key.session_id)
        assert found is not None
        self.assertEqual(found.capabilities, {"roots": {}})
        self.assertEqual(found.record, session.record)
        self.clock.advance(600)
        self.assertEqual(self.successResultOf(self.table.sweep()), 1)

    def test_restart_after_long(self) -> None:
        """What expired while the gate was down is gone."""
        self.create()
        self.wall += 3600
        self.table = self.make()
        self.assertEqual(self.successResultOf(self.table.load()), 0)
        self.assertEqual(self.store.records, {})

    def test_restart_with_the_clock_put_back(self) -> None:
        """Sessions last used in the future are kept for an hour from now."""
        self.create()
        self.wall -= 86400
        self.table = self.make()
        self.assertEqual(self.successResultOf(self.table.load()), 1)
        self.clock.advance(3599)
        self.assertEqual(self.successResultOf(self.table.sweep()), 0)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(self.table.sweep()), 1)

    def test_restart_with_smaller_caps(self) -> None:
        """Of more sessions than the caps allow the most recently used are kept."""
        last = self.create(BOB)
        for number in range(6):
            self.advance(1)
            last = self.create(ADA if number % 2 else BOB)
        self.table = self.make(total=3, per_principal=2)
        self.assertEqual(self.successResultOf(self.table.load()), 3)
        self.assertIsNotNone(self.table.find(ADA, "files", last.record.key.session_id))
        self.assertEqual(len(self.store.records), 3)

    def test_foreign_records(self) -> None:
        """Records with bad ids are dropped, with bad parameters taken without capabilities."""
        for number, params in enumerate((b"{", b"[]", b'{"capabilities":3}', b"[" * 100_000)):
            record = make_record(number)
            record.initialize_params = params
            record.last_used_at = self.wall
            self.store.put(record)
        bad = make_record(9)
        bad.key = type(bad.key)(ADA, "no\nid")
        bad.last_used_at = self.wall
        self.store.put(bad)
        self.assertEqual(self.successResultOf(self.table.load()), 4)
        self.assertEqual([session.capabilities for session in self.table], [{}] * 4)


class ShownTests(SessionCase):
    """What statistics and other rooms see."""

    def test_views(self) -> None:
        """Sessions are shown most recently used first, without their ids."""
        first = self.create()
        self.advance(5)
        second = self.create(BOB, "mail")
        second.in_use += 2
        self.advance(1)
        newest, oldest = self.table.views()
        self.assertEqual((newest.label, newest.owner, newest.in_use), (second.label, "bbbbbbbb", 2))
        self.assertEqual((oldest.label, oldest.age_s, oldest.idle_s), (first.label, 6.0, 6.0))
        self.assertEqual(len(self.table.views(limit=1)), 1)
        self.assertNotIn(first.record.key.session_id, repr(self.table.views()))
        self.assertEqual(self.table.count_by_server(), {"files": 1, "mail": 1})

    def test_of_a_principal(self) -> None:
        """Sessions of one key are found without a look at the others."""
        session = self.create()
        self.create(BOB)
        self.assertEqual(self.table.of(ADA), [session])
        self.assertEqual(self.table.end_all(ADA, "revoked"), 1)
        self.assertEqual(self.table.of(ADA), [])


class AtTheCapTests(SessionCase):
    """A table that is full, mostly of sessions in use."""

    def setUp(self) -> None:
        """Fill it: all but one are in use."""
        super().setUp()
        self.table = self.make(total=1000, per_principal=0)
        for _ in range(1000):
            self.more().in_use += 1
        self.free = list(self.table)[700]
        self.free.in_use = 0

    def more(self) -> Session:
        """Make one more."""
        return self.table.create(ADA, "files", PARAMS, "2025-06-18", {})

    def test_none_is_looked_at_that_is_in_use(self) -> None:
        """The one that may go is found without looking at the others."""
        looked: list[Session] = []
        uses: Any = Session.in_use

        def look(session: Session) -> int:
            looked.append(session)
            return int(uses.fget(session))

        self.patch(Session, "in_use", property(look, uses.fset))
        made = self.more()
        self.assertTrue(self.free.ended)
        self.assertLess(len(looked), 5)
        made.in_use += 1
        looked.clear()
        with self.assertRaises(Overloaded):
            self.more()
        self.assertEqual(looked, [])

    def test_end_of_use_counts_as_use(self) -> None:
        """Of two whose use has ended, the one that ended first goes first."""
        first, second = list(self.table)[5], list(self.table)[3]
        for session in (first, second):
            self.clock.advance(1)
            session.in_use -= 1
        self.more()
        self.more()
        self.assertEqual((self.free.ended, first.ended, second.ended), (True, True, False))
        self.assertIn(second.label, [view.label for view in self.table.views(3)])

    def test_use_that_ends_after_the_session(self) -> None:
        """A call that outlives its session changes nothing."""
        session = next(iter(self.table))
        self.table.end(session, "deleted")
        session.in_use -= 1
        session.in_use += 1
        self.assertEqual(len(self.table), len(list(self.table)))
        self.assertNotIn(session, list(self.table))


class AnyOrderTests(SynchronousTestCase):
    """Rules that hold whatever happens in whatever order."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["create", "touch", "end", "use", "free", "sweep", "restart"]),
                st.integers(0, 3),
                st.integers(0, 7),
            ),
            max_size=40,
        )
    )
    def test_invariants(self, steps: list[tuple[str, int, int]]) -> None:
        """Caps hold, nobody finds a foreign session, store and memory agree."""
        store, clock, meters, numbers = MemoryStore(), Clock(), Meters(), count()
        people = [Principal("i", str(n), f"{n}" * 32) for n in range(4)]

        def fresh() -> SessionTable:
            return SessionTable(
                store,
                clock=clock,
                wall=clock.seconds,
                make_id=lambda: f"s{next(numbers)}",
                meters=meters,
                idle_s=100,
                per_principal=2,
                total=5,
            )

        table = fresh()
        for step, who, which in steps:
            clock.advance(17)
            sessions = list(table)
            chosen = sessions[which % len(sessions)] if sessions else None
            if step == "create":
                try:
                    table.create(people[who], f"server{which % 2}", b"{}", "r", {})
                except Overloaded:
                    pass
            elif step == "restart":
                table.persist()
                table = fresh()
                self.successResultOf(table.load())
            elif step == "sweep":
                table.sweep()
            elif chosen is not None:
                if step == "touch":
                    table.touch(chosen)
                elif step == "end":
                    table.end(chosen, "deleted")
                elif step == "use":
                    chosen.in_use += 1
                else:
                    chosen.in_use = 0
            live = list(table)
            self.assertEqual({s.record.key for s in live}, set(store.records))
            self.assertLessEqual(len(live), 5)
            for busy in (False, True):
                used = [s.last_used for s in live if bool(s.in_use) is busy]
                self.assertEqual(used, sorted(used))
            self.assertEqual([bool(s.in_use) for s in live], sorted(bool(s.in_use) for s in live))
            self.assertEqual({view.label for view in table.views()}, {s.label for s in live})
            for person in people:
                own = [s for s in live if s.record.key.principal == person]
                self.assertLessEqual(len(own), 2)
                for session in live:
                    found = table.find(person, session.record.server, session.record.key.session_id)
                    self.assertIs(found, session if session in own else None)
