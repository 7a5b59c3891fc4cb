"""
Instances by (server, owner): who gets one, which start, which must go.

Long because leases, spare copies, starts and ends keep one set of records; what decides without
them is in ``plan``, ``crashes`` and ``starts``, what one instance is in ``record``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import (
    BackendDied,
    BackendUnavailable,
    Draining,
    GateError,
    Overloaded,
    RateLimited,
)
from mcpgate.interfaces import IInstance, IInstancePool, ILease, ILoan, IRuntime, IUpstream
from mcpgate.model import (
    Caller,
    Exit,
    InstanceKey,
    InstanceState,
    Isolation,
    Owner,
    ServerSpec,
    Usage,
)
from mcpgate.runtime import plan
from mcpgate.runtime.attempt import REMOTE, Probe, Starter
from mcpgate.runtime.checks import HealthChecks
from mcpgate.runtime.plan import Cap, Limits, Newcomer, Seen
from mcpgate.runtime.record import OVER, Lease, Record
from mcpgate.runtime.starts import StartQueue
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import LogView
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel

log = Logger()

ASIDE_S: Final = 1.0
"""A copy of an older entry is stopped by the first sweep after it was unused for so long."""

TRIAL_S: Final = 10.0
"""A trial waits this much longer than the deadline of a start."""

PATIENCE_S: Final = 5.0
"""A caller waits for a backoff no longer than this; for a longer one it is told when to return."""

ALIVE: Final = frozenset({InstanceState.STARTING, InstanceState.RUNNING})
_IDLE: Final = frozenset({InstanceState.ABSENT, InstanceState.STOPPED})

_CAPS: Final = {
    Cap.SERVER: "All copies of this server are in use.",
    Cap.RUNNING: "All places for running servers are taken.",
    Cap.MEMORY: "The memory for running servers is used up.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    One instance for people: ``ps``, ``/stats``.

    :ivar instance_id: empty when none runs.
    :ivar user: subject of the last caller it was started for; empty when shared, or adopted.
    :ivar since_at: wall clock, seconds, when it entered its state.
    :ivar last_use_at: wall clock, seconds.
    :ivar leases: uses that keep it running; ``passive``: those that do not.
    :ivar starts: how often it was started.
    :ivar spec: the entry it was started by.
    :ivar unresponsive: it runs, and did not answer when it was asked last, or refused connections.
    :ivar heard_at: wall clock, seconds, of when anything was heard of it last; None when none
        runs.
    """

    key: InstanceKey
    instance_id: str
    user: str
    state: InstanceState
    since_at: float
    last_use_at: float
    leases: int
    passive: int
    starts: int
    usage: Usage
    spec: ServerSpec
    last_exit: Exit | None
    error: str
    unresponsive: bool = False
    heard_at: float | None = None


