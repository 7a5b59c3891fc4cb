"""
The life of one instance, as a typed Automat machine.

It decides what may follow what.  What is done is `IWork`'s business (the pool's record), who
waits is the pool's.  The machine never fires anybody's Deferred: it says `Core.changed`, and the
pool looks on the next turn.

`mermaid` draws it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import BackendDied, BackendUnavailable, GateError, Internal
from mcpgate.interfaces import IInstance
from mcpgate.model import Exit, InstanceState

log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running copy and the upstream that speaks to it."""

    instance: IInstance
    upstream: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    How a start failed or an instance ended.

    :ivar error: what callers are told.
    :ivar exit: None when nothing ran.
    """

    error: GateError
    exit: Exit | None = None


class Work(Protocol):
    """What the machine has done for it."""

    def begin(self) -> Deferred[Running]:
        """Start a copy and wait until it is ready.  Cancelling stops what was begun."""

    def halt(self, running: Running, error: GateError) -> Deferred[Exit]:
        """Tell callers ``error`` and stop it.  Fires in any case, in bounded time."""

    def lost(self, running: Running, outcome: Outcome) -> None:
        """Tell callers that it is gone: nobody stopped it."""

    def clear(self) -> Deferred[None]:
        """Remove what a stopped copy left.  Fires in any case, in bounded time."""


class Life(Protocol):
    """The inputs.  The first four are the pool's, the others come of the work."""

    def start(self) -> None:
        """Somebody wants it to run."""

    def stop(self, error: GateError) -> None:
        """It shall not run; who uses it is told ``error``."""

    def remove(self) -> None:
        """Nobody needs what is left of it, if it does not run."""

    def adopt(self, copy: Running) -> None:
        """It runs: an earlier life of this gate started it, or it was nobody's until now."""

    def give(self) -> None:
        """What runs is somebody else's from now on: no word about it any more."""

    def _started(self, copy: Running) -> None:
        """It is ready."""

    def _broke(self, outcome: Outcome) -> None:
        """The start failed or was given up; or the copy has ended."""

    def _removed(self) -> None:
        """Nothing is left of it."""


@dataclass(kw_only=True)
class Core:
    """
    What the machine remembers.

    :ivar changed: called, inside the transition, after the state changed.
    :ivar since: clock reading when the state was entered.
    :ivar running: while it runs.
    :ivar outcome: the last one.
    :ivar starts: how often it was started.
    """

    work: Work
    clock: IReactorTime
    changed: Callable[[], None]
    state: InstanceState = InstanceState.ABSENT
    since: float = 0.0
    running: Running | None = None
    outcome: Outcome | None = None
    starts: int = 0
    reported: bool = False

    def enter(self, state: InstanceState) -> None:
        """Note the state for all who ask."""
        self.state = state
        self.since = self.clock.seconds()
        if state is not InstanceState.RUNNING:
            self.running = None
        self.changed()


def outcome_of(failure: Failure) -> Outcome:
    """Put a failed start into a form callers may see."""
    if isinstance(failure.value, GateError):
        return Outcome(error=failure.value)
    if failure.check(CancelledError):
        return Outcome(error=BackendUnavailable("The server was stopped while it was starting."))
    log.failure("A start failed in an unforeseen way", failure)
    return Outcome(error=Internal())


def died(exit: Exit) -> Outcome:
    """Put an end into a form callers may see; stderr is for those who own the instance."""
    return Outcome(
        error=BackendDied(
            data={"exitCode": exit.code, "signal": exit.signal, "exitReason": exit.reason}
        ),
        exit=exit,
    )


