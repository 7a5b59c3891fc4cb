"""The pool: one start for many, caps, idle stop, backoff."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    Draining,
    GateError,
    Overloaded,
    RateLimited,
    RuntimeUnavailable,
    Starting,
)
from mcpgate.interfaces import IInstance, IInstancePool, ILease, ILoan, IUpstream
from mcpgate.model import (
    Caller,
    Exit,
    InstanceKey,
    InstanceState,
    Isolation,
    Launch,
    Lifetime,
    Owner,
    Principal,
    Restraint,
    Secret,
    ServerSpec,
    Transport,
    Usage,
)
from mcpgate.runtime.plan import Limits
from mcpgate.runtime.pool import InstancePool
from mcpgate.runtime.remote import RemoteRuntime
from mcpgate.telemetry.meters import Meters
from mcpgate.testing.memory_runtime import Behaviour, MemoryInstance, MemoryRuntime


@implementer(IUpstream)
class FakeUpstream:
    """Notes how it was closed."""

    def __init__(self, instance: IInstance) -> None:
        self.instance = instance
        self.closed: list[GateError] = []
        self.heard_s = 0.0
        self.unreachable = False
        self.asked: list[float] = []
        self.owes = True

    def ask_alive(self, timeout_s: float) -> bool:
        """See `IUpstream.ask_alive`."""
        self.asked.append(timeout_s)
        return self.owes

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`."""
        self.closed.append(error)


@implementer(ILoan)
class Loan:
    """What others do with a copy."""

    def __init__(self) -> None:
        self.in_work = 0
        self.used_s = self.heard_s = 0.0


class FakeProbe:
    """Ready at once, unless told to wait."""

    def __init__(self) -> None:
        self.hold = False

    def wait(self, spec: ServerSpec, instance: IInstance) -> Deferred[None]:
        """See `Probe.wait`."""
        return Deferred() if self.hold else succeed(None)


def caller(name: str) -> Caller:
    """Make a caller."""
    return Caller(
        principal=Principal(issuer="keys", subject=name, key_digest=name * 32),
        credential=Secret(f"key-of-{name}"),
    )


def owner(name: str) -> Owner:
    """Make the owner of a caller's instances."""
    return Owner(Isolation.PER_KEY, name * 32)


SPEC = ServerSpec(
    name="toy",
    transport=Transport.STDIO,
    command=("toy",),
    lifetime=Lifetime(stop_grace_s=1.0),
)


class PoolTestCase(SynchronousTestCase):
    """A pool over memory."""

    def setUp(self) -> None:
        """Make the pool."""
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.runtime = MemoryRuntime(self.clock)
        self.probe = FakeProbe()
        self.meters = Meters()
        self.upstreams: list[FakeUpstream] = []
        self.pool = self.make()

    def tearDown(self) -> None:
        """
        Leave no start under way: what ends by garbage collection ends in any order.

        Whatever happened, the pool knows who takes room.
        """
        there = set(self.pool._records.values())
        taking = {
            record
            for record in there
            if record.core.state in (InstanceState.STARTING, InstanceState.RUNNING)
        }
        self.assertEqual(there.intersection(self.pool._places), taking)
        done = self.pool.stop_all(1.0)
        for _ in range(5):
            self.clock.advance(1000.0)
        self.successResultOf(done)

    def make(self, **more: Any) -> InstancePool:
        """Make one with other limits."""
        ids = count(1)
        return InstancePool(
            self.clock,
            runtimes={"process": self.runtime, "remote": RemoteRuntime()},
            connect=self.connect,
            probe=self.probe,
            make_id=lambda: f"id{next(ids)}",
            meters=self.meters,
            wall=lambda: 1e9 + self.clock.seconds(),
            luck=lambda: 0.5,
            **more,
        )

    def connect(self, spec: ServerSpec, instance: IInstance) -> IUpstream:
        """Make an upstream."""
        self.upstreams.append(FakeUpstream(instance))
        return self.upstreams[-1]

    def ask(self, who: str = "a", spec: ServerSpec = SPEC) -> Deferred[ILease]:
        """Ask for a lease and let one turn pass."""
        asked = self.pool.lease(spec, owner(who), caller(who))
        self.clock.advance(0)
        return asked

    def leased(self, who: str = "a", spec: ServerSpec = SPEC) -> ILease:
        """Get a lease."""
        return self.successResultOf(self.ask(who, spec))

    def instance(self) -> MemoryInstance:
        """The newest copy."""
        return self.runtime.instances[-1]

    def crash(self) -> None:
        """Have the newest copy die."""
        self.instance().end(Exit(code=1, reason="exited", stderr_tail=("last words",)))
        self.clock.advance(0)

    def refused(self, asked: Deferred[ILease], kind: type[GateError]) -> Any:
        """Get why a lease was refused."""
        return self.failureResultOf(asked, kind).value

    def state(self) -> list[InstanceState]:
        """The states of all that is known."""
        return [report.state for report in self.pool.instances()]