@implementer(IInstancePool)
class InstancePool:
    """
    See `IInstancePool`.

    :param runtimes: by the name a server's entry gives; ``remote`` starts nothing.
    :param connect: makes the upstream of an instance that is ready; kept while it runs, closed
        when it ends.
    :param make_id: unique over the life of the state directory, safe in file names.
    :param wall: wall clock, seconds; for reports only.
    :param luck: random numbers of [0, 1).
    :param outlives: tells of which servers copies run on when the gate stops.
    :param current: gives the entry a server has now: sessions may hold one of before a reload.
    :param start_parallel: starts under way at once; ``start_queue`` more may wait.
    :param wheel: for the health checks; without one nobody is asked.
    :param has_room: tells whether memory is left for another process.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        runtimes: Mapping[str, IRuntime],
        connect: Callable[[ServerSpec, IInstance], IUpstream],
        probe: Probe,
        make_id: Callable[[], str],
        meters: Meters,
        wall: Callable[[], float],
        luck: Callable[[], float],
        limits: Limits = Limits(),  # noqa: B008  # frozen
        start_parallel: int = 4,
        start_queue: int = 100,
        outlives: Callable[[ServerSpec], bool] = lambda _: False,
        current: Callable[[ServerSpec], ServerSpec] = lambda spec: spec,
        wheel: DeadlineWheel | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._has_room = has_room
        self.limits = limits
        self._current = current
        self._clock = clock
        self._meters = meters
        self._wall = wall
        self._luck = luck
        self._queue = StartQueue(start_parallel, start_queue)
        self._starter = Starter(
            clock,
            runtimes=runtimes,
            connect=connect,
            probe=probe,
            queue=self._queue,
            make_id=make_id,
        )
        # Keyed by server and owner digest: an owner's digest begins with its principal's.
        self._records: dict[tuple[str, str], Record] = {}
        # Those of them that are starting or running: few, beside all that ran within a week.
        self._places: dict[Record, None] = {}
        self._checks = None
        if wheel is not None:
            self._checks = HealthChecks(
                clock, wheel, meters=meters, luck=luck, current=current, dead=self._replace
            )
        self._outlives = outlives
        self._make_id = make_id
        self._warm: tuple[ServerSpec, ...] = ()
        self._draining = False

    # --- Leases -------------------------------------------------------------------------------

    def ready(self, spec: ServerSpec, owner: Owner) -> ILease | None:
        """See `IInstancePool.ready`."""
        record = self._records.get((spec.name, owner.digest))
        if record is None:
            return None
        spec = self._current(spec)
        running = record.core.running
        if running is None:
            return None
        if record.spec is not spec:
            if not plan.runs_alike(record.spec, spec):
                return None
            record.spec = spec
        if record.check is not None and record.check.shut and record.check.refuses():
            return None
        return Lease(record, running)

    def lease(self, spec: ServerSpec, owner: Owner, caller: Caller) -> Deferred[ILease]:
        """See `IInstancePool.lease`."""
        spec = self._current(spec)
        lease = self.ready(spec, owner)
        if lease is not None:
            return succeed(lease)
        try:
            self._refuse_if_shut(spec, owner)
            if self._take_spare(spec, owner, caller):
                return self.lease(spec, owner, caller)
            record = self._wanted(spec, owner, caller)
        except GateError as error:
            return fail(error)
        return record.wait()

    def lend(
        self,
        spec: ServerSpec,
        owner: Owner,
        loan: ILoan,
        recalled: Callable[[GateError | None], None],
    ) -> ILease | None:
        """
        Lend a running instance to others that use it by themselves, until the lease is released.

        It is busy while they have something in work; that it is lent alone keeps it from nothing.

        :param recalled: called when they are to begin nothing more: with why the instance ends,
            when it is stopped or dies, once and for all; with None when what is in work may go on.
        :return: None when there is none that could be used at once.
        """
        lease = self.ready(spec, owner)
        if isinstance(lease, Lease):
            lease.lend(loan, recalled)
        return lease

    def start_ahead(self, spec: ServerSpec, owner: Owner, caller: Caller) -> bool:
        """See `IInstancePool.start_ahead`."""
        spec = self._current(spec)
        record = self._records.get((spec.name, owner.digest))
        if record is not None and record.core.state in ALIVE:
            return True
        try:
            if not self._take_spare(spec, owner, caller):
                self._wanted(spec, owner, caller, modest=True)
        except GateError as error:
            log.debug("{server} is not started ahead: {why}", server=spec.name, why=error.detail)
            return False
        self._meters.events["instance_prestarted"] += 1
        return True

    @deferred
    async def prestart(self, spec: ServerSpec, owner: Owner, caller: Caller) -> None:
        """Start before anybody asks; from now on it is started again after a crash, unasked."""
        self._get(spec, owner, caller).wanted = True
        lease = await self.lease(spec, owner, caller)
        lease.release()

    def adopt(self, spec: ServerSpec, instance: IInstance) -> None:
        """
        Take over a running copy that an earlier life of the gate started; before any call.

        It counts as just used, and its id is what it was, so sessions go on with it.
        """
        record = self._get(spec, instance.key.owner, None)
        if record.core.state is InstanceState.ABSENT:
            record.adopt(instance)
            self._meters.events["instance_adopted"] += 1

    def _get(self, spec: ServerSpec, owner: Owner, caller: Caller | None) -> Record:
        name = (spec.name, owner.digest)
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record(
                clock=self._clock,
                starter=self._starter,
                meters=self._meters,
                luck=self._luck,
                look=self._look,
                places=self._places,
                key=InstanceKey(spec.name, owner),
                spec=spec,
                caller=caller,
            )
        return record

    def _wanted(
        self, spec: ServerSpec, owner: Owner, caller: Caller, *, modest: bool = False
    ) -> Record:
        """Have it started unless it is starting; raises why that can not be."""
        if self._draining:
            raise Draining(retry_after_s=self._some_s())
        record = self._get(spec, owner, caller)
        record.forgotten = False
        record.caller = caller
        old, record.spec = record.spec, spec
        if not plan.runs_alike(old, spec) and record.core.running is not None and record.active:
            self._set_aside(record, old)
            record = self._get(spec, owner, caller)
        elif not plan.runs_alike(old, spec):
            record.crashes.forgive()
            record.life.stop(
                BackendUnavailable(
                    "The server's entry has changed; it is being restarted.", retry_after_s=1.0
                )
            )
        if record.core.state is not InstanceState.STARTING:
            try:
                self._refuse_if_crashing(record)
                self._start(record, modest=modest)
            except GateError:
                if record.core.state is InstanceState.ABSENT:
                    self._records.pop((spec.name, owner.digest))
                raise
        return record

    def _set_aside(self, record: Record, spec: ServerSpec) -> None:
        """
        Let the calls in work end at a copy of an older entry; another one takes its place.

        The sweep stops it once nobody uses it.
        """
        running = record.core.running
        assert running is not None
        owner = record.key.owner
        del self._records[record.key.server, owner.digest]
        aside = Owner(owner.isolation, f"{owner.digest}~{running.instance.instance_id}")
        record.key = InstanceKey(record.key.server, aside)
        record.spec = replace(spec, lifetime=replace(spec.lifetime, idle_stop_s=ASIDE_S))
        record.wanted, record.forgotten = False, True
        self._starter.assign(record.copy.spec, running.instance, record.key)
        self._records[record.key.server, aside.digest] = record

    @deferred
    async def retire(
        self,
        names: Iterable[str],
        wait_s: float,
        is_back: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """
        Stop every copy of servers that are no longer served.

        :param wait_s: for calls in work.
        :param is_back: tells of a server that it is served again; its copies are left alone.
        """
        gone = frozenset(names)
        self._warm = tuple(spec for spec in self._warm if spec.name not in gone)
        error = BackendUnavailable("The server was taken out of the configuration.")
        until = self._clock.seconds() + wait_s
        while True:
            gone = frozenset(name for name in gone if not is_back(name))
            left = [one for one in self._records.values() if one.key.server in gone]
            late = self._clock.seconds() >= until
            for record in left:
                record.forgotten, record.wanted = True, False
                if not record.active or late:
                    self._stop(record.key, error)
                    if record.core.state in OVER:
                        record.life.remove()
                        self._see_off(record)
            if late or not any(one.active for one in left):
                return
            await deferLater(self._clock, 1.0, lambda: None)

    @deferred
    async def try_out(
        self, spec: ServerSpec, look: Callable[[IUpstream], Deferred[object]]
    ) -> None:
        """
        See that a server starts and becomes ready; what was started is stopped again.

        For servers that need nothing of a caller.  Fails with why it does not.

        :param look: asks the running server something more.
        """
        # Nobody is told to come back later: it starts or fails by its own deadline, which says why.
        life = spec.lifetime
        spec = replace(spec, lifetime=replace(life, start_wait_s=life.start_s + TRIAL_S))
        # As of a session, so that its data goes with it.
        owner = Owner.nobody(Isolation.PER_SESSION, self._make_id())
        record = self._get(spec, owner, None)
        record.forgotten = True  # It is no spare copy: nobody is given it.
        waiting = record.wait()
        try:
            self._start(record, modest=True)
            lease = await waiting
            try:
                await look(lease.upstream)
            finally:
                lease.release()
        finally:
            waiting.addErrback(lambda _: None)
            self._stop(record.key, BackendUnavailable("It was a trial."))
            if record.core.state in OVER:
                record.life.remove()
                self._see_off(record)

    def _refuse_if_shut(self, spec: ServerSpec, owner: Owner) -> None:
        record = self._records.get((spec.name, owner.digest))
        check = None if record is None else record.check
        if record is None or check is None or not check.shut:
            return
        if plan.runs_alike(record.spec, spec):
            self._meters.events["breaker_refused"] += 1
            raise BackendUnavailable(
                f"Server '{spec.name}' does not answer and is left alone for a while.",
                retry_after_s=check.retry_after_s,
            )

    def _refuse_if_crashing(self, record: Record) -> None:
        now = self._clock.seconds()
        wait_s = record.crashes.wait_s(now)
        if wait_s <= PATIENCE_S and not record.crashes.refusing(now):
            return
        outcome = record.core.outcome
        data = {} if outcome is None else dict(outcome.error.data)
        self._meters.events["breaker_refused"] += 1
        raise BackendUnavailable(
            f"Server '{record.spec.name}' keeps failing and is left alone for a while.",
            retry_after_s=max(1.0, wait_s),
            data=data,
        )

    def _start(self, record: Record, *, modest: bool = False) -> None:
        """
        Make room and start; raises when there is no room to be made.

        :param modest: nobody waits for it, so nobody is to make room, or to wait longer, for it.
        """
        spec = record.spec
        local = spec.runtime != REMOTE
        if local and (self._queue.full or (modest and len(self._queue))):
            raise RateLimited("Too many servers are being started.", retry_after_s=self._some_s())
        if local and not self._has_room():
            self._meters.events["start_refused"] += 1
            raise Overloaded("The gate is short of memory.", retry_after_s=self._some_s())
        room = plan.make_room(
            self._present(),
            Newcomer(
                key=record.key,
                weight_bytes=spec.restraint.memory_bytes,
                max_instances=spec.max_instances,
                local=local,
            ),
            self.limits,
        )
        if modest and (room.stop_first or room.refused_by is not None):
            raise Overloaded("There is no room to spare.", retry_after_s=self._some_s())
        if room.refused_by is not None:
            self._meters.events["start_refused"] += 1
            raise Overloaded(_CAPS[room.refused_by], retry_after_s=self._some_s())
        waits = []
        for key in room.stop_first:
            victim = self._records[key.server, key.owner.digest]
            log.info(
                "Stopping idle {server} of {owner} to make room",
                server=key.server,
                owner=key.owner.label,
            )
            victim.life.stop(BackendUnavailable("The server was stopped to make room."))
            waits.append(victim.copy.when_over())
        record.after = tuple(waits)
        record.life.start()

    def _present(self) -> Iterator[Seen]:
        """Show those that are starting or running."""
        for record in self._places:
            if self._records.get((record.key.server, record.key.owner.digest)) is record:
                yield record.seen()

    def _some_s(self) -> float:
        """Spread those who come back over some seconds (R50)."""
        return 5.0 + 10.0 * self._luck()

    # --- Spare copies -------------------------------------------------------------------------

    def keep_warm(self, specs: Iterable[ServerSpec]) -> None:
        """Keep as many spare copies of these servers ready as each of them says."""
        self._warm = tuple(spec for spec in specs if spec.warm)
        self._tend()

    def _tend(self) -> None:
        """Start the spare copies that are missing, as far as there is room for them."""
        if self._draining:
            return
        for spec in self._warm:
            have = sum(1 for _ in self._spares(spec))
            for _ in range(spec.warm - have):
                if not self._start_spare(spec):
                    break

    def _spares(self, spec: ServerSpec) -> Iterator[Record]:
        for record in self._records.values():
            spare = record.key.owner.is_nobody and not record.forgotten
            if spare and record.key.server == spec.name:
                yield record

    def _start_spare(self, spec: ServerSpec) -> bool:
        owner = Owner.nobody(spec.isolation, self._make_id())
        record = self._get(spec, owner, None)
        record.wanted = True
        try:
            self._start(record, modest=True)
        except GateError as error:
            del self._records[spec.name, owner.digest]
            log.debug("No spare copy of {server} for now: {why}", server=spec.name, why=error)
            return False
        self._meters.events["spare_started"] += 1
        return True

    def _take_spare(self, spec: ServerSpec, owner: Owner, caller: Caller) -> bool:
        """Give a spare copy that is ready to a new owner, and have another one started."""
        if not spec.warm or self._draining:
            return False
        record = self._records.get((spec.name, owner.digest))
        if record is not None and record.core.state not in _IDLE:
            return False
        for spare in self._spares(spec):
            if spare.core.running is not None and plan.runs_alike(spare.copy.spec, spec):
                break
        else:
            return False
        record = self._get(spec, owner, caller)
        record.forgotten = False
        record.spec, record.caller = spec, caller
        record.take(spare)
        self._meters.events["spare_taken"] += 1
        self._clock.callLater(0, self._tend)
        return True

    # --- What became of it --------------------------------------------------------------------

    def _look(self, record: Record) -> None:
        """See to a record whose state changed, on the turn after."""
        core = record.core
        if self._checks is not None:
            self._checks.attend(record)
        if core.running is not None:
            record.serve(core.running)
        elif core.state in OVER:
            if core.outcome is not None:
                record.refuse(core.outcome.error)
            self._see_off(record)

    def _see_off(self, record: Record) -> None:
        core = record.core
        if core.state is InstanceState.ABSENT:
            self._records.pop((record.key.server, record.key.owner.digest), None)
        elif record.forgotten or (
            record.key.owner.is_nobody and core.state is InstanceState.STOPPED
        ):
            record.life.remove()
        elif self._to_retry(record):
            wait_s = record.crashes.wait_s(self._clock.seconds())
            record.retry = self._clock.callLater(wait_s, self._retry, record)

    def _to_retry(self, record: Record) -> bool:
        failed = record.core.state is InstanceState.FAILED or record.replaced
        return failed and record.wanted and record.retry is None and not self._draining

    def _retry(self, record: Record) -> None:
        """Start a wanted instance again after its backoff."""
        record.retry = None
        over = record.core.state in (InstanceState.FAILED, InstanceState.STOPPED)
        if not over or self._draining:
            return
        try:
            self._start(record, modest=record.key.owner.is_nobody)
        except GateError as error:
            log.warn(
                "Server {server} is not started again yet: {why}",
                server=record.key.server,
                why=error.detail,
            )
            record.retry = self._clock.callLater(error.retry_after_s or 30.0, self._retry, record)

    # --- Stopping -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Stop what idles or takes too much, remove what is long stopped; call it every minute."""
        for record in self._records.values():
            self._follow_entry(record)
        todo = plan.sweep(
            [record.seen() for record in self._records.values()], self._clock.seconds()
        )
        for key in todo.stop:
            log.info("Stopping idle {server} of {owner}", server=key.server, owner=key.owner.label)
            self._stop(key, BackendUnavailable("The server was stopped: nobody used it."))
        for key in todo.remove:
            self._records[key.server, key.owner.digest].forgotten = True
            self._records[key.server, key.owner.digest].life.remove()
        for record in tuple(self._records.values()):
            self._check_usage(record)
        self._tend()

    def _follow_entry(self, record: Record) -> None:
        """Go by the times its entry has now, whether or not somebody calls after a reload."""
        life = self._current(record.spec).lifetime
        if not record.forgotten and life is not record.spec.lifetime:
            record.spec = replace(record.spec, lifetime=life)

    def _check_usage(self, record: Record) -> None:
        running = record.core.running
        if running is None:
            return
        too_much = plan.excess(record.measure(running), record.copy.spec.restraint)
        if not too_much:
            return
        self._meters.events["instance_over_limit"] += 1
        log.warn(
            "Stopping {server} of {owner}: too much {what}",
            server=record.key.server,
            owner=record.key.owner.label,
            what=too_much,
        )
        reason = "oom_killed" if too_much == "memory" else "too_many_processes"
        record.note_crash(0.0)
        record.life.stop(
            BackendDied(
                f"The server was stopped: it used more {too_much} than it may.",
                data={"exitReason": reason},
            )
        )

    def _replace(self, record: Record) -> None:
        """Stop what has been silent for too long; it starts again like one that crashed."""
        running = record.core.running
        assert running is not None  # What does not run is not checked.
        now = self._clock.seconds()
        self._meters.events["health_replaced"] += 1
        log.error(
            "Stopping {server} of {owner}: nothing was heard of it for {silent_s:.0f} s",
            server=record.key.server,
            owner=record.key.owner.label,
            silent_s=now - running.upstream.heard_s,
            ev="replaced",
        )
        since = record.copy.running_since
        record.note_crash(0.0 if since is None else now - since)
        record.replaced = True
        record.life.stop(
            BackendDied(
                "The server did not answer any more and is being replaced.",
                data={"exitReason": "unresponsive"},
            )
        )

    def _stop(self, key: InstanceKey, error: GateError) -> Deferred[None]:
        record = self._records.get((key.server, key.owner.digest))
        if record is None:
            return succeed(None)
        if record.retry is not None:
            record.retry.cancel()
            record.retry = None
        record.life.stop(error)
        return record.copy.when_over()

    def stop(self, key: InstanceKey) -> Deferred[None]:
        """
        See `IInstancePool.stop`.

        What it crashed is forgiven, and it is not started again before it is asked for.
        """
        record = self._records.get((key.server, key.owner.digest))
        if record is not None:
            record.wanted = False
        self.forgive(key)
        return self._stop(key, BackendUnavailable("The server was stopped.", retry_after_s=1.0))

    def forgive(self, key: InstanceKey) -> None:
        """Have the next start not wait for how often it crashed: somebody has seen to that."""
        record = self._records.get((key.server, key.owner.digest))
        if record is not None:
            record.crashes.forgive()

    def forget(self, owner: Owner) -> None:
        """Stop and remove what belongs to an owner that is gone: a session that ended."""
        for record in tuple(self._records.values()):
            if record.key.owner == owner:
                record.forgotten = True
                record.wanted = False
                self._stop(record.key, BackendUnavailable("The session has ended."))
                if record.core.state in OVER:
                    record.life.remove()
                    self._see_off(record)

    @deferred
    async def stop_all(self, deadline_s: float) -> None:
        """Stop everything, start nothing any more; answers after ``deadline_s`` at the latest."""
        self._draining = True
        over = []
        for record in tuple(self._records.values()):
            error = Draining(retry_after_s=self._some_s())
            outlives = self._outlives(record.copy.spec) and not record.key.owner.is_nobody
            if record.core.running is not None and outlives:
                record.leave(error)
                if record.check is not None:
                    record.check.cancel()
            else:
                over.append(self._stop(record.key, error))
        try:
            await DeferredList(over, consumeErrors=True).addTimeout(deadline_s, self._clock)
        except TimeoutError:
            log.error("Some servers did not stop within {s} s", s=deadline_s)
        for record in self._records.values():
            record.refuse(Draining(retry_after_s=self._some_s()))

    # --- For people ---------------------------------------------------------------------------

    def instances(self) -> list[Report]:
        """Tell of every instance known, running or not."""
        now = self._clock.seconds()
        to_wall = self._wall() - now
        return [
            self._report(record, to_wall)
            for _, record in sorted(self._records.items(), key=lambda item: item[0])
        ]

    def _report(self, record: Record, to_wall: float) -> Report:
        core = record.core
        running = core.running
        outcome = core.outcome
        check = None if running is None else record.check
        return Report(
            key=record.key,
            instance_id="" if running is None else running.instance.instance_id,
            user=record.subject,
            state=core.state,
            since_at=core.since + to_wall,
            last_use_at=record.used_s + to_wall,
            leases=record.active,
            passive=len(record.passive),
            starts=core.starts,
            usage=Usage() if running is None else record.measure(running),
            spec=record.copy.spec if running is not None else record.spec,
            last_exit=None if outcome is None else outcome.exit,
            error="" if outcome is None or running is not None else outcome.error.detail,
            unresponsive=check is not None and check.unresponsive,
            heard_at=None if check is None else check.heard_s + to_wall,
        )

    def logs(self, key: InstanceKey) -> list[str]:
        """Give the last lines it wrote; of the one before when none runs."""
        record = self._records.get((key.server, key.owner.digest))
        if record is None:
            return []
        if record.core.running is not None:
            return record.core.running.instance.logs()
        outcome = record.core.outcome
        if outcome is None:
            return []
        if outcome.exit is not None:
            return list(outcome.exit.stderr_tail)
        lines = outcome.error.data.get("stderr")
        return [str(line) for line in lines] if isinstance(lines, list) else []

    def follow(self, key: InstanceKey, cursor: str) -> LogView:
        """
        Give what it wrote since it was last asked.

        When none runs: the last lines of the one before, known already or not.

        :param cursor: of the last answer; empty, or of another copy: from the first line kept.
        """
        record = self._records.get((key.server, key.owner.digest))
        running = None if record is None else record.core.running
        if running is None:
            outcome = None if record is None else record.core.outcome
            how = None if outcome is None else outcome.exit
            return LogView(
                lines=tuple(self.logs(key)), ended="not running" if how is None else how.reason
            )
        name, _, seen = cursor.rpartition(":")
        known = name == running.instance.instance_id and seen.isdecimal() and len(seen) < 20
        lines, count = running.instance.log_after(int(seen) if known else 0)
        return LogView(lines=tuple(lines), cursor=f"{running.instance.instance_id}:{count}")

    def callers(self, within_s: float = inf) -> list[Caller]:
        """
        Give those instances were started for, as far as they are known; each once.

        :param within_s: only those who used one within so many seconds.
        """
        found = {}
        since = self._clock.seconds() - within_s
        for record in self._records.values():
            if record.caller is not None and record.used_s >= since:
                found[record.caller.principal] = record.caller
        return list(found.values())

    @property
    def running(self) -> int:
        """How many run or are starting, remote ones not counted."""
        return sum(1 for one in self._present() if one.takes_room)

    @property
    def queued(self) -> int:
        """How many starts wait for their turn."""
        return len(self._queue)
