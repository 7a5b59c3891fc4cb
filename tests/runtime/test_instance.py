"""The life of one instance, by (state, input)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from automat import NoTransition
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BackendUnavailable, GateError, Internal
from mcpgate.model import Exit, InstanceKey, InstanceState, Isolation, Owner
from mcpgate.runtime.instance import (
    Core,
    Life,
    Outcome,
    Running,
    make_life,
    mermaid,
    transitions,
)
from mcpgate.runtime.remote import RemoteInstance

STOP = BackendUnavailable("stopped")


class RecordedWork:
    """Notes what it is asked to do; the test decides what comes of it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.starts: list[Deferred[Running]] = []
        self.halts: list[Deferred[Exit]] = []
        self.clears: list[Deferred[None]] = []

    def begin(self) -> Deferred[Running]:
        """See `Work.begin`."""
        self.done.append("begin")
        self.starts.append(Deferred())
        return self.starts[-1]

    def halt(self, running: Running, error: GateError) -> Deferred[Exit]:
        """See `Work.halt`."""
        self.done.append(f"halt: {error.detail}")
        self.halts.append(Deferred())
        return self.halts[-1]

    def lost(self, running: Running, outcome: Outcome) -> None:
        """See `Work.lost`."""
        self.done.append(f"lost: {outcome.error.reason}")

    def clear(self) -> Deferred[None]:
        """See `Work.clear`."""
        self.done.append("clear")
        self.clears.append(Deferred())
        return self.clears[-1]


class Stage:
    """One life with its work, led to any state."""

    def __init__(self) -> None:
        self.work = RecordedWork()
        self.clock = Clock()
        self.changes = 0
        self.core = Core(work=self.work, clock=self.clock, changed=self.changed)
        self.life: Life = make_life(self.core)
        self.copy = self.new_copy()

    def changed(self) -> None:
        """Count changes."""
        self.changes += 1

    def new_copy(self) -> Running:
        """Make a running copy."""
        key = InstanceKey("s", Owner(Isolation.SHARED))
        return Running(instance=RemoteInstance("i", key), upstream=object())

    @property
    def state(self) -> str:
        """The machine's own name for its state."""
        life: Any = self.life
        return str(life.__automat_transitioner__._state.name)

    def end_copy(self) -> None:
        """Have the copy die."""
        instance = self.copy.instance
        assert isinstance(instance, RemoteInstance)
        instance.end()

    def to(self, state: str) -> Stage:
        """Lead it to a state, in the usual way."""
        ways: dict[str, list[Callable[[], object]]] = {
            "Absent": [],
            "Starting": [self.life.start],
            "Running": [self.life.start, self.ready],
            "Stopping": [self.life.start, self.ready, self.stop],
            "Restarting": [self.life.start, self.ready, self.stop, self.life.start],
            "Stopped": [self.life.start, self.ready, self.stop, self.halted],
            "Failed": [self.life.start, self.fail],
            "Removing": [self.life.start, self.fail, self.life.remove],
            "Recreating": [self.life.start, self.fail, self.life.remove, self.life.start],
        }
        for step in ways[state]:
            step()
        self.work.done.clear()
        return self

    def ready(self) -> None:
        """Let the start succeed."""
        self.work.starts[-1].callback(self.copy)

    def fail(self) -> None:
        """Let the start fail."""
        self.work.starts[-1].errback(Failure(BackendUnavailable("no")))

    def stop(self) -> None:
        """Ask it to stop."""
        self.life.stop(STOP)

    def halted(self) -> None:
        """Let the stop succeed."""
        self.work.halts[-1].callback(Exit(reason="stopped"))

    def removed(self) -> None:
        """Let the removal succeed."""
        self.work.clears[-1].callback(None)


ASKED: dict[str, list[tuple[str, list[str]]]] = {
    # state: (after start, after stop, after remove), and what each has done
    "Absent": [("Starting", ["begin"]), ("Absent", []), ("Absent", [])],
    "Starting": [("Starting", []), ("Stopped", []), ("Starting", [])],
    "Running": [("Running", []), ("Stopping", ["halt: stopped"]), ("Running", [])],
    "Stopping": [("Restarting", []), ("Stopping", []), ("Stopping", [])],
    "Restarting": [("Restarting", []), ("Stopping", []), ("Restarting", [])],
    "Stopped": [("Starting", ["begin"]), ("Stopped", []), ("Removing", ["clear"])],
    "Failed": [("Starting", ["begin"]), ("Failed", []), ("Removing", ["clear"])],
    "Removing": [("Recreating", []), ("Removing", []), ("Removing", [])],
    "Recreating": [("Recreating", []), ("Recreating", []), ("Recreating", [])],
}

PUBLIC = {
    "Absent": InstanceState.ABSENT,
    "Starting": InstanceState.STARTING,
    "Running": InstanceState.RUNNING,
    "Stopping": InstanceState.STOPPING,
    "Restarting": InstanceState.STARTING,
    "Stopped": InstanceState.STOPPED,
    "Failed": InstanceState.FAILED,
    "Removing": InstanceState.STOPPING,
    "Recreating": InstanceState.STARTING,
}


class AskedTests(SynchronousTestCase):
    """Whatever the state, the pool may ask for anything."""

    def ask(self, number: int, how: Callable[[Stage], None]) -> None:
        """Ask it in every state."""
        for state, expected in ASKED.items():
            stage = Stage().to(state)
            how(stage)
            self.assertEqual((stage.state, stage.work.done), expected[number], state)

    def test_start(self) -> None:
        """Start begins once, and waits for what is ending."""
        self.ask(0, lambda stage: stage.life.start())

    def test_stop(self) -> None:
        """Stop halts what runs, gives up what starts, and is nothing to the others."""
        self.ask(1, lambda stage: stage.life.stop(STOP))

    def test_remove(self) -> None:
        """Remove clears up only what neither runs nor is under way."""
        self.ask(2, lambda stage: stage.life.remove())

    def test_public_states(self) -> None:
        """Each state has the name callers know."""
        for state, public in PUBLIC.items():
            stage = Stage().to(state)
            self.assertEqual((stage.state, stage.core.state), (state, public))
            self.assertEqual(stage.core.running is not None, state == "Running")