class LeaseTests(PoolTestCase):
    """Getting an instance."""

    def test_provides(self) -> None:
        """Pool and lease have everything their interfaces name."""
        verifyObject(IInstancePool, self.pool)
        verifyObject(ILease, self.leased())

    def test_first_start(self) -> None:
        """The first call starts it; the caller's key and name are there to be filled in."""
        self.assertIsNone(self.pool.ready(SPEC, owner("a")))
        lease = self.leased()
        self.assertIs(lease.instance, self.instance())
        self.assertIs(lease.upstream, self.upstreams[0])
        values = self.instance().launch.values
        self.assertEqual(
            {n: s.reveal() for n, s in values.items()}, {"key": "key-of-a", "user": "a"}
        )

    def test_ready(self) -> None:
        """Once it runs, a lease costs no waiting."""
        self.leased()
        lease = self.pool.ready(SPEC, owner("a"))
        assert lease is not None
        self.assertIs(lease.instance, self.instance())
        self.assertIs(self.leased().instance, self.instance())

    def test_owners_are_apart(self) -> None:
        """Two keys get two copies."""
        one, two = self.leased("a"), self.leased("b")
        self.assertIsNot(one.instance, two.instance)
        self.assertNotEqual(one.instance.key, two.instance.key)

    def test_shared_instance_gets_no_key(self) -> None:
        """A shared copy does not act with the key of whoever came first."""
        asked = self.pool.lease(SPEC, Owner(Isolation.SHARED), caller("a"))
        self.clock.advance(0)
        self.successResultOf(asked)
        self.assertEqual(self.instance().launch.values, {})

    def test_one_start_for_many(self) -> None:
        """However many ask, there is one start, and each gets a lease of its own."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=2.0)
        asked = [self.ask() for _ in range(50)]
        self.clock.advance(2.0)
        self.clock.advance(0)
        leases = [self.successResultOf(one) for one in asked]
        self.assertEqual(len(self.runtime.instances), 1)
        self.assertEqual(self.pool.instances()[0].leases, 50)
        for lease in leases:
            lease.release()
            lease.release()
        self.assertEqual(self.pool.instances()[0].leases, 0)

    def test_cancelled_waiter(self) -> None:
        """A caller that leaves does not take the start from the others."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=2.0)
        leaving, staying = self.ask(), self.ask()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.clock.advance(2.0)
        self.clock.advance(0)
        self.successResultOf(staying)

    def test_impatient_waiter(self) -> None:
        """Who waited long enough is told to come back; the start goes on."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=70.0)
        asked = self.ask()
        self.clock.advance(60.0)
        self.assertEqual(self.refused(asked, Starting).retry_after_s, 3.0)
        self.clock.advance(10.0)
        self.clock.advance(0)
        self.assertIsNotNone(self.pool.ready(SPEC, owner("a")))

    def test_waiters_hear_on_the_next_turn(self) -> None:
        """Nobody is called back from inside the machine."""
        asked = self.pool.lease(SPEC, owner("a"), caller("a"))
        self.assertNoResult(asked)
        self.clock.advance(0)
        self.successResultOf(asked)

    def test_changed_entry(self) -> None:
        """After a reload the copy of the old entry is replaced before the next call."""
        old = self.leased()
        old.release()
        new = replace(SPEC, env=(("A", "1"),))
        self.assertIsNone(self.pool.ready(new, owner("a")))
        asked = self.ask(spec=new)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertIsNot(self.successResultOf(asked).instance, old.instance)
        self.assertIsInstance(self.upstreams[0].closed[0], BackendUnavailable)
        self.assertEqual(len(self.runtime.alive), 1)

    def test_changed_entry_in_use(self) -> None:
        """Calls in work end at the copy they have; the next ones get a new one beside it."""
        old = self.leased()
        new = replace(SPEC, env=(("A", "1"),))
        asked = self.ask(spec=new)
        self.clock.advance(0)
        lease = self.successResultOf(asked)
        self.assertIsNot(lease.instance, old.instance)
        self.assertEqual((len(self.runtime.alive), self.upstreams[0].closed), (2, []))
        self.assertEqual(len(self.pool.instances()), 2)
        self.pool.sweep()
        self.assertEqual(len(self.runtime.alive), 2)
        old.release()
        self.clock.advance(2.0)
        self.pool.sweep()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(len(self.runtime.alive), 1)
        self.assertIsNot(self.pool.ready(new, owner("a")), None)

    def test_entry_of_before(self) -> None:
        """Who still holds an entry of before a reload gets a copy of the one of now."""
        new = replace(SPEC, env=(("A", "1"),))
        self.pool = self.make(current=lambda spec: new)
        lease = self.leased()
        again = self.pool.ready(SPEC, owner("a"))
        assert again is not None
        self.assertIs(again.instance, lease.instance)
        self.assertTrue(self.pool.start_ahead(SPEC, owner("a"), caller("a")))
        self.assertEqual([report.spec for report in self.pool.instances()], [new])

    def test_retired(self) -> None:
        """Copies of servers that are gone stop when nobody uses them, or after a while."""
        used, idle = self.leased("a"), self.leased("b")
        idle.release()
        done = self.pool.retire(["toy"], 10.0)
        self.clock.advance(0)
        self.assertEqual(len(self.runtime.alive), 1)
        self.assertNoResult(done)
        used.release()
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(self.runtime.alive, [])
        self.leased("c")
        done = self.pool.retire(["toy"], 2.0)
        for _ in range(4):
            self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertEqual(self.runtime.alive, [])

    def test_retired_and_back(self) -> None:
        """A server that was taken out and put back meanwhile keeps its copies."""
        self.leased("a")
        back: list[str] = []
        done = self.pool.retire(["toy"], 10.0, back.__contains__)
        self.assertNoResult(done)
        back.append("toy")
        self.leased("b").release()
        for _ in range(12):
            self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertEqual(len(self.runtime.alive), 2)

    def test_tried_out(self) -> None:
        """A trial starts a copy, looks at it, and leaves nothing."""
        looked: list[IUpstream] = []

        def look(upstream: IUpstream) -> Deferred[object]:
            looked.append(upstream)
            return succeed(None)

        done = self.pool.try_out(SPEC, look)
        for _ in range(4):
            self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertEqual((len(looked), self.runtime.alive), (1, []))
        self.assertEqual(self.pool.instances(), [])

    def test_tried_out_slowly(self) -> None:
        """A trial waits as long as a start may take, not as long as a caller would."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=30.0)
        life = replace(SPEC.lifetime, start_s=60.0, start_wait_s=5.0)
        done = self.pool.try_out(replace(SPEC, lifetime=life), lambda _: succeed(None))
        self.clock.pump([1.0] * 20)
        self.assertNoResult(done)
        self.clock.pump([1.0] * 20)
        self.successResultOf(done)
        self.assertEqual(self.pool.instances(), [])

    def test_trial_is_no_spare_copy(self) -> None:
        """Nobody is given the copy that is being tried, though it is nobody's."""
        warm = replace(SPEC, warm=1)
        looking: Deferred[object] = Deferred()
        done = self.pool.try_out(warm, lambda _: looking)
        self.clock.advance(1.0)
        (tried,) = self.runtime.alive
        lease = self.pool.lease(warm, owner("a"), caller("a"))
        self.clock.advance(1.0)
        self.assertIsNot(self.successResultOf(lease).instance, tried)
        looking.callback(None)
        for _ in range(4):
            self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertNotIn(tried, self.runtime.alive)

    def test_tried_out_in_vain(self) -> None:
        """A trial that fails says why and leaves nothing."""
        self.runtime.behaviours["toy"] = Behaviour(refusal=BackendUnavailable("no such program"))
        done = self.pool.try_out(SPEC, lambda _: succeed(None))
        for _ in range(4):
            self.clock.advance(1.0)
        self.assertEqual(
            self.failureResultOf(done, BackendUnavailable).value.detail, "no such program"
        )
        self.assertEqual(self.pool.instances(), [])

    def test_equal_entry(self) -> None:
        """A reload that changes nothing restarts nothing."""
        old = self.leased()
        same = replace(SPEC)
        lease = self.pool.ready(same, owner("a"))
        assert lease is not None
        self.assertIs(lease.instance, old.instance)

    def test_changed_times(self) -> None:
        """New times and limits of calls hold at once, without a restart."""
        old = self.leased()
        old.release()
        slower = replace(SPEC, call_timeout_s=5.0, lifetime=replace(SPEC.lifetime, idle_stop_s=10))
        self.leased(spec=slower).release()
        self.assertEqual(len(self.runtime.instances), 1)
        self.clock.advance(10)
        self.pool.sweep()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(self.runtime.alive, [])

    def test_changed_while_starting(self) -> None:
        """An entry that changes during a start starts anew; who waits gets the new copy."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=2.0)
        asked = self.ask()
        new = self.ask(spec=replace(SPEC, command=("toy", "2")))
        for _ in range(4):
            self.clock.advance(1.0)
        for one in (asked, new):
            instance = self.successResultOf(one).instance
            assert isinstance(instance, MemoryInstance)
            self.assertEqual(instance.spec.command, ("toy", "2"))
        self.assertEqual(len(self.runtime.alive), 1)

    def test_remote(self) -> None:
        """A remote server is an instance without a start, under no cap of this machine."""
        self.pool = self.make(limits=Limits(max_running=1), start_parallel=0)
        remote = ServerSpec(
            name="far", transport=Transport.HTTP, runtime="remote", url="https://far.example/mcp"
        )
        lease = self.leased(spec=remote)
        self.assertEqual((lease.instance.address, lease.instance.channel), (None, None))
        self.assertEqual(self.pool.running, 0)
        lease.release()
        self.clock.advance(901)
        self.pool.sweep()
        self.clock.advance(0)
        self.assertEqual(len(self.upstreams[0].closed), 1)

    def test_unknown_runtime(self) -> None:
        """A runtime this gate does not have is said to be missing."""
        error = self.refused(self.ask(spec=replace(SPEC, runtime="docker")), BackendUnavailable)
        self.assertIn("runtime 'docker'", error.detail)


class StartFailureTests(PoolTestCase):
    """Starts that come to nothing."""

    def test_refused_by_the_runtime(self) -> None:
        """Every waiter is told why, and when to come back."""
        self.runtime.behaviours["toy"] = Behaviour(refusal=BackendUnavailable("no such thing"))
        error = self.refused(self.ask(), BackendUnavailable)
        self.assertEqual((error.detail, error.retry_after_s), ("no such thing", 1.0))
        self.assertEqual(self.state(), [InstanceState.FAILED])

    def test_ends_while_starting(self) -> None:
        """A server that ends before it is ready tells its exit code and last words."""
        self.probe.hold = True
        self.runtime.behaviours["toy"] = Behaviour(
            exits=Exit(code=3, reason="exited", stderr_tail=("boom",))
        )
        asked = self.ask()
        self.clock.advance(0)
        error = self.refused(asked, BackendUnavailable)
        self.assertEqual((error.data["exitCode"], error.data["stderr"]), (3, ["boom"]))
        self.assertIn("ended with code 3", error.detail)
        self.assertEqual(self.pool.logs(InstanceKey("toy", owner("a"))), ["boom"])

    def test_deadline(self) -> None:
        """A server that is not ready in time is stopped, and what it wrote is told."""
        self.probe.hold = True
        self.runtime.behaviours["toy"] = Behaviour(stderr=("loading",))
        spec = replace(SPEC, lifetime=replace(SPEC.lifetime, start_wait_s=100.0))
        asked = self.ask(spec=spec)
        self.clock.advance(90.0)
        self.clock.advance(0)
        self.clock.advance(0)
        error = self.refused(asked, BackendTimeout)
        self.assertEqual(error.data, {"stderr": ["loading"]})
        self.assertEqual(self.runtime.alive, [])

    def test_deadline_before_anything_exists(self) -> None:
        """A runtime that hangs is not waited for."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=1000.0)
        spec = replace(SPEC, lifetime=replace(SPEC.lifetime, start_wait_s=100.0))
        asked = self.ask(spec=spec)
        self.clock.advance(90.0)
        self.clock.advance(0)
        self.assertEqual(self.refused(asked, BackendTimeout).data, {"stderr": []})

    def test_port_taken(self) -> None:
        """A port lost to somebody else costs another try, three at most."""
        self.probe.hold = True
        self.runtime.behaviours["toy"] = Behaviour(exits=Exit(code=1, reason="port_taken"))
        asked = self.ask()
        for _ in range(4):
            self.clock.advance(0)
        self.refused(asked, BackendUnavailable)
        self.assertEqual(len(self.runtime.instances), 3)

    def test_upstream_can_not_be_made(self) -> None:
        """A bug in connecting stops the copy and is told as no more than that."""
        pool = self.make()
        pool._starter._connect = lambda spec, instance: 1 // 0  # type: ignore[return-value, assignment]  # a bug
        self.pool = pool
        asked = self.ask()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(self.refused(asked, GateError).reason, "internal")
        self.assertEqual(self.runtime.alive, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped_while_starting(self) -> None:
        """Who waits for a start that is given up is told so, and nothing stays."""
        self.probe.hold = True
        asked = self.ask()
        stopped = self.pool.stop(InstanceKey("toy", owner("a")))
        self.clock.advance(0)
        self.clock.advance(0)
        self.refused(asked, BackendUnavailable)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.runtime.alive, [])