def _build() -> TypeMachineBuilder[Life, Core]:  # noqa: PLR0915  # one table, in one place
    builder = TypeMachineBuilder(Life, Core)

    def report(life: Life, core: Core) -> Callable[[Outcome], None]:
        """Make the one voice of this start: it says once that it is over, then never again."""
        start = core.starts

        def broke(outcome: Outcome) -> None:
            if core.starts == start and not core.reported:
                core.reported = True
                life._broke(outcome)

        return broke

    def watch(life: Life, core: Core, running: Running) -> None:
        broke = report(life, core)
        running.instance.when_ended().addCallback(lambda how: broke(died(how))).addErrback(
            lambda failure: log.failure("The end of an instance went wrong", failure)
        )

    def halt(life: Life, core: Core, running: Running, error: GateError) -> None:
        broke = report(life, core)
        core.work.halt(running, error).addCallback(lambda how: broke(died(how))).addErrback(
            lambda failure: log.failure("Stopping an instance went wrong", failure)
        )

    # --- States: a copy is under way or there in those that carry something -------------------

    def attempt(life: Life, core: Core, outcome: Outcome | None = None) -> Deferred[None]:
        core.starts += 1
        core.reported = False
        core.enter(InstanceState.STARTING)
        broke = report(life, core)
        return (
            core.work.begin()
            .addCallbacks(life._started, lambda failure: broke(outcome_of(failure)))
            .addErrback(lambda failure: log.failure("A start went wrong", failure))
        )

    def run(life: Life, core: Core, copy: Running) -> Running:
        core.enter(InstanceState.RUNNING)
        core.running = copy
        return copy

    def stopping(life: Life, core: Core, error: GateError) -> GateError:
        core.enter(InstanceState.STOPPING)
        return error

    def again(life: Life, core: Core) -> None:
        core.enter(InstanceState.STARTING)  # As callers see it.

    def stopped(life: Life, core: Core, outcome: Outcome) -> None:
        core.outcome = outcome
        core.enter(InstanceState.STOPPED)

    def failed(life: Life, core: Core, outcome: Outcome) -> None:
        core.outcome = outcome
        core.enter(InstanceState.FAILED)

    def removing(life: Life, core: Core) -> None:
        core.enter(InstanceState.STOPPING)
        core.work.clear().addCallback(lambda _: life._removed()).addErrback(
            lambda failure: log.failure("Removing an instance went wrong", failure)
        )

    absent = builder.state("Absent")
    starting = builder.state("Starting", attempt)
    running = builder.state("Running", run)
    stopping_ = builder.state("Stopping", stopping)
    restarting = builder.state("Restarting", again)
    stopped_ = builder.state("Stopped", stopped)
    failed_ = builder.state("Failed", failed)
    removing_ = builder.state("Removing", removing)
    recreating = builder.state("Recreating", again)

    # --- What the pool asks -------------------------------------------------------------------

    absent.upon(Life.start).to(starting).returns(None)
    absent.upon(Life.stop).loop().returns(None)
    absent.upon(Life.remove).loop().returns(None)

    starting.upon(Life.start).loop().returns(None)
    starting.upon(Life.remove).loop().returns(None)

    @running.upon(Life.give).to(absent)
    def given(life: Life, core: Core, copy: Running) -> None:
        core.reported = True
        core.enter(InstanceState.ABSENT)

    running.upon(Life.start).loop().returns(None)
    running.upon(Life.remove).loop().returns(None)

    stopping_.upon(Life.start, nodata=True).to(restarting).returns(None)
    stopping_.upon(Life.stop).loop().returns(None)
    stopping_.upon(Life.remove).loop().returns(None)

    restarting.upon(Life.start).loop().returns(None)
    restarting.upon(Life.stop, nodata=True).to(stopping_).returns(None)
    restarting.upon(Life.remove).loop().returns(None)

    stopped_.upon(Life.start, nodata=True).to(starting).returns(None)
    stopped_.upon(Life.stop).loop().returns(None)
    stopped_.upon(Life.remove, nodata=True).to(removing_).returns(None)

    failed_.upon(Life.start, nodata=True).to(starting).returns(None)
    failed_.upon(Life.stop).loop().returns(None)
    failed_.upon(Life.remove, nodata=True).to(removing_).returns(None)

    removing_.upon(Life.start, nodata=True).to(recreating).returns(None)
    removing_.upon(Life.stop).loop().returns(None)
    removing_.upon(Life.remove).loop().returns(None)

    recreating.upon(Life.start).loop().returns(None)
    recreating.upon(Life.stop).loop().returns(None)
    recreating.upon(Life.remove).loop().returns(None)

    # --- What comes of the work ---------------------------------------------------------------

    starting.upon(Life._broke, nodata=True).to(failed_).returns(None)
    stopping_.upon(Life._broke, nodata=True).to(stopped_).returns(None)
    restarting.upon(Life._broke, nodata=True).to(starting).returns(None)
    recreating.upon(Life._removed, nodata=True).to(starting).returns(None)

    @absent.upon(Life.adopt).to(running)
    def found(life: Life, core: Core, copy: Running) -> None:
        watch(life, core, copy)

    @stopped_.upon(Life.adopt).to(running)
    def handed(life: Life, core: Core, _: object, copy: Running) -> None:
        core.starts += 1  # What is still said of the copy before is not of this one.
        core.reported = False
        watch(life, core, copy)

    @starting.upon(Life._started).to(running)
    def ready(life: Life, core: Core, _: Deferred[None], copy: Running) -> None:
        watch(life, core, copy)

    @removing_.upon(Life._removed).to(absent)
    def gone(life: Life, core: Core, _: object) -> None:
        core.enter(InstanceState.ABSENT)

    @starting.upon(Life.stop).to(stopping_)
    def give_up(life: Life, core: Core, trying: Deferred[None], error: GateError) -> None:
        trying.cancel()

    @stopping_.upon(Life._started).loop()
    def too_late(life: Life, core: Core, error: GateError, copy: Running) -> None:
        # The start was over when it was given up.
        halt(life, core, copy, error)

    @restarting.upon(Life._started, nodata=True).loop()
    def too_late_again(life: Life, core: Core, copy: Running) -> None:
        halt(life, core, copy, BackendUnavailable("The server is being restarted."))

    @running.upon(Life.stop).to(stopping_)
    def end(life: Life, core: Core, copy: Running, error: GateError) -> None:
        halt(life, core, copy, error)

    @running.upon(Life._broke).to(failed_)
    def crash(life: Life, core: Core, copy: Running, outcome: Outcome) -> None:
        core.work.lost(copy, outcome)

    return builder


_BUILDER = _build()
make_life: Callable[[Core], Life] = _BUILDER.build()


def transitions() -> list[tuple[str, str, str]]:
    """Give every (state, input, next state), sorted."""
    return sorted(
        (old.name, name, new.name) for old, name, new, _ in _BUILDER._automaton.allTransitions()
    )


def mermaid() -> str:
    """Draw the machine as a Mermaid state diagram; inputs that change nothing are left out."""
    lines = ["stateDiagram-v2", "    [*] --> Absent"]
    lines += [
        f"    {old} --> {new}: {name.lstrip('_')}" for old, name, new in transitions() if old != new
    ]
    return "\n".join(lines) + "\n"
