"""
What the pool knows of one (server, owner): its life, its users, its crashes.

Bookkeeping only: no decision about other instances is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import GateError, RuntimeUnavailable, Starting
from mcpgate.interfaces import IInstance, ILease, ILoan
from mcpgate.model import Caller, Exit, InstanceKey, InstanceState, Isolation, ServerSpec, Usage
from mcpgate.runtime.attempt import REMOTE, Order, Starter, exit_data
from mcpgate.runtime.checks import Check
from mcpgate.runtime.crashes import Crashes
from mcpgate.runtime.instance import Core, Outcome, Running, make_life
from mcpgate.runtime.plan import Seen
from mcpgate.telemetry.meters import Meters

log = Logger()

RETRY_STARTING_S: Final = 3.0

OVER: Final = frozenset({InstanceState.ABSENT, InstanceState.STOPPED, InstanceState.FAILED})


@implementer(ILease)
class Lease:
    """See `ILease`."""

    __slots__ = ("_recalled", "_record", "_state", "_stopped", "instance", "upstream")

    _LENT: Final = 3
    _ACTIVE: Final = 2
    _PASSIVE: Final = 1
    _GONE: Final = 0

    def __init__(self, record: Record, running: Running) -> None:
        self.instance: IInstance = running.instance
        self.upstream: Any = running.upstream
        self._record = record
        self._state = self._ACTIVE
        self._stopped: Callable[[], None] | None = None
        self._recalled: Callable[[GateError | None], None] | None = None
        record.held += 1
        record.last_use = record.clock.seconds()

    def touch(self) -> None:
        """See `ILease.touch`."""
        self._record.last_use = self._record.clock.seconds()

    def make_passive(self, stopped: Callable[[], None]) -> None:
        """See `ILease.make_passive`."""
        if self._state != self._ACTIVE:
            return
        self._state = self._PASSIVE
        record = self._record
        record.held -= 1
        record.last_use = record.clock.seconds()
        running = record.core.running
        if running is None or running.instance is not self.instance:
            record.clock.callLater(0, stopped)
            return
        self._stopped = stopped
        record.passive[self] = None

    def lend(self, use: ILoan, recalled: Callable[[GateError | None], None]) -> None:
        """See `InstancePool.lend`."""
        if self._state == self._ACTIVE:
            self._state = self._LENT
            self._recalled = recalled
            self._record.held -= 1
            self._record.lent[self] = use

    def release(self) -> None:
        """See `ILease.release`."""
        record = self._record
        if self._state == self._ACTIVE:
            record.held -= 1
            record.last_use = record.clock.seconds()
        elif self._state == self._LENT:
            loan = record.lent.pop(self, None)
            if loan is not None:
                record.last_use = max(record.last_use, loan.used_s)
        elif self._state == self._PASSIVE:
            record.passive.pop(self, None)
            self._stopped = None
        self._state = self._GONE

    def tell_stopped(self) -> None:
        """Say to a passive holder that there is nothing to hold any more."""
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            try:
                stopped()
            except Exception:
                # A border: one stream's failure must not keep the others from being told.
                log.failure("A passive lease could not be ended")

    def recall(self, error: GateError | None) -> None:
        """Have those it was lent to begin nothing more; see `InstancePool.lend`."""
        if self._recalled is not None:
            try:
                self._recalled(error)
            except Exception:
                # A border, as above.
                log.failure("A lent instance could not be recalled")


class Copy:
    """One start and what came of it, for those who wait until it is over."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self.running_since: float | None = None
        self.cpu_s = 0.0
        self._over = False
        self._waiters: list[Deferred[None]] = []

    def when_over(self) -> Deferred[None]:
        """Fire when nothing of this copy runs any more."""
        waiter: Deferred[None] = Deferred()
        if self._over:
            waiter.callback(None)
        else:
            self._waiters.append(waiter)
        return waiter

    def finish(self) -> None:
        """Say that it is over."""
        self._over = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


