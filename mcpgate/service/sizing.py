"""
How many copies of servers a machine carries, and what stops it from carrying more: pure.

Every bound is told with the key or the thing to change.  Memory, processors and processes are
counted twice: as if every copy took all it may, and as copies were seen to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mcpgate.config.model import Config
from mcpgate.model import GIB, MIB, Isolation, ServerSpec, Transport
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.docker.networks import needs_network

ASSUMED_GATE: Final = 100 * MIB
"""What a gate is taken to use where none runs."""
ASSUMED_OTHERS: Final = 350 * MIB
"""What a system is taken to use, on machines that are not this one."""
SIZES: Final = (1 * GIB, 2 * GIB, 4 * GIB, 8 * GIB, 16 * GIB)
EVERYTHING: Final = "each of them"

_BASE_FILES: Final = 100
_CLIENT_FILES: Final = 2
# What a copy takes of the gate's descriptors: pipes or streams, and connections to it.
_FILES: Final = {
    ("process", Transport.STDIO): 4,
    ("process", Transport.HTTP): 6,
    ("docker", Transport.STDIO): 1,
    ("docker", Transport.HTTP): 3,
}
_SUBNET_SIZE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """
    What there is; None where it can not be told.

    :ivar others_bytes: memory used by all that is neither the gate nor a server of its.
    :ivar cpus: processors the gate may use, perhaps a fraction.
    :ivar pids: processes and threads; ``open_files``: of the gate; ``ports``: of 127.0.0.1.
    """

    memory_bytes: int
    others_bytes: int
    gate_bytes: int
    cpus: float
    pids: int | None = None
    open_files: int | None = None
    ports: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """
    What one copy takes.

    :ivar seen: how many copies were looked at; 0 for what it may take at most.
    """

    memory_bytes: float | None = None
    cpus: float | None = None
    pids: float | None = None
    seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """
    One thing that ends.

    :ivar most: so many, then no more.
    :ivar key: what to change to have more.
    """

    what: str
    most: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    How often something fits.

    :ivar name: of a server, or `EVERYTHING`: one copy of each that users do not share.
    :ivar at_limit: bounds, the first to be met first, if each takes all it may; ``measured``: as
        they were seen to use, None where none was seen.
    """

    name: str
    limit: Use
    use: Use | None
    at_limit: tuple[Bound, ...]
    measured: tuple[Bound, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many users of every server another machine carries, for its memory alone."""

    memory_bytes: int
    for_servers_bytes: int
    at_limit: int | None
    measured: int | None


def own_copies(config: Config) -> list[ServerSpec]:
    """Give the servers every user has a copy of."""
    return [
        spec
        for spec in config.servers
        if spec.runtime != REMOTE and spec.isolation is not Isolation.SHARED
    ]


def limit_of(spec: ServerSpec) -> Use:
    """Tell what a copy may take; None where there is no limit."""
    limit = spec.restraint
    return Use(
        memory_bytes=limit.memory_bytes or None,
        cpus=limit.cpus or None,
        pids=limit.pids or None,
    )


def together(uses: list[Use | None]) -> Use | None:
    """Add up; None when one of them is not known."""
    if not uses or any(use is None for use in uses):
        return None
    known = [use for use in uses if use is not None]

    def total(values: list[float | None]) -> float | None:
        return None if any(value is None for value in values) else sum(filter(None, values))

    return Use(
        memory_bytes=total([use.memory_bytes for use in known]),
        cpus=total([use.cpus for use in known]),
        pids=total([use.pids for use in known]),
        seen=min(use.seen for use in known),
    )


def shared_bytes(config: Config, seen: Mapping[str, Use]) -> float:
    """Tell what servers take that everybody shares: what was seen, else what they may."""
    total = 0.0
    for spec in config.servers:
        if spec.runtime != REMOTE and spec.isolation is Isolation.SHARED:
            use = seen.get(spec.name)
            known = None if use is None else use.memory_bytes
            total += spec.restraint.memory_bytes if known is None else known
    return total


def rows(config: Config, machine: Machine, seen: Mapping[str, Use]) -> list[Row]:
    """Tell for each server, and for one copy of each, how often it fits."""
    specs = own_copies(config)
    found = [_row(spec.name, [spec], config, machine, seen) for spec in specs]
    if len(specs) > 1:
        found.append(_row(EVERYTHING, specs, config, machine, seen))
    return found


def _row(
    name: str, specs: list[ServerSpec], config: Config, machine: Machine, seen: Mapping[str, Use]
) -> Row:
    limit = together([limit_of(spec) for spec in specs]) or Use()
    use = together([seen.get(spec.name) for spec in specs])
    fixed = _fixed(specs, config, machine)
    free = machine.memory_bytes - machine.others_bytes - machine.gate_bytes
    free -= int(shared_bytes(config, seen))
    return Row(
        name=name,
        limit=limit,
        use=use,
        at_limit=_sorted([*_taken(limit, free, machine, "limit"), *fixed]),
        measured=None if use is None else _sorted([*_taken(use, free, machine, "use"), *fixed]),
    )


def _sorted(found: list[Bound]) -> tuple[Bound, ...]:
    return tuple(sorted(found, key=lambda bound: bound.most))


def _times(there: float, one: float) -> int:
    return max(0, int(there / one))


def _taken(use: Use, free: float, machine: Machine, how: str) -> list[Bound]:
    """Give the bounds that depend on what a copy takes."""
    found = []
    lower = " or a lower memory" if how == "limit" else ""
    if use.memory_bytes:
        most = _times(free, use.memory_bytes)
        found.append(Bound(what="memory", most=most, key=f"a larger machine{lower}"))
    if use.cpus:
        lower = " or lower cpus" if how == "limit" else ""
        most = _times(machine.cpus, use.cpus)
        found.append(Bound(what="processors", most=most, key=f"more processors{lower}"))
    if use.pids and machine.pids:
        most = _times(machine.pids, use.pids)
        found.append(Bound(what="processes", most=most, key="kernel.pid_max, TasksMax or pids"))
    return found


def _fixed(specs: list[ServerSpec], config: Config, machine: Machine) -> list[Bound]:
    """Give the bounds that do not."""
    gate, found = config.gate, []
    limits = sum(spec.restraint.memory_bytes for spec in specs)
    shared = sum(
        spec.restraint.memory_bytes
        for spec in config.servers
        if spec.runtime != REMOTE and spec.isolation is Isolation.SHARED
    )
    if gate.memory_budget_bytes and limits:
        most = _times(gate.memory_budget_bytes - shared, limits)
        found.append(Bound(what="memory_budget", most=most, key="[gate] memory_budget"))
    if gate.max_running:
        most = _times(gate.max_running, len(specs))
        found.append(Bound(what="max_running", most=most, key="[gate] max_running"))
    for spec in specs:
        if spec.max_instances:
            key = f"[server:{spec.name}] max_instances"
            found.append(Bound(what="max_instances", most=spec.max_instances, key=key))
    if machine.open_files:
        files = _CLIENT_FILES + sum(_FILES.get((s.runtime, s.transport), 4) for s in specs)
        most = _times(machine.open_files - _BASE_FILES, files)
        found.append(Bound(what="open files", most=most, key="LimitNOFILE of the gate"))
    published = config.docker.reach == "published"
    ports = sum(
        spec.transport.listens and (spec.runtime == "process" or published) for spec in specs
    )
    if machine.ports and ports:
        most = _times(machine.ports, ports)
        found.append(Bound(what="ports", most=most, key="net.ipv4.ip_local_port_range"))
    networks = len(
        {s.container.egress for s in specs if s.runtime == "docker" and needs_network(s)}
    )
    if networks:
        subnets = config.docker.subnets.num_addresses // _SUBNET_SIZE
        most = _times(subnets, networks)
        found.append(Bound(what="networks", most=most, key="[docker] subnets"))
    return found


def sizes(config: Config, seen: Mapping[str, Use]) -> list[Size]:
    """Tell what machines of other sizes carry, with what a system and a gate are taken to use."""
    specs = own_copies(config)
    limit = together([limit_of(spec) for spec in specs]) or Use()
    use = together([seen.get(spec.name) for spec in specs]) or Use()
    found = []
    for size in SIZES:
        free = max(0, size - ASSUMED_OTHERS - ASSUMED_GATE - int(shared_bytes(config, seen)))
        found.append(
            Size(
                memory_bytes=size,
                for_servers_bytes=free,
                at_limit=_times(free, limit.memory_bytes) if limit.memory_bytes else None,
                measured=_times(free, use.memory_bytes) if use.memory_bytes else None,
            )
        )
    return found