class CrashTests(PoolTestCase):
    """Servers that die."""

    def test_callers_are_told(self) -> None:
        """Calls in work fail with exit code and last words at once."""
        self.leased()
        self.crash()
        (error,) = self.upstreams[0].closed
        self.assertIsInstance(error, BackendDied)
        self.assertEqual((error.data["exitCode"], error.data["stderr"]), (1, ["last words"]))
        self.assertIsNone(self.pool.ready(SPEC, owner("a")))
        self.assertEqual(self.pool.logs(InstanceKey("toy", owner("a"))), ["last words"])

    def test_shared_servers_keep_their_words(self) -> None:
        """What a shared server wrote may be about others, so nobody is told."""
        asked = self.pool.lease(SPEC, Owner(Isolation.SHARED), caller("a"))
        self.clock.advance(0)
        self.successResultOf(asked)
        self.crash()
        self.assertNotIn("stderr", self.upstreams[0].closed[0].data)

    def test_next_call_restarts(self) -> None:
        """The next call waits out a short backoff and gets a new copy."""
        self.leased()
        self.crash()
        asked = self.ask()
        self.assertNoResult(asked)
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertIs(self.successResultOf(asked).instance, self.instance())
        self.assertEqual(self.pool.instances()[0].starts, 2)

    def crash_often(self, times: int) -> None:
        """Crash again and again, started each time as soon as it may."""
        for _ in range(times):
            asked = self.ask()
            while not asked.called:
                self.clock.advance(0.5)
            self.successResultOf(asked)
            self.crash()

    def test_long_backoff(self) -> None:
        """Nobody is kept waiting for a long backoff; they are told when to come back."""
        self.crash_often(3)
        self.leased_later()
        self.crash()
        error = self.refused(self.ask(), BackendUnavailable)
        self.assertEqual(error.retry_after_s, 8.0)
        self.assertEqual(error.data["exitCode"], 1)

    def leased_later(self) -> None:
        """Get a lease after the backoff."""
        asked = self.ask()
        self.clock.advance(4.0)
        self.clock.advance(0)
        self.successResultOf(asked)

    def test_breaker(self) -> None:
        """After five crashes in a minute it is left alone for thirty seconds."""
        self.crash_often(3)
        self.leased_later()
        self.crash()
        self.clock.advance(8.0)
        self.leased()
        self.crash()
        error = self.refused(self.ask(), BackendUnavailable)
        self.assertEqual(error.retry_after_s, 30.0)
        self.clock.advance(30.0)
        self.leased()

    def test_operator_forgives(self) -> None:
        """Stopping it by hand lets it start anew at once."""
        self.crash_often(3)
        self.leased_later()
        self.crash()
        self.successResultOf(self.pool.stop(InstanceKey("toy", owner("a"))))
        self.leased()

    def test_operator_starts(self) -> None:
        """Who is to be started by hand need not wait for the end of a pause."""
        key = InstanceKey("toy", owner("a"))
        self.pool.forgive(key)  # Nobody knows of it yet.
        self.crash_often(3)
        self.leased_later()
        self.crash()
        self.refused(self.ask(), BackendUnavailable)
        self.pool.forgive(key)
        self.leased()

    def test_prestarted_restarts_itself(self) -> None:
        """What was started before anybody asked is started again unasked."""
        self.successResultOf(self.prestarted())
        self.crash()
        self.assertEqual(self.runtime.alive, [])
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertEqual(len(self.runtime.alive), 1)

    def prestarted(self) -> Deferred[None]:
        """Prestart one."""
        done = self.pool.prestart(SPEC, owner("a"), caller("a"))
        self.clock.advance(0)
        return done

    def test_short_of_memory(self) -> None:
        """While memory is short nothing is started; what runs serves on."""
        room = [True]
        self.pool = self.make(has_room=lambda: room[0])
        self.leased("a")
        room[0] = False
        self.failureResultOf(self.ask("b"), Overloaded)
        self.successResultOf(self.ask("a"))
        self.assertEqual(len(self.runtime.alive), 1)
        room[0] = True
        self.leased("b")

    def test_prestarted_gives_way(self) -> None:
        """When there is no room any more it tries again later."""
        self.pool = self.make(limits=Limits(max_running=1))
        self.successResultOf(self.prestarted())
        self.crash()
        other = self.leased("b")
        self.clock.advance(1.0)
        self.assertEqual([one.key.owner for one in self.runtime.alive], [owner("b")])
        other.release()
        self.clock.advance(10.0)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual([one.key.owner for one in self.runtime.alive], [owner("a")])

    def test_prestarted_and_stopped(self) -> None:
        """Stopped by hand it stays stopped."""
        self.successResultOf(self.prestarted())
        self.crash()
        self.pool.stop(InstanceKey("toy", owner("a")))
        self.clock.advance(100.0)
        self.assertEqual(self.runtime.alive, [])

    def test_prestarted_and_asked_for(self) -> None:
        """A call during the backoff does not lead to two starts."""
        self.successResultOf(self.prestarted())
        self.crash()
        self.clock.advance(0.5)
        self.ask()
        self.clock.advance(10.0)
        self.clock.advance(10.0)
        self.assertEqual(len(self.runtime.instances), 2)

    def test_upstream_that_does_not_close(self) -> None:
        """A bug in the upstream does not keep the instance from being restarted."""
        self.leased()
        self.upstreams[0].close = lambda error: 1 // 0  # type: ignore[method-assign, assignment]  # a bug
        self.crash()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.state(), [InstanceState.FAILED])