class OutcomeTests(SynchronousTestCase):
    """What comes of the work."""

    def test_crash(self) -> None:
        """A copy that dies by itself is a failure, and callers are told it died."""
        stage = Stage().to("Running")
        stage.end_copy()
        self.assertEqual((stage.state, stage.work.done), ("Failed", ["lost: backend_died"]))
        assert stage.core.outcome is not None
        self.assertIsInstance(stage.core.outcome.error, BackendDied)

    def test_death_while_stopping(self) -> None:
        """A copy that ends while it is being stopped is stopped, told once."""
        stage = Stage().to("Stopping")
        stage.end_copy()
        self.assertEqual(stage.state, "Stopped")
        stage.halted()
        self.assertEqual(stage.state, "Stopped")

    def test_restart(self) -> None:
        """What is wanted while it stops starts when it has stopped."""
        stage = Stage().to("Restarting")
        stage.halted()
        self.assertEqual((stage.state, stage.work.done), ("Starting", ["begin"]))

    def test_old_end_does_not_hurt_the_new_copy(self) -> None:
        """The late end of a stopped copy does not concern the one that starts now."""
        stage = Stage().to("Restarting")
        stage.halted()
        stage.end_copy()
        self.assertEqual(stage.state, "Starting")

    def test_recreate(self) -> None:
        """What is wanted while it is removed starts afterwards."""
        stage = Stage().to("Recreating")
        stage.removed()
        self.assertEqual((stage.state, stage.work.done), ("Starting", ["begin"]))

    def test_removed(self) -> None:
        """When everything is removed it is as if it had never been."""
        stage = Stage().to("Removing")
        stage.removed()
        self.assertEqual((stage.state, stage.core.state), ("Absent", InstanceState.ABSENT))

    def test_ready_too_late(self) -> None:
        """A start that succeeds after it was given up is stopped again."""
        stage = Stage()
        unstoppable: Deferred[Running] = Deferred(lambda d: d.callback(stage.copy))
        stage.work.begin = lambda: unstoppable  # type: ignore[method-assign]  # a stubborn start
        stage.life.start()
        stage.life.stop(STOP)
        self.assertEqual((stage.state, stage.work.done), ("Stopping", ["halt: stopped"]))
        stage.halted()
        self.assertEqual(stage.state, "Stopped")

    def test_ready_too_late_and_wanted_again(self) -> None:
        """The same, when it is wanted again meanwhile: one copy at a time."""
        stage = Stage()
        deaf: Deferred[Running] = Deferred(lambda d: None)
        deaf.cancel = lambda: None  # type: ignore[method-assign]  # it does not even fail
        stage.work.begin = lambda: deaf  # type: ignore[method-assign]  # a stubborn start
        stage.life.start()
        stage.life.stop(STOP)
        stage.life.start()
        self.assertEqual(stage.state, "Restarting")
        deaf.callback(stage.copy)
        self.assertEqual(stage.state, "Restarting")
        self.assertEqual(stage.work.done, ["halt: The server is being restarted."])

    def test_failed_at_once(self) -> None:
        """A start that fails inside the transition is a failure like any other."""
        stage = Stage()

        def begin() -> Deferred[Running]:
            failed: Deferred[Running] = Deferred()
            failed.errback(Failure(BackendUnavailable("at once")))
            return failed

        stage.work.begin = begin  # type: ignore[method-assign]  # a quick one
        stage.life.start()
        self.assertEqual(stage.state, "Failed")

    def test_unforeseen_failure(self) -> None:
        """A bug in a start is logged, and callers are told no more than that there is one."""
        stage = Stage().to("Starting")
        stage.work.starts[-1].errback(Failure(ZeroDivisionError("a bug")))
        assert stage.core.outcome is not None
        self.assertIsInstance(stage.core.outcome.error, Internal)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_impossible(self) -> None:
        """What can not come is an error, not a surprise later."""
        stage = Stage()
        with self.assertRaises(NoTransition):
            stage.life._removed()

    def test_broken_work_is_logged(self) -> None:
        """Work that breaks its promise never to fail is logged."""
        stage = Stage().to("Stopping")
        stage.work.halts[-1].errback(Failure(ZeroDivisionError("a bug")))
        stage = Stage().to("Removing")
        stage.work.clears[-1].errback(Failure(ZeroDivisionError("a bug")))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_since(self) -> None:
        """The core knows since when it is in its state, and how often it started."""
        stage = Stage().to("Running")
        stage.clock.advance(5)
        stage.stop()
        self.assertEqual((stage.core.since, stage.core.starts), (5, 1))
        self.assertGreaterEqual(stage.changes, 3)


class DiagramTests(SynchronousTestCase):
    """The machine can be drawn."""

    def test_mermaid(self) -> None:
        """The drawing names every state, and leaves out what changes nothing."""
        drawn = mermaid()
        for state in PUBLIC:
            self.assertIn(state, drawn)
        self.assertIn("Running --> Failed: broke", drawn)
        self.assertNotIn("Running --> Running", drawn)

    def test_every_state_takes_every_question(self) -> None:
        """No state is without an answer to start, stop or remove."""
        known = {(old, name) for old, name, _ in transitions()}
        missing = {(s, i) for s in PUBLIC for i in ("start", "stop", "remove")} - known
        self.assertEqual(missing, set())
