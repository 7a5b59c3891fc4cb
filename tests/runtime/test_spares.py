"""Tests of spare copies and of starts nobody waits for, in mcpgate.runtime.pool."""

from __future__ import annotations

from dataclasses import replace

from mcpgate.errors import BackendDied, BackendUnavailable, GateError, Overloaded
from mcpgate.model import Exit, InstanceKey, InstanceState, Isolation, Owner, Restraint, ServerSpec
from mcpgate.runtime.plan import Limits
from mcpgate.testing.memory_runtime import Behaviour
from tests.runtime.test_pool import SPEC, PoolTestCase, caller, owner

WARM = replace(SPEC, warm=2)
RUNNING = InstanceState.RUNNING


class SpareTests(PoolTestCase):
    """Copies that are kept ready for whoever comes."""

    def warm(self, *specs: ServerSpec) -> None:
        """Have copies kept ready."""
        self.pool.keep_warm(specs or (WARM,))
        self.turns()

    def turns(self) -> None:
        """Let what is due happen."""
        for _ in range(5):
            self.clock.advance(0)

    def labels(self) -> list[str]:
        """Tell whose copies run."""
        return sorted(
            report.key.owner.label for report in self.pool.instances() if report.state is RUNNING
        )

    def test_kept_ready(self) -> None:
        """As many copies as the entry says run, without an owner, a key or a name."""
        self.warm()
        self.assertEqual(self.labels(), ["warm", "warm"])
        self.assertEqual({len(one.launch.values) for one in self.runtime.alive}, {0})
        self.assertEqual([report.user for report in self.pool.instances()], ["", ""])
        self.assertEqual(self.meters.events["spare_started"], 2)
        self.warm()
        self.pool.sweep()
        self.assertEqual(len(self.runtime.instances), 2)

    def test_given(self) -> None:
        """The next owner gets one at once, and another one is started in its place."""
        self.warm()
        first = self.runtime.instances[0]
        lease = self.successResultOf(self.pool.lease(WARM, owner("a"), caller("a")))
        self.assertIs(lease.instance, first)
        self.assertEqual(first.key, InstanceKey("toy", owner("a")))
        self.assertIs(lease.upstream, self.upstreams[0])
        self.turns()
        self.assertEqual(self.labels(), ["aaaaaaaa", "warm", "warm"])
        self.assertEqual(len(self.runtime.instances), 3)
        self.assertIs(self.leased("a", WARM).instance, first)
        self.assertIsNot(self.leased("b", WARM).instance, first)
        (mine,) = [one for one in self.pool.instances() if one.key.owner == owner("a")]
        self.assertEqual((mine.user, mine.leases), ("a", 2))
        self.assertEqual(self.meters.events["spare_taken"], 2)
        self.assertEqual(self.meters.events["instance_started"], 4)

    def test_life_of_a_given_one(self) -> None:
        """A copy that was given crashes, idles and is stopped like any other of its owner."""
        self.warm()
        lease = self.successResultOf(self.pool.lease(WARM, owner("a"), caller("a")))
        lease.release()
        self.clock.advance(100.0)
        self.runtime.instances[0].end(Exit(code=1))
        self.turns()
        self.assertIsInstance(self.upstreams[0].closed[0], BackendDied)
        self.assertEqual(self.labels(), ["warm", "warm"])
        self.leased("a", WARM).release()
        self.clock.advance(901.0)
        self.pool.sweep()
        self.clock.advance(5.0)
        self.assertEqual(self.labels(), ["warm", "warm"])
        before = len(self.runtime.instances)
        self.successResultOf(self.pool.lease(WARM, owner("a"), caller("a")))
        self.turns()
        self.assertEqual(self.labels(), ["aaaaaaaa", "warm", "warm"])
        self.assertEqual(len(self.runtime.instances), before + 1)

    def test_stopping_a_given_one(self) -> None:
        """Who waits for the end of a given copy hears of it."""
        self.warm()
        self.successResultOf(self.pool.lease(WARM, owner("a"), caller("a")))
        stopped = self.pool.stop(InstanceKey("toy", owner("a")))
        self.turns()
        self.successResultOf(stopped)
        self.assertFalse(self.runtime.instances[0].alive)

    def test_after_a_crash_of_their_own(self) -> None:
        """An owner whose copy crashed waits for its own, not for a spare one."""
        self.warm()
        self.successResultOf(self.pool.lease(WARM, owner("a"), caller("a")))
        self.clock.advance(100.0)
        self.runtime.instances[0].end(Exit(code=1))
        self.turns()
        before = len(self.runtime.instances)
        self.leased("a", WARM)
        self.assertEqual(len(self.runtime.instances), before + 1)

    def test_of_another_entry(self) -> None:
        """Copies of an entry that has changed are given to nobody."""
        self.warm()
        changed = replace(WARM, command=("toy", "-v"))
        self.leased("a", changed)
        self.assertEqual(self.instance().spec, changed)

    def test_none_ready(self) -> None:
        """While none is ready a caller gets a copy of its own started."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=2.0)
        self.warm()
        asked = self.pool.lease(WARM, owner("a"), caller("a"))
        self.clock.advance(2.0)
        self.turns()
        self.successResultOf(asked)
        self.assertEqual(self.labels(), ["aaaaaaaa", "warm", "warm"])

    def test_first_to_go(self) -> None:
        """Spare copies count, and make room before anybody's idle copy does."""
        self.pool = self.make(limits=Limits(max_running=3))
        self.leased("a").release()
        self.clock.advance(100.0)
        self.warm()
        self.assertEqual(self.labels(), ["aaaaaaaa", "warm", "warm"])
        self.leased("b")
        self.turns()
        self.assertEqual(self.labels(), ["aaaaaaaa", "bbbbbbbb", "warm"])
        self.pool.sweep()
        self.turns()
        self.assertEqual(len(self.pool.instances()), 3)

    def test_starting_ones_make_room(self) -> None:
        """A spare copy that is still starting keeps no caller out."""
        self.pool = self.make(limits=Limits(max_running=2))
        self.probe.hold = True
        self.warm()
        self.probe.hold = False
        self.leased("a")
        self.turns()
        self.assertEqual(self.pool.running, 2)

    def test_no_room(self) -> None:
        """Nobody's idle copy is stopped for a spare one; when there is room there is one."""
        budget = Limits(memory_bytes=3 << 20)
        self.pool = self.make(limits=budget)
        small = replace(WARM, restraint=Restraint(memory_bytes=1 << 20))
        lease = self.leased("a", replace(small, warm=0, name="other"))
        lease.release()
        self.leased("b", replace(small, warm=0, name="other"))
        self.warm(small)
        self.assertEqual(self.labels(), ["aaaaaaaa", "bbbbbbbb", "warm"])
        self.pool.stop(InstanceKey("other", owner("a")))
        self.turns()
        self.pool.sweep()
        self.turns()
        self.assertEqual(self.labels(), ["bbbbbbbb", "warm", "warm"])

    def test_callers_first(self) -> None:
        """No spare copy is started while callers wait for their turn."""
        self.pool = self.make(start_parallel=1)
        self.runtime.behaviours["toy"] = Behaviour(start_s=2.0)
        asked = [self.pool.lease(SPEC, owner(who), caller(who)) for who in "abc"]
        self.warm()
        self.assertEqual(self.meters.events["spare_started"], 0)
        for _ in range(3):
            self.clock.advance(2.0)
            self.turns()
        for one in asked:
            self.successResultOf(one)
        self.pool.sweep()
        self.assertEqual(self.meters.events["spare_started"], 2)

    def test_spare_ones_that_fail(self) -> None:
        """A spare copy that can not start is tried again later, and later each time."""
        self.runtime.behaviours["toy"] = Behaviour(refusal=BackendUnavailable("broken"))
        self.warm(replace(WARM, warm=1))
        self.clock.advance(3.0)
        self.pool.sweep()
        self.turns()
        self.assertEqual(len(self.pool.instances()), 1)
        self.runtime.behaviours.clear()
        self.clock.advance(30.0)
        self.turns()
        self.assertEqual(self.labels(), ["warm"])

    def test_never_idle(self) -> None:
        """Spare copies are not stopped for want of use."""
        self.warm()
        self.clock.advance(10_000.0)
        self.pool.sweep()
        self.turns()
        self.assertEqual(self.labels(), ["warm", "warm"])

    def test_stopped_by_hand(self) -> None:
        """A spare copy that was stopped is gone; the next sweep starts another."""
        self.warm()
        for report in self.pool.instances():
            self.pool.stop(report.key)
        self.clock.advance(5.0)
        self.turns()
        self.assertEqual(self.pool.instances(), [])
        self.assertEqual(len(self.runtime.removed), 2)
        self.pool.sweep()
        self.turns()
        self.assertEqual(self.labels(), ["warm", "warm"])

    def test_at_the_end(self) -> None:
        """When the gate stops, spare copies stop, even where others run on; none is started."""
        self.pool = self.make(outlives=lambda spec: True)
        self.warm()
        self.successResultOf(self.pool.lease(WARM, owner("a"), caller("a")))
        done = self.pool.stop_all(1.0)
        self.turns()
        self.successResultOf(done)
        self.assertEqual([one.key.owner for one in self.runtime.alive], [owner("a")])
        self.pool.sweep()
        self.assertEqual(len(self.runtime.instances), 2)

    def test_sessions(self) -> None:
        """A new session of a server with copies of their own gets one, too."""
        own = replace(WARM, isolation=Isolation.PER_SESSION)
        self.warm(own)
        who = Owner(Isolation.PER_SESSION, "a" * 32 + "/" + "1" * 32)
        lease = self.successResultOf(self.pool.lease(own, who, caller("a")))
        self.pool.forget(who)
        self.turns()
        self.assertFalse(lease.instance is self.runtime.alive[0])
        self.assertEqual(self.labels(), ["warm", "warm"])