class CapTests(PoolTestCase):
    """When there is no room."""

    def test_idle_one_gives_way(self) -> None:
        """The longest unused idle copy is stopped, and only then the new one started."""
        self.pool = self.make(limits=Limits(max_running=2))
        self.runtime.behaviours["toy"] = Behaviour(stop_s=0.5)
        for who in "ab":
            self.leased(who).release()
            self.clock.advance(1.0)
        asked = self.ask("c")
        self.assertNoResult(asked)
        self.clock.advance(0.5)
        self.clock.advance(0)
        self.clock.advance(0)
        self.successResultOf(asked)
        self.assertEqual([one.key.owner for one in self.runtime.alive], [owner("b"), owner("c")])

    def test_overloaded(self) -> None:
        """When all are in use the caller is told to come back in some seconds."""
        self.pool = self.make(limits=Limits(max_running=1))
        self.leased("a")
        error = self.refused(self.ask("b"), Overloaded)
        self.assertEqual(error.retry_after_s, 10.0)
        self.assertEqual(len(self.pool.instances()), 1)

    def test_server_cap_and_memory(self) -> None:
        """A server's own cap and the memory budget hold alike."""
        self.pool = self.make(limits=Limits(memory_bytes=100))
        spec = replace(SPEC, max_instances=1, restraint=Restraint(memory_bytes=10))
        self.leased("a", spec)
        self.assertIn("copies", self.refused(self.ask("b", spec), Overloaded).detail)
        big = replace(SPEC, name="big", restraint=Restraint(memory_bytes=91))
        self.assertIn("memory", self.refused(self.ask("a", big), Overloaded).detail)

    def test_parallel_starts(self) -> None:
        """Four start at a time, the others after them."""
        self.runtime.behaviours["toy"] = Behaviour(start_s=1.0)
        asked = [self.ask(who) for who in "abcdefgh"]
        self.assertEqual(self.pool.queued, 4)
        self.assertEqual(self.pool.running, 8)
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertEqual([one.called for one in asked], [True] * 4 + [False] * 4)
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertTrue(all(one.called for one in asked))

    def test_too_many_waiting(self) -> None:
        """When too many wait for their start, more are sent away for a while."""
        self.pool = self.make(start_parallel=1, start_queue=1)
        self.runtime.behaviours["toy"] = Behaviour(start_s=1.0)
        for who in "ab":
            self.ask(who).addErrback(lambda failure: failure.trap(GateError))
        self.assertEqual(self.refused(self.ask("c"), RateLimited).retry_after_s, 10.0)


