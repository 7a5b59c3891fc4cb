"""
What to stop, what to remove, whom to let in: decisions only.

Everything here is a function of what is seen and of ``now`` (a monotonic clock reading, seconds).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Final

from mcpgate.model import InstanceKey, InstanceState, Lifetime, Restraint, ServerSpec, Usage

_PER_CALL: Final = (
    "call_timeout_max_s",
    "call_timeout_s",
    "forward_headers",
    "lifetime",
    "max_body_bytes",
    "max_instances",
    "pool_lost_sessions",
    "rate",
    "ready_path",
    "relay",
    "relay_body_bytes",
    "prestart",
    "rest",
    "rest_source",
    "snapshot",
    "warm",
)
"""What an entry says about calls and times, not about what is started or connected to."""

_ESSENTIAL: Final = tuple(one.name for one in fields(ServerSpec) if one.name not in _PER_CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What one gate may run.  0 means no limit.

    :ivar max_running: instances over all servers.
    :ivar memory_bytes: sum of the memory limits of what runs.
    """

    max_running: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    One instance, as the pool sees it now.

    :ivar since: when it entered its state.
    :ivar last_use: when it was last used.
    :ivar busy: somebody holds a lease that counts.
    :ivar weight_bytes: what it counts towards the memory budget.
    :ivar local: it runs on this machine, started by the gate.
    """

    key: InstanceKey
    state: InstanceState
    since: float
    last_use: float
    busy: bool
    local: bool
    weight_bytes: int
    lifetime: Lifetime

    @property
    def takes_room(self) -> bool:
        """It counts towards the caps.  What is stopping does not: it is on its way out."""
        return self.local and self.state in (InstanceState.STARTING, InstanceState.RUNNING)

    @property
    def spare(self) -> bool:
        """It may be stopped for the sake of another."""
        if self.key.owner.is_nobody:
            return self.takes_room
        return self.takes_room and self.state is InstanceState.RUNNING and not self.busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """
    A start somebody asks for.

    :ivar max_instances: cap of its server; 0 means none.
    """

    key: InstanceKey
    weight_bytes: int
    max_instances: int
    local: bool = True


class Cap(Enum):
    """Which cap is in the way."""

    SERVER = "max_instances"
    RUNNING = "max_running"
    MEMORY = "memory_budget"


@dataclass(frozen=True, slots=True)
class Room:
    """
    The answer to a newcomer.

    :ivar stop_first: stopping these makes room; the longest unused come first.
    :ivar refused_by: the cap no stopping helps against; then nothing is to be stopped.
    """

    stop_first: tuple[InstanceKey, ...] = ()
    refused_by: Cap | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to do now: stop the idle, remove what is left of the long stopped."""

    stop: tuple[InstanceKey, ...] = ()
    remove: tuple[InstanceKey, ...] = ()


def runs_alike(old: ServerSpec, new: ServerSpec) -> bool:
    """Tell whether a copy started by the old entry may go on under the new one."""
    if old == new:
        return True
    return replace(new, **{name: getattr(old, name) for name in _PER_CALL}) == old


def essence(spec: ServerSpec) -> str:
    """Give a text that is the same for entries that `runs_alike`; it may hold secrets."""
    # Fields one by one: ``repr`` of the whole leaves out what must not be shown.
    return repr([(name, getattr(spec, name)) for name in _ESSENTIAL])


def make_room(seen: Iterable[Seen], newcomer: Newcomer, limits: Limits) -> Room:
    """
    Tell what must be stopped so that the newcomer fits, fewest and longest unused first; copies
    that are nobody's before all others.

    A newcomer of a server at its own cap replaces one of its kind; for the caps of the whole
    gate anybody spare will do.
    """
    if not newcomer.local:
        return Room()
    others = [one for one in seen if one.takes_room and one.key != newcomer.key]
    spare = sorted((one for one in others if one.spare), key=_least_missed)
    kind = newcomer.key.server
    running = len(others)
    alike = sum(1 for one in others if one.key.server == kind)
    weight = sum(one.weight_bytes for one in others)
    victims: list[InstanceKey] = []

    def blocked() -> Cap | None:
        if newcomer.max_instances and alike >= newcomer.max_instances:
            return Cap.SERVER
        if limits.max_running and running >= limits.max_running:
            return Cap.RUNNING
        if limits.memory_bytes and weight + newcomer.weight_bytes > limits.memory_bytes:
            return Cap.MEMORY
        return None

    while (cap := blocked()) is not None:
        fitting = [one for one in spare if cap is not Cap.SERVER or one.key.server == kind]
        if not fitting:
            return Room(refused_by=cap)
        victim = fitting[0]
        spare.remove(victim)
        victims.append(victim.key)
        running -= 1
        alike -= victim.key.server == kind
        weight -= victim.weight_bytes
    return Room(stop_first=tuple(victims))


def _least_missed(one: Seen) -> tuple[bool, float]:
    return not one.key.owner.is_nobody, one.last_use


def sweep(seen: Iterable[Seen], now: float) -> Sweep:
    """Tell which instances were idle for too long, and which are not needed any more."""
    stop = []
    remove = []
    for one in seen:
        life = one.lifetime
        if one.state is InstanceState.RUNNING:
            idle = not one.busy and life.idle_stop_s > 0 and not one.key.owner.is_nobody
            if idle and now - one.last_use >= life.idle_stop_s:
                stop.append(one.key)
        elif one.state in (InstanceState.STOPPED, InstanceState.FAILED):
            if now - max(one.since, one.last_use) >= life.remove_s:
                remove.append(one.key)
    return Sweep(stop=tuple(stop), remove=tuple(remove))


def excess(usage: Usage, restraint: Restraint) -> str:
    """
    Tell what an instance uses too much of; empty when nothing.

    For what the kernel does not hold a tree of plain processes to: see
    `mcpgate.runtime.preparation.rlimits`.
    """
    if restraint.memory_bytes and (usage.memory_bytes or 0) > restraint.memory_bytes:
        return "memory"
    if restraint.pids and (usage.processes or 0) > restraint.pids:
        return "processes"
    return ""