class AheadTests(PoolTestCase):
    """Starts nobody waits for."""

    def ahead(self, who: str = "a", spec: ServerSpec = SPEC) -> bool:
        """Start ahead, and let it happen."""
        begun = self.pool.start_ahead(spec, owner(who), caller(who))
        for _ in range(3):
            self.clock.advance(0)
        return begun

    def test_started(self) -> None:
        """It is started once, with the key of its owner, and idles like any other."""
        self.assertTrue(self.ahead())
        self.assertTrue(self.ahead())
        (instance,) = self.runtime.instances
        self.assertIn("key", instance.launch.values)
        self.assertEqual(self.meters.events["instance_prestarted"], 1)
        self.clock.advance(901.0)
        self.pool.sweep()
        self.clock.advance(1.0)
        self.assertEqual(self.runtime.alive, [])

    def test_no_room(self) -> None:
        """No other copy has to go for it, and the caller gets no error."""
        self.pool = self.make(limits=Limits(max_running=1))
        self.leased("b").release()
        self.assertFalse(self.ahead())
        self.assertEqual(len(self.pool.instances()), 1)
        self.assertEqual(self.meters.events["start_refused"], 0)
        self.leased("a")

    def test_queue(self) -> None:
        """It does not stand in the way of those who wait."""
        self.pool = self.make(start_parallel=1)
        self.probe.hold = True
        asked = [self.ask(who) for who in "bc"]
        self.assertFalse(self.ahead())
        self.pool.stop_all(1.0)
        self.clock.advance(0)
        for one in asked:
            self.refused(one, GateError)

    def test_spare(self) -> None:
        """A spare copy is given, where there is one."""
        self.pool.keep_warm([WARM])
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertTrue(self.ahead("a", WARM))
        self.assertEqual(self.runtime.instances[0].key.owner, owner("a"))

    def test_refused_later(self) -> None:
        """A start ahead that fails is told whoever calls next, as ever."""
        self.runtime.behaviours["toy"] = Behaviour(refusal=BackendUnavailable("broken"))
        self.assertTrue(self.ahead())
        asked = self.ask()
        self.clock.advance(3.0)
        self.refused(asked, BackendUnavailable)

    def test_full_for_callers(self) -> None:
        """What was started ahead is idle, so it makes room for a caller."""
        self.pool = self.make(limits=Limits(max_running=1))
        self.ahead()
        lease = self.leased("b")
        self.refused(self.ask("c"), Overloaded)
        lease.release()
