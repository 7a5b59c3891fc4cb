"""What to stop, what to remove, whom to let in."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import (
    InstanceKey,
    InstanceState,
    Isolation,
    Lifetime,
    Owner,
    Restraint,
    Usage,
)
from mcpgate.runtime.plan import Cap, Limits, Newcomer, Room, Seen, excess, make_room, sweep

LIFE = Lifetime(idle_stop_s=900.0, remove_s=1000.0)


def key(name: str, server: str = "s") -> InstanceKey:
    """Make a key."""
    return InstanceKey(server, Owner(Isolation.PER_KEY, name))


def seen(
    name: str,
    *,
    server: str = "s",
    state: InstanceState = InstanceState.RUNNING,
    last_use: float = 0.0,
    since: float = 0.0,
    busy: bool = False,
    weight: int = 10,
    local: bool = True,
    life: Lifetime = LIFE,
) -> Seen:
    """Make what the pool sees."""
    return Seen(
        key=key(name, server),
        state=state,
        since=since,
        last_use=last_use,
        busy=busy,
        local=local,
        weight_bytes=weight,
        lifetime=life,
    )


def newcomer(server: str = "s", weight: int = 10, cap: int = 0, local: bool = True) -> Newcomer:
    """Make a newcomer."""
    return Newcomer(key=key("new", server), weight_bytes=weight, max_instances=cap, local=local)


class NobodysTests(SynchronousTestCase):
    """Copies that are nobody's yet."""

    def test_first_to_go(self) -> None:
        """They make room before all others, even while they start, and never idle."""
        spare = Owner.nobody(Isolation.PER_KEY, "1")
        starting = replace(
            seen("x", last_use=9.0, state=InstanceState.STARTING), key=InstanceKey("s", spare)
        )
        room = make_room([seen("a"), starting], newcomer(), Limits(max_running=2))
        self.assertEqual(room, Room(stop_first=(starting.key,)))
        running = replace(starting, state=InstanceState.RUNNING)
        self.assertEqual(sweep([running], 1e9).stop, ())
        self.assertEqual(spare.label, "warm")


