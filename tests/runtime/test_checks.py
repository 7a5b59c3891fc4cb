"""The pool asks what runs how it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from mcpgate.errors import BackendDied, BackendUnavailable
from mcpgate.interfaces import IInstance, ILease, IUpstream
from mcpgate.model import InstanceState, Lifetime, ServerSpec, Transport, Usage
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.pool import InstancePool, Report
from mcpgate.timing.wheel import DeadlineWheel
from tests.runtime.test_pool import SPEC, FakeUpstream, Loan, PoolTestCase, caller, owner

LIFE = Lifetime(
    stop_grace_s=1.0,
    idle_stop_s=1000.0,
    health_interval_s=10.0,
    health_timeout_s=2.0,
    health_failures=3,
)
CHECKED = replace(SPEC, lifetime=LIFE, call_timeout_s=60.0, call_timeout_max_s=600.0)
ELSEWHERE = replace(
    CHECKED, command=(), transport=Transport.HTTP, runtime=REMOTE, url="http://srv/mcp"
)


class ChecksTestCase(PoolTestCase):
    """A pool whose servers answer, or do not."""

    @override
    def setUp(self) -> None:
        self.answering = True
        self.current: ServerSpec = CHECKED
        super().setUp()

    @override
    def make(self, **more: Any) -> InstancePool:
        self.wheel = DeadlineWheel(self.clock, 0.5)
        return super().make(wheel=self.wheel, current=lambda spec: self.current, **more)

    @override
    def connect(self, spec: ServerSpec, instance: IInstance) -> IUpstream:
        case = self

        class Answering(FakeUpstream):
            def ask_alive(self, timeout_s: float) -> bool:
                owes = super().ask_alive(timeout_s)
                if case.answering and owes:
                    case.clock.callLater(0.1, self.hear)
                return owes

            def hear(self) -> None:
                self.heard_s = case.clock.seconds()

        upstream = Answering(instance)
        upstream.heard_s = self.clock.seconds()
        self.upstreams.append(upstream)
        return upstream

    def start(self, spec: ServerSpec = CHECKED) -> ILease:
        """Have one run."""
        self.current = spec
        return self.successResultOf(self.ask(spec=spec))

    def run_on(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([0.5] * int(seconds * 2))

    def report(self) -> Report:
        """Tell of the only instance."""
        (report,) = self.pool.instances()
        return report


class AskingTests(ChecksTestCase):
    """When it is asked."""

    def test_silent_one_is_asked(self) -> None:
        """It is asked about once an interval, and stays what it was."""
        self.start().release()
        self.run_on(100)
        self.assertIn(len(self.upstreams[0].asked), range(7, 11))
        self.assertEqual(set(self.upstreams[0].asked), {2.0})
        self.assertFalse(self.report().unresponsive)
        self.assertEqual(self.meters.events["health_missed"], 0)
        heard_at = self.report().heard_at
        assert heard_at is not None
        self.assertLess(1e9 + self.clock.seconds() - heard_at, 13.0)

    def test_whoever_speaks_is_not_asked(self) -> None:
        """Where messages come nothing is asked."""
        self.start().release()
        for _ in range(40):
            self.run_on(5)
            self.upstreams[0].heard_s = self.clock.seconds()
        self.assertEqual(self.upstreams[0].asked, [])

    def test_whoever_speaks_to_others_is_not_asked(self) -> None:
        """What others hear of it counts as well."""
        self.start().release()
        loan = Loan()
        self.pool.lend(CHECKED, self.report().key.owner, loan, lambda _: None)
        for _ in range(40):
            self.run_on(5)
            loan.heard_s = self.clock.seconds()
        self.assertEqual(self.upstreams[0].asked, [])

    def test_being_asked_is_no_use(self) -> None:
        """Questions do not keep it from being stopped when nobody uses it."""
        self.start().release()
        self.run_on(1001)
        self.pool.sweep()
        self.run_on(2)
        self.assertIs(self.report().state, InstanceState.STOPPED)
        asked = len(self.upstreams[0].asked)
        self.run_on(100)
        self.assertEqual(len(self.upstreams[0].asked), asked)
        self.assertEqual(len(self.upstreams), 1)
        self.assertIsNone(self.report().heard_at)

    def test_spread(self) -> None:
        """Copies that started together are not asked together."""
        luck = iter([0.1, 0.9] * 50)
        self.pool._checks.luck = lambda: next(luck)  # type: ignore[union-attr]  # it has them
        for who in "ab":
            self.successResultOf(self.ask(who, CHECKED)).release()
        first, second = self.upstreams
        self.run_on(12.5)
        self.assertEqual((len(first.asked), len(second.asked)), (1, 0))
        self.run_on(8)
        self.assertEqual((len(first.asked), len(second.asked)), (1, 1))

    def test_nothing_to_ask(self) -> None:
        """What can not be asked without harm is not judged."""
        self.start().release()
        self.upstreams[0].owes = self.answering = False
        self.run_on(200)
        self.assertFalse(self.report().unresponsive)
        self.assertIs(self.report().state, InstanceState.RUNNING)

    def test_refused_connections(self) -> None:
        """One that refuses connections is not shown as running, before anybody asks it."""
        self.start().release()
        self.upstreams[0].unreachable = True
        self.assertTrue(self.report().unresponsive)
        self.upstreams[0].unreachable = False
        self.assertFalse(self.report().unresponsive)

    def test_off_and_on(self) -> None:
        """With an interval of 0 nothing is asked; a reload turns it on for what runs."""
        off = replace(CHECKED, lifetime=replace(LIFE, health_interval_s=0.0))
        self.start(off).release()
        self.run_on(300)
        self.assertEqual(self.upstreams[0].asked, [])
        self.current = CHECKED
        self.run_on(90)
        self.assertNotEqual(self.upstreams[0].asked, [])

    def test_question_that_fails(self) -> None:
        """A question that trips over something of ours is nobody's death."""
        self.start().release()

        def trip(timeout_s: float) -> bool:
            raise RuntimeError("boom")

        self.upstreams[0].ask_alive = trip  # type: ignore[method-assign]  # for this test
        self.run_on(25)
        self.assertGreaterEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(self.report().unresponsive)

    def test_many(self) -> None:
        """Ten thousand idle copies cost a look each interval, and no more."""
        for n in range(200):
            name = f"{n:03}"
            self.pool.lease(CHECKED, owner(name), caller(name))
        self.run_on(60)
        self.assertEqual(len(self.upstreams), 200)
        asked = sum(len(upstream.asked) for upstream in self.upstreams)
        self.assertLess(asked, 200 * 6)