class IdleTests(PoolTestCase):
    """When nobody uses it."""

    def sweep_after(self, seconds: float) -> None:
        """Let time pass and sweep."""
        self.clock.advance(seconds)
        self.pool.sweep()
        self.clock.advance(0)
        self.clock.advance(0)

    def test_idle_stop(self) -> None:
        """Fifteen minutes after the last use it is stopped, not before."""
        lease = self.leased()
        self.clock.advance(500)
        lease.release()
        self.sweep_after(899)
        self.assertEqual(self.state(), [InstanceState.RUNNING])
        self.sweep_after(1)
        self.assertEqual(self.state(), [InstanceState.STOPPED])
        self.assertEqual(self.runtime.alive, [])

    def test_times_of_now(self) -> None:
        """A reload's times count for who is not called again, running or stopped."""
        now = SPEC
        self.pool = self.make(current=lambda _: now)
        self.leased().release()
        now = replace(SPEC, lifetime=replace(SPEC.lifetime, idle_stop_s=10.0))
        self.sweep_after(10)
        self.assertEqual(self.state(), [InstanceState.STOPPED])
        # What else has changed counts at the next start.
        now = replace(now, command=("new",), lifetime=replace(now.lifetime, remove_s=20.0))
        self.sweep_after(20)
        self.assertEqual(self.state(), [])

    def test_lease_keeps_it(self) -> None:
        """While a call is in work it is not idle, however quiet."""
        self.leased()
        self.sweep_after(5000)
        self.assertEqual(self.state(), [InstanceState.RUNNING])

    def test_touch(self) -> None:
        """Bytes going by on a passive stream count as use."""
        lease = self.leased()
        lease.make_passive(lambda: None)
        self.clock.advance(800)
        lease.touch()
        self.sweep_after(800)
        self.assertEqual(self.state(), [InstanceState.RUNNING])

    def test_passive_lease(self) -> None:
        """A stream nobody asks anything on does not keep it; its holder is told."""
        told: list[str] = []
        lease = self.leased()
        lease.make_passive(lambda: told.append("stopped"))
        lease.make_passive(lambda: told.append("twice"))
        self.assertEqual(self.pool.instances()[0].passive, 1)
        self.sweep_after(900)
        self.assertEqual((told, self.state()), (["stopped"], [InstanceState.STOPPED]))
        lease.release()
        self.assertEqual(self.pool.instances()[0].leases, 0)

    def test_passive_lease_given_back(self) -> None:
        """Who let go before is not told."""
        told: list[str] = []
        lease = self.leased()
        lease.make_passive(lambda: told.append("stopped"))
        lease.release()
        self.crash()
        self.assertEqual(told, [])

    def test_passive_too_late(self) -> None:
        """Who turns passive after it died is told on the next turn."""
        told: list[str] = []
        lease = self.leased()
        self.crash()
        lease.make_passive(lambda: told.append("stopped"))
        self.assertEqual(told, [])
        self.clock.advance(0)
        self.assertEqual(told, ["stopped"])

    def test_passive_holder_with_a_bug(self) -> None:
        """One stream's failure does not keep the others from being told."""
        told: list[str] = []
        self.leased().make_passive(lambda: told.append(str(1 // 0)))
        self.leased().make_passive(lambda: told.append("stopped"))
        self.crash()
        self.assertEqual(told, ["stopped"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def lent(self, told: list[object]) -> tuple[Loan, ILease]:
        """Lend a running copy."""
        self.leased().release()
        loan = Loan()
        lease = self.pool.lend(SPEC, owner("a"), loan, told.append)
        assert lease is not None
        return loan, lease

    def test_lent(self) -> None:
        """What others have in work keeps it running, and counts; that it is lent does not."""
        told: list[object] = []
        loan, lease = self.lent(told)
        loan.in_work = 2
        self.assertEqual(self.pool.instances()[0].leases, 2)
        self.sweep_after(1000)
        self.assertEqual(self.state(), [InstanceState.RUNNING])
        loan.in_work, loan.used_s = 0, self.clock.seconds()
        self.sweep_after(800)
        self.assertEqual(self.state(), [InstanceState.RUNNING])
        self.sweep_after(200)
        self.assertEqual(self.state(), [InstanceState.STOPPED])
        self.assertIsInstance(told[0], BackendUnavailable)
        lease.release()
        self.assertEqual((len(told), self.pool.instances()[0].leases), (1, 0))
        self.assertIsNone(self.pool.lend(SPEC, owner("b"), loan, told.append))

    def test_lent_and_given_back(self) -> None:
        """The last use of others is a use of the copy; who gave it back hears no more of it."""
        told: list[object] = []
        loan, lease = self.lent(told)
        self.clock.advance(600)
        loan.used_s = self.clock.seconds()
        lease.release()
        self.sweep_after(400)
        self.assertEqual(self.state(), [InstanceState.RUNNING])
        self.crash()
        self.assertEqual(told, [])

    def test_lent_to_one_with_a_bug(self) -> None:
        """One failure does not keep the others from being told."""
        told: list[object] = []
        self.leased().release()
        self.pool.lend(SPEC, owner("a"), Loan(), lambda _: 1 / 0)  # type: ignore[arg-type]  # a bug
        self.pool.lend(SPEC, owner("a"), Loan(), told.append)
        self.crash()
        self.assertIsInstance(told[0], BackendDied)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_removal(self) -> None:
        """A week after it was stopped, what is left is removed."""
        self.leased().release()
        self.sweep_after(900)
        self.sweep_after(7 * 86400)
        self.assertEqual(self.pool.instances(), [])
        self.assertEqual(self.runtime.removed, [InstanceKey("toy", owner("a"))])

    def test_forget(self) -> None:
        """What belongs to a session goes with it: running, failed or stopped."""
        self.leased("a")
        self.leased("b")
        self.pool.forget(owner("a"))
        for _ in range(4):
            self.clock.advance(0)
        self.assertEqual([r.key.owner for r in self.pool.instances()], [owner("b")])
        self.crash()
        self.pool.forget(owner("b"))
        for _ in range(4):
            self.clock.advance(0)
        self.assertEqual(self.pool.instances(), [])
        self.assertEqual(len(self.runtime.removed), 2)

    def test_too_much_memory(self) -> None:
        """A tree of processes over its memory is stopped, and that counts as a crash."""
        self.runtime.behaviours["toy"] = Behaviour(usage=Usage(memory_bytes=10**9))
        self.leased()
        self.sweep_after(60)
        (error,) = self.upstreams[0].closed
        self.assertEqual(error.data["exitReason"], "oom_killed")
        self.assertEqual(self.state(), [InstanceState.STOPPED])


class StopTests(PoolTestCase):
    """Stopping on purpose."""

    def test_stop(self) -> None:
        """Callers are told, then it is stopped; stopping nothing succeeds."""
        self.leased()
        stopped = self.pool.stop(InstanceKey("toy", owner("a")))
        self.assertEqual(len(self.upstreams[0].closed), 1)
        self.clock.advance(0)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.runtime.alive, [])
        self.successResultOf(self.pool.stop(InstanceKey("nothing", owner("a"))))

    def test_stop_all(self) -> None:
        """Everything stops, waiters are told, nothing starts any more, no timer stays."""
        self.leased("a")
        self.runtime.behaviours["toy"] = Behaviour(start_s=5.0)
        waiting = self.ask("b")
        done = self.pool.stop_all(10.0)
        for _ in range(4):
            self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(self.runtime.alive, [])
        self.refused(waiting, GateError)
        self.refused(self.ask("c"), Draining)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def adopted(self, **more: Any) -> MemoryInstance:
        """Have the pool take over a copy that runs."""
        self.pool = self.make(**more)
        launch = Launch(instance_id="before", key=InstanceKey("toy", owner("a")), values={})
        instance = self.successResultOf(self.runtime.start(SPEC, launch))
        self.pool.adopt(SPEC, instance)
        self.clock.advance(0)
        assert isinstance(instance, MemoryInstance)
        return instance

    def test_adopted(self) -> None:
        """A copy of an earlier life is leased as it is, by its old id, and dies like any other."""
        instance = self.adopted()
        (report,) = self.pool.instances()
        self.assertEqual((report.state, report.user, report.starts), (InstanceState.RUNNING, "", 0))
        lease = self.pool.ready(SPEC, owner("a"))
        assert lease is not None
        self.assertEqual(lease.instance.instance_id, "before")
        self.pool.adopt(SPEC, instance)
        instance.end(Exit(code=1))
        self.clock.advance(0)
        self.assertEqual([one.code for one in self.upstreams[0].closed], [-31003])
        self.clock.advance(60)
        self.assertNotEqual(self.leased("a").instance.instance_id, "before")
        (report,) = self.pool.instances()
        self.assertEqual((report.user, report.starts), ("a", 1))

    def test_adopted_idles(self) -> None:
        """Nobody comes back: it is stopped when it was idle for as long as any other."""
        self.adopted()
        self.clock.advance(899.0)
        self.pool.sweep()
        self.assertEqual(len(self.runtime.alive), 1)
        self.clock.advance(1.0)
        self.pool.sweep()
        self.clock.advance(0)
        self.assertEqual(self.runtime.alive, [])

    def test_left_running(self) -> None:
        """What outlives the gate is parted from, not stopped."""
        self.adopted(outlives=lambda spec: True)
        done = self.pool.stop_all(10.0)
        self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(len(self.runtime.alive), 1)
        self.assertIsInstance(self.upstreams[0].closed[0], Draining)

    def test_silent_engine_is_no_crash(self) -> None:
        """A server is not left alone because what starts it was silent (R45)."""
        self.runtime.behaviours["toy"] = Behaviour(refusal=RuntimeUnavailable())
        for _ in range(10):
            self.refused(self.ask("a"), RuntimeUnavailable)
        self.runtime.behaviours.clear()
        self.leased("a")

    def test_stop_all_deadline(self) -> None:
        """What does not stop in time is not waited for."""
        self.runtime.behaviours["toy"] = Behaviour(stop_s=1e6)
        spec = replace(SPEC, lifetime=Lifetime(stop_grace_s=100.0))
        self.leased("a", spec)
        done = self.pool.stop_all(10.0)
        self.clock.advance(10.0)
        self.successResultOf(done)

    def test_runtime_that_does_not_stop(self) -> None:
        """A runtime that fails or hangs while stopping costs the instance, not the pool."""
        self.leased("a")
        self.runtime.stop = lambda instance, grace_s: Deferred()  # type: ignore[method-assign]  # hangs
        self.pool.stop(InstanceKey("toy", owner("a")))
        self.clock.advance(8.0)
        self.assertEqual(self.state(), [InstanceState.STOPPED])
        self.leased("a")

        def stop(instance: IInstance, grace_s: float) -> Deferred[Exit]:
            failed: Deferred[Exit] = Deferred()
            failed.errback(Failure(ZeroDivisionError()))
            return failed

        self.runtime.stop = stop  # type: ignore[method-assign]  # breaks
        self.pool.stop(InstanceKey("toy", owner("a")))
        self.clock.advance(0)
        self.assertEqual(self.state(), [InstanceState.STOPPED])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_runtime_that_does_not_remove(self) -> None:
        """What can not be removed is logged; the pool forgets it all the same."""
        self.leased("a")

        def remove(key: InstanceKey) -> Deferred[None]:
            failed: Deferred[None] = Deferred()
            failed.errback(Failure(ZeroDivisionError()))
            return failed

        self.runtime.remove = remove  # type: ignore[method-assign]  # breaks
        self.pool.forget(owner("a"))
        for _ in range(4):
            self.clock.advance(0)
        self.assertEqual(self.pool.instances(), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_engine_that_is_gone(self) -> None:
        """That the engine does not answer is no fault of ours: it is told without a traceback."""
        for failing in ("stop", "remove"):
            self.leased("a")
            setattr(self.runtime, failing, lambda *_: fail(RuntimeUnavailable()))
            self.pool.stop(InstanceKey("toy", owner("a")))
            self.pool.forget(owner("a"))
            for _ in range(4):
                self.clock.advance(0)
            self.assertEqual(self.pool.instances(), [])
            self.assertEqual(self.flushLoggedErrors(), [])
            delattr(self.runtime, failing)


class ReportTests(PoolTestCase):
    """What people see."""

    def test_report(self) -> None:
        """State, times of day, uses, starts and the last exit."""
        self.leased()
        self.clock.advance(5)
        (report,) = self.pool.instances()
        self.assertEqual(
            (report.state, report.instance_id, report.leases, report.starts, report.error),
            (InstanceState.RUNNING, "id1", 1, 1, ""),
        )
        self.assertEqual(report.since_at, 1e9 + 1000.0)
        self.crash()
        (report,) = self.pool.instances()
        assert report.last_exit is not None
        self.assertEqual((report.last_exit.code, report.instance_id), (1, ""))
        self.assertIn("ended while", report.error)

    def test_logs(self) -> None:
        """Logs of what runs; nothing of what is unknown or was never started."""
        self.runtime.behaviours["toy"] = Behaviour(stderr=("hello",), start_s=1.0)
        key = InstanceKey("toy", owner("a"))
        self.assertEqual(self.pool.logs(key), [])
        self.ask()
        self.assertEqual(self.pool.logs(key), [])
        self.clock.advance(1.0)
        self.assertEqual(self.pool.logs(key), ["hello"])


class OperatorTests(PoolTestCase):
    """What an operator asks of the pool."""

    def test_follow(self) -> None:
        """A log is followed through the end of a copy and into the next."""
        key = InstanceKey("toy", owner("a"))
        self.assertEqual(self.pool.follow(key, "").ended, "not running")
        self.runtime.behaviours["toy"] = Behaviour(stderr=("one", "two"))
        self.successResultOf(self.ask()).release()
        told = self.pool.follow(key, "")
        self.assertEqual((told.lines, told.cursor, told.ended), (("one", "two"), "id1:2", ""))
        self.assertEqual(self.pool.follow(key, "id1:1").lines, ("two",))
        for odd in ("id0:1", "id1:x", "id1:" + "9" * 30):
            self.assertEqual(self.pool.follow(key, odd).lines, ("one", "two"), odd)
        self.runtime.instances[0].end(Exit(code=1, stderr_tail=("oh",)))
        self.clock.advance(0)
        told = self.pool.follow(key, "id1:2")
        self.assertEqual((told.lines, told.cursor, told.ended), (("oh",), "", "exited"))

    def test_callers(self) -> None:
        """Who had something started is known, once."""
        self.assertEqual(self.pool.callers(), [])
        for who in ("a", "b", "a"):
            self.successResultOf(self.ask(who)).release()
        self.assertEqual({one.principal.subject for one in self.pool.callers()}, {"a", "b"})
        self.clock.advance(5.0)
        self.successResultOf(self.ask("b")).release()
        self.assertEqual([one.principal.subject for one in self.pool.callers(4.0)], ["b"])

    def test_counted(self) -> None:
        """Starts, ends and processor time are counted by server; none is counted twice."""
        self.runtime.behaviours["toy"] = Behaviour(usage=Usage(cpu_s=2.0))
        self.successResultOf(self.ask()).release()
        for _ in range(2):
            self.pool.sweep()
            self.pool.instances()
        self.assertEqual((self.meters.starts["toy"], self.meters.cpu_s["toy"]), (1, 2.0))
        self.runtime.behaviours["toy"].usage = Usage(cpu_s=2.5)
        stopped = self.pool.stop(InstanceKey("toy", owner("a")))
        self.clock.advance(10)
        self.successResultOf(stopped)
        self.assertEqual(self.meters.cpu_s["toy"], 2.5)
        self.successResultOf(self.ask()).release()
        self.runtime.instances[-1].end(Exit(code=1))
        self.clock.advance(0)
        self.assertEqual(dict(self.meters.exits), {("toy", "stopped"): 1, ("toy", "exited"): 1})