class Record:
    """
    One (server, owner).  It does for the machine what `Work` says.

    :param look: called on the turn after the state changed, once for any number of changes.
    :param places: holds this record while it is starting or running.
    :ivar spec: the newest; what runs may have been started by an older one (``copy.spec``).
    :ivar caller: who asked last; None when nobody did, for an adopted copy.
    :ivar held: leases that keep it from idling; ``lent``: what others do with it by themselves.
    :ivar wanted: it is to be started again after a crash, without being asked.
    :ivar replaced: it was stopped for being silent: start it again if it is wanted.
    :ivar forgotten: its owner is gone: remove it when it is stopped.
    :ivar check: asks what runs how it is.
    :ivar after: what must be over before the next start.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        starter: Starter,
        meters: Meters,
        luck: Callable[[], float],
        look: Callable[[Record], None],
        places: dict[Record, None],
        key: InstanceKey,
        spec: ServerSpec,
        caller: Caller | None,
    ) -> None:
        self.clock = clock
        self.key = key
        self.spec = spec
        self.caller = caller
        self.held = 0
        self.lent: dict[Lease, ILoan] = {}
        self.passive: dict[Lease, None] = {}
        self.last_use = clock.seconds()
        self.crashes = Crashes()
        self.wanted = False
        self.replaced = False
        self.forgotten = False
        self.check: Check | None = None
        self.after: tuple[Deferred[Any], ...] = ()
        self.copy = Copy(spec)
        self.copy.finish()
        self.retry: IDelayedCall | None = None
        self.waiters: dict[Deferred[ILease], IDelayedCall] = {}
        self._starter = starter
        self._meters = meters
        self._luck = luck
        self._look = look
        self._places = places
        self._looking = False
        self._taking = False
        self.core = Core(work=self, clock=clock, changed=self._changed, since=clock.seconds())
        self.life = make_life(self.core)

    @property
    def subject(self) -> str:
        """Name whom it was started for; empty when that is everybody, or not known."""
        if self.caller is None or not self.key.owner.digest:
            return ""
        return self.caller.principal.subject

    @property
    def active(self) -> int:
        """Tell how many uses keep it from idling, those of others included."""
        if not self.lent:
            return self.held
        return self.held + sum(loan.in_work for loan in self.lent.values())

    @property
    def used_s(self) -> float:
        """Give the clock reading of the last use, that of others included."""
        return max([self.last_use, *(loan.used_s for loan in self.lent.values())])

    @property
    def heard_outside_s(self) -> float:
        """Give the clock reading of when others heard something of it last; 0: they did not."""
        return max((loan.heard_s for loan in self.lent.values()), default=0.0)

    def recall(self) -> None:
        """Have others begin nothing more with it; what they have in work goes on."""
        for lease in tuple(self.lent):
            lease.recall(None)

    def seen(self) -> Seen:
        """Show it to `mcpgate.runtime.plan`."""
        local = self.spec.runtime != REMOTE
        return Seen(
            key=self.key,
            state=self.core.state,
            since=self.core.since,
            last_use=self.used_s,
            busy=self.active > 0,
            local=local,
            weight_bytes=self.spec.restraint.memory_bytes if local else 0,
            lifetime=self.spec.lifetime,
        )

    # --- Work ---------------------------------------------------------------------------------

    def begin(self) -> Deferred[Running]:
        """See `Work.begin`."""
        copy = self.copy = Copy(self.spec)
        self.replaced = False
        assert self.caller is not None or self.key.owner.is_nobody  # Whoever asks gives one.
        order = Order(
            spec=self.spec,
            key=self.key,
            caller=self.caller,
            after=self.after,
            delay_s=self.crashes.wait_s(self.clock.seconds()),
        )
        self.after = ()

        def failed(failure: Failure) -> Failure:
            self._finish(copy)
            return failure

        return self._starter.begin(order).addErrback(failed)

    def halt(self, running: Running, error: GateError) -> Deferred[Exit]:
        """See `Work.halt`."""
        copy = self.copy
        self._part(running, error)
        self.measure(running)

        def over(how: Exit) -> Exit:
            self._meters.exits[self.key.server, how.reason] += 1
            self._finish(copy)
            return how

        grace_s = copy.spec.lifetime.stop_grace_s
        self._meters.events["instance_stopped"] += 1
        return self._starter.stop(copy.spec, running.instance, grace_s).addCallback(over)

    def lost(self, running: Running, outcome: Outcome) -> None:
        """See `Work.lost`."""
        how = outcome.exit
        if how is not None:
            self._meters.exits[self.key.server, how.reason] += 1
        if how is not None and self.key.owner.isolation is not Isolation.SHARED:
            # What a shared server wrote may be about somebody else.
            outcome.error.data.update(exit_data(how))
        self._finish(self.copy)
        self._part(running, outcome.error)

    def adopt(self, instance: IInstance) -> None:
        """Take over a copy that an earlier life of the gate started."""
        self.copy = Copy(self.spec)
        # What it used in that life is not this one's.
        self.copy.cpu_s = instance.usage().cpu_s or 0.0
        self.life.adopt(self._starter.take(self.spec, instance))

    def take(self, spare: Record) -> None:
        """Take over a running copy that was nobody's."""
        running = spare.core.running
        assert running is not None
        spare.life.give()
        self._starter.assign(spare.copy.spec, running.instance, self.key)
        self.copy, spare.copy = spare.copy, self.copy
        self._taking = True
        self.life.adopt(running)
        self._taking = False

    def leave(self, error: GateError) -> None:
        """End what callers have with the copy, and let it run on."""
        running = self.core.running
        if running is not None:
            self._part(running, error)

    def clear(self) -> Deferred[None]:
        """See `Work.clear`."""
        return self._starter.clear(self.spec, self.key)

    def measure(self, running: Running) -> Usage:
        """Tell what the copy uses now, and count what it used since it was last asked."""
        usage = running.instance.usage()
        if usage.cpu_s is not None and usage.cpu_s > self.copy.cpu_s:
            self._meters.cpu_s[self.key.server] += usage.cpu_s - self.copy.cpu_s
            self.copy.cpu_s = usage.cpu_s
        return usage

    def _part(self, running: Running, error: GateError) -> None:
        """End what callers have with the copy."""
        try:
            running.upstream.close(error)
        except Exception:
            # A border: the upstream is another room's.
            log.failure("The upstream of {server} did not close", server=self.key.server)
        lent, self.lent = self.lent, {}
        for lease, loan in lent.items():
            self.last_use = max(self.last_use, loan.used_s)
            lease.recall(error)
        passive, self.passive = self.passive, {}
        for lease in passive:
            lease.tell_stopped()

    def _finish(self, copy: Copy) -> None:
        self.clock.callLater(0, copy.finish)

    # --- What changed -------------------------------------------------------------------------

    def _changed(self) -> None:
        """Keep the books, inside the transition; whoever waits is told on the next turn."""
        core = self.core
        if core.state in (InstanceState.STARTING, InstanceState.RUNNING):
            self._places[self] = None
        else:
            self._places.pop(self, None)
        if core.state is InstanceState.RUNNING and self._taking:
            self.last_use = core.since
        elif core.state is InstanceState.RUNNING:
            self.copy.running_since = self.last_use = core.since
            self._meters.events["instance_started"] += 1
            self._meters.starts[self.key.server] += 1
        elif core.state is InstanceState.FAILED:
            self._note_crash(core)
        if not self._looking:
            self._looking = True
            self.clock.callLater(0, self._look_now)

    def _note_crash(self, core: Core) -> None:
        since = self.copy.running_since
        self._meters.events["instance_crashed"] += 1
        if core.outcome is None or not isinstance(core.outcome.error, RuntimeUnavailable):
            # Who keeps asking while the engine is silent must not wait when it is back (R45).
            self.note_crash(0.0 if since is None else core.since - since)
        if core.outcome is not None:
            error = core.outcome.error
            if error.retry_after_s is None:
                error.retry_after_s = max(1.0, self.crashes.wait_s(core.since))
            how = core.outcome.exit
            log.warn(
                "Server {server} of {owner} failed: {why} ({exit})",
                server=self.key.server,
                owner=self.key.owner.label,
                why=error.detail,
                exit="never ran" if how is None else f"{how.reason} {how.code} {how.signal}",
            )

    def note_crash(self, ran_s: float) -> None:
        """Count against it that it did not run as it should."""
        self.crashes.note(self.clock.seconds(), ran_s, self._luck())

    def _look_now(self) -> None:
        self._looking = False
        self._look(self)

    # --- Who waits ----------------------------------------------------------------------------

    def wait(self) -> Deferred[ILease]:
        """Wait for a lease, no longer than ``start_wait_s``; the start goes on without."""

        def leave(waiter: Deferred[ILease]) -> None:
            timer = self.waiters.pop(waiter, None)
            if timer is not None:
                timer.cancel()

        def late() -> None:
            if self.waiters.pop(waiter, None) is not None:
                waiter.errback(Starting(retry_after_s=RETRY_STARTING_S))

        waiter: Deferred[ILease] = Deferred(leave)
        self.waiters[waiter] = self.clock.callLater(self.spec.lifetime.start_wait_s, late)
        return waiter

    def _take_waiters(self) -> list[Deferred[ILease]]:
        waiters, self.waiters = self.waiters, {}
        for timer in waiters.values():
            timer.cancel()
        return list(waiters)

    def serve(self, running: Running) -> None:
        """Give every waiter its lease."""
        for waiter in self._take_waiters():
            waiter.callback(Lease(self, running))

    def refuse(self, error: GateError) -> None:
        """Tell every waiter why not."""
        for waiter in self._take_waiters():
            waiter.errback(Failure(error))