class SilenceTests(ChecksTestCase):
    """What becomes of one that does not answer."""

    @override
    def setUp(self) -> None:
        super().setUp()
        self.lease = self.start()
        self.answering = False

    def test_unresponsive(self) -> None:
        """A missed question shows at once; any message after it, too."""
        self.lease.release()
        self.run_on(19)
        self.assertTrue(self.report().unresponsive)
        self.assertIs(self.report().state, InstanceState.RUNNING)
        self.assertEqual(self.meters.events["health_missed"], 1)
        self.upstreams[0].heard_s = self.clock.seconds()
        self.assertFalse(self.report().unresponsive)
        self.answering = True
        self.run_on(60)
        self.assertEqual(self.meters.events["health_missed"], 1)
        self.assertEqual(self.meters.events["health_replaced"], 0)

    def test_replaced(self) -> None:
        """After so many questions in vain it is stopped, and the next call starts another."""
        self.lease.release()
        self.run_on(50)
        self.assertEqual(self.meters.events["health_missed"], 3)
        self.assertEqual(self.meters.events["health_replaced"], 1)
        (error,) = self.upstreams[0].closed
        self.assertIsInstance(error, BackendDied)
        self.assertEqual(error.data["exitReason"], "unresponsive")
        self.assertIs(self.report().state, InstanceState.STOPPED)
        self.assertFalse(self.report().unresponsive)
        self.start()
        self.assertEqual(len(self.upstreams), 2)
        self.assertIs(self.report().state, InstanceState.RUNNING)

    def test_counts_as_a_crash(self) -> None:
        """One that hangs again and again is started again later and later."""
        self.lease.release()
        self.run_on(50)
        for _ in range(2):
            again = self.ask(spec=CHECKED)
            self.run_on(3)
            self.successResultOf(again).release()
            self.run_on(50)
        self.assertEqual(self.meters.events["health_replaced"], 3)
        (record,) = self.pool._records.values()
        self.assertEqual(record.crashes.in_a_row, 3)

    def test_call_in_work(self) -> None:
        """With a call in work it is not stopped before a call's time is over."""
        self.run_on(60)
        self.assertTrue(self.report().unresponsive)
        self.assertEqual(self.meters.events["health_replaced"], 0)
        self.run_on(30)
        self.assertEqual(self.meters.events["health_replaced"], 1)

    def test_calls_that_keep_coming(self) -> None:
        """Calls begun when it was silent already wait behind that, and keep nothing alive."""
        self.run_on(30)
        for _ in range(12):
            self.pool.lease(CHECKED, owner("a"), caller("a"))
            self.run_on(5)
        self.assertEqual(self.meters.events["health_replaced"], 1)

    def test_busy_call(self) -> None:
        """A call that uses the processor is left alone as long as the longest call may take."""
        (instance,) = self.runtime.instances
        for n in range(57):
            instance.behaviour.usage = Usage(cpu_s=float(10 * n))
            self.run_on(10)
        self.assertTrue(self.report().unresponsive)
        self.assertEqual(self.meters.events["health_replaced"], 0)
        self.upstreams[0].heard_s = self.clock.seconds()
        self.answering = True
        self.run_on(30)
        self.assertFalse(self.report().unresponsive)

    def test_gate_without_a_turn(self) -> None:
        """An answer that waited while the gate itself had no turn counts."""
        self.lease.release()
        while not self.upstreams[0].asked:
            self.clock.advance(0.5)
        (record,) = self.pool._records.values()
        assert record.check is not None
        # In one long turn the deadline comes first, then the answer is read.
        record.check._late()
        self.upstreams[0].heard_s = self.clock.seconds()
        self.clock.advance(0)
        self.assertEqual(self.meters.events["health_missed"], 0)

    def test_gate_that_stood_still(self) -> None:
        """What was not heard while the whole gate, or the machine, stood still is no silence."""
        self.lease.release()
        while not self.upstreams[0].asked:
            self.clock.advance(0.5)
        self.clock.advance(100.0)
        self.assertEqual(self.meters.events["health_missed"], 0)
        self.answering = True
        self.run_on(30)
        self.assertGreater(len(self.upstreams[0].asked), 1)
        self.clock.advance(500.0)
        asked = len(self.upstreams[0].asked)
        self.run_on(4.5)
        self.assertEqual(len(self.upstreams[0].asked), asked, "all would be asked at once")
        self.run_on(5)
        self.assertEqual(len(self.upstreams[0].asked), asked + 1)
        self.assertEqual(self.meters.events["health_missed"], 0)

    def test_stopped_at_that_moment(self) -> None:
        """One that is stopped when it would be judged is not judged."""
        self.lease.release()
        while not self.upstreams[0].asked:
            self.clock.advance(0.5)
        (record,) = self.pool._records.values()
        check = record.check
        assert check is not None and self.pool._checks is not None
        self.pool._checks.attend(record)
        self.assertIs(record.check, check)
        assert check._deadline is not None
        check._deadline.cancel()
        check._late()
        check.cancel()
        check.cancel()
        self.run_on(60)
        self.assertEqual(self.meters.events["health_missed"], 0)

    def test_wanted_one_comes_back(self) -> None:
        """What is to run always is started again without being asked."""
        self.lease.release()
        self.pool.prestart(CHECKED, owner("a"), caller("a"))
        self.run_on(50)
        self.assertEqual(self.meters.events["health_replaced"], 1)
        self.answering = True
        self.run_on(40)
        self.assertEqual(len(self.upstreams), 2)
        self.assertIs(self.report().state, InstanceState.RUNNING)
        self.assertFalse(self.report().unresponsive)

    def test_stopped_by_an_operator(self) -> None:
        """What was stopped meanwhile is asked no more."""
        self.lease.release()
        self.run_on(20)
        key = self.report().key
        self.pool.stop(key)
        asked = len(self.upstreams[0].asked)
        self.run_on(60)
        self.assertEqual(len(self.upstreams[0].asked), asked)
        self.assertEqual(self.meters.events["health_replaced"], 0)

    def test_turned_off(self) -> None:
        """Turned off meanwhile, nothing is held against it."""
        self.lease.release()
        self.run_on(20)
        self.current = replace(CHECKED, lifetime=replace(LIFE, health_interval_s=0.0))
        self.run_on(100)
        self.assertFalse(self.report().unresponsive)
        self.assertEqual(self.meters.events["health_replaced"], 0)