class MakeRoomTests(SynchronousTestCase):
    """Who is let in, and who has to go for it."""

    def test_no_limits(self) -> None:
        """Without caps everybody fits."""
        self.assertEqual(make_room([seen("a")], newcomer(), Limits()), Room())

    def test_longest_unused_first(self) -> None:
        """At the cap the longest unused one that is idle has to go."""
        there = [seen("a", last_use=5), seen("b", last_use=1, busy=True), seen("c", last_use=3)]
        room = make_room(there, newcomer(), Limits(max_running=3))
        self.assertEqual(room.stop_first, (key("c"),))

    def test_all_busy(self) -> None:
        """When all are in use the newcomer is refused, and nobody is stopped."""
        there = [seen("a", busy=True), seen("b", state=InstanceState.STARTING)]
        room = make_room(there, newcomer(), Limits(max_running=2))
        self.assertEqual(room, Room(refused_by=Cap.RUNNING))

    def test_refusal_stops_nobody(self) -> None:
        """Room that would not suffice is not made."""
        there = [seen("a", weight=10), seen("b", weight=90, busy=True)]
        room = make_room(there, newcomer(weight=20), Limits(memory_bytes=100))
        self.assertEqual(room, Room(refused_by=Cap.MEMORY))

    def test_memory(self) -> None:
        """As many have to go as free the memory needed."""
        there = [seen("a", weight=10), seen("b", weight=10, last_use=1), seen("c", weight=80)]
        room = make_room(there, newcomer(weight=15), Limits(memory_bytes=100))
        self.assertEqual(room.stop_first, (key("a"), key("c")))

    def test_server_cap(self) -> None:
        """A server at its own cap makes room among its own copies only."""
        there = [seen("x", server="other"), seen("a", last_use=9)]
        room = make_room(there, newcomer(cap=1), Limits())
        self.assertEqual(room.stop_first, (key("a"),))
        busy = [seen("x", server="other"), seen("a", busy=True)]
        self.assertEqual(make_room(busy, newcomer(cap=1), Limits()).refused_by, Cap.SERVER)

    def test_what_does_not_count(self) -> None:
        """Stopped ones, those on their way out and remote ones take no room."""
        there = [
            seen("a", state=InstanceState.STOPPED),
            seen("b", state=InstanceState.STOPPING),
            seen("c", local=False, busy=True),
        ]
        self.assertEqual(make_room(there, newcomer(), Limits(max_running=1)), Room())
        full = [seen("a", busy=True)]
        self.assertEqual(make_room(full, newcomer(local=False), Limits(max_running=1)), Room())

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("st"),
                st.sampled_from(list(InstanceState)),
                st.floats(0, 100),
                st.booleans(),
                st.integers(0, 50),
            ),
            max_size=12,
        ),
        st.integers(0, 6),
        st.integers(0, 200),
        st.integers(0, 4),
        st.integers(0, 60),
    )
    @settings(max_examples=100, deadline=None)
    def test_always(
        self,
        there: list[tuple[str, InstanceState, float, bool, int]],
        max_running: int,
        memory: int,
        cap: int,
        weight: int,
    ) -> None:
        """Whoever is let in keeps every cap; only idle ones are stopped, none in vain."""
        all_seen = [
            seen(str(n), server=server, state=state, last_use=last_use, busy=busy, weight=size)
            for n, (server, state, last_use, busy, size) in enumerate(there)
        ]
        wanted = newcomer(weight=weight, cap=cap)
        limits = Limits(max_running=max_running, memory_bytes=memory)
        room = make_room(all_seen, wanted, limits)
        by_key = {one.key: one for one in all_seen}
        self.assertTrue(all(by_key[victim].spare for victim in room.stop_first))
        if room.refused_by is not None:
            self.assertEqual(room.stop_first, ())
            return
        left = [one for one in all_seen if one.takes_room and one.key not in room.stop_first]
        if max_running:
            self.assertLess(len(left), max_running)
        if memory:
            self.assertLessEqual(sum(one.weight_bytes for one in left) + weight, memory)
        if cap:
            self.assertLess(sum(one.key.server == "s" for one in left), cap)
        if room.stop_first:
            fewer = [one for one in all_seen if one.key not in room.stop_first[:-1]]
            again = make_room(fewer, wanted, limits)
            self.assertNotEqual(again.stop_first, ())


class SweepTests(SynchronousTestCase):
    """What idles is stopped; what is long stopped is removed."""

    def test_idle(self) -> None:
        """Exactly those unused for the idle time, with no use that counts, are stopped."""
        there = [
            seen("idle", last_use=100),
            seen("used", last_use=101),
            seen("busy", busy=True),
            seen("starting", state=InstanceState.STARTING),
            seen("forever", life=Lifetime(idle_stop_s=0)),
        ]
        todo = sweep(there, now=1000.0)
        self.assertEqual((todo.stop, todo.remove), ((key("idle"),), ()))

    def test_remove(self) -> None:
        """What was stopped long ago is removed, failed ones too."""
        there = [
            seen("old", state=InstanceState.STOPPED, since=0),
            seen("new", state=InstanceState.STOPPED, since=1),
            seen("failed", state=InstanceState.FAILED, since=0),
            seen("absent", state=InstanceState.ABSENT, since=0),
        ]
        todo = sweep(there, now=1000.0)
        self.assertEqual((todo.stop, todo.remove), ((), (key("old"), key("failed"))))


class ExcessTests(SynchronousTestCase):
    """Who uses more than it may."""

    def test_excess(self) -> None:
        """Memory and processes of the whole tree are held to; the unknown is no excess."""
        may = Restraint(memory_bytes=100, pids=10)
        self.assertEqual(excess(Usage(memory_bytes=101, processes=1), may), "memory")
        self.assertEqual(excess(Usage(memory_bytes=100, processes=11), may), "processes")
        self.assertEqual(excess(Usage(), may), "")
        self.assertEqual(excess(Usage(memory_bytes=9**9), Restraint(memory_bytes=0)), "")