class RemoteTests(ChecksTestCase):
    """Servers elsewhere are not the gate's to stop."""

    @override
    def setUp(self) -> None:
        super().setUp()
        self.start(ELSEWHERE).release()
        self.recalled: list[object] = []
        self.pool.lend(ELSEWHERE, self.report().key.owner, Loan(), self.recalled.append)
        self.answering = False
        self.run_on(60)

    def test_left_alone(self) -> None:
        """One that does not answer is left alone: callers are told so at once."""
        self.assertEqual(self.meters.events["health_replaced"], 0)
        self.assertEqual(self.meters.events["health_shut"], 1)
        # Others begin nothing more with it; what they have in work goes on.
        self.assertEqual(self.recalled, [None])
        self.assertEqual(self.upstreams[0].closed, [])
        self.assertTrue(self.report().unresponsive)
        self.assertIs(self.report().state, InstanceState.RUNNING)
        self.run_on(30)
        self.successResultOf(self.ask(spec=ELSEWHERE)).release()
        self.assertIsNone(self.pool.ready(ELSEWHERE, owner("a")))
        error = self.failureResultOf(self.ask(spec=ELSEWHERE), BackendUnavailable).value
        assert error.retry_after_s is not None
        self.assertGreater(error.retry_after_s, 20.0)
        self.assertIn("does not answer", error.detail)

    def test_one_caller_tries(self) -> None:
        """Now and then one call is let through; its answer lets all others in again."""
        self.run_on(30)
        trying = self.successResultOf(self.ask(spec=ELSEWHERE))
        self.assertIsNone(self.pool.ready(ELSEWHERE, owner("a")))
        self.upstreams[0].heard_s = self.clock.seconds() + 0.1
        self.clock.advance(0.1)
        trying.release()
        other = self.pool.ready(ELSEWHERE, owner("a"))
        assert other is not None
        other.release()
        self.assertFalse(self.report().unresponsive)

    def test_answers_again(self) -> None:
        """The next question that is answered lets everybody in."""
        self.answering = True
        self.run_on(15)
        self.successResultOf(self.ask(spec=ELSEWHERE)).release()
        self.successResultOf(self.ask(spec=ELSEWHERE)).release()

    def test_changed_entry(self) -> None:
        """Another URL is another server."""
        other = replace(ELSEWHERE, url="http://other/mcp")
        self.current = other
        waiting: Deferred[ILease] = self.ask(spec=other)
        self.run_on(35)
        self.successResultOf(waiting).release()
        self.assertEqual(len(self.upstreams), 2)
