"""``mcpgate capacity``: what this machine can carry, by configuration and by measurement."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from mcpgate.cli.control_client import (
    NO_GATE,
    SOCKET_NAME,
    CommandError,
    ControlClient,
    mebibytes,
    print_json,
    print_table,
)
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.model import GIB
from mcpgate.service.machine import MachineFiles
from mcpgate.service.sizing import (
    ASSUMED_GATE,
    Bound,
    Machine,
    Row,
    Use,
    rows,
    shared_bytes,
    sizes,
)

_ASK_S: Final = 5.0
_LEAST_UPTIME_S: Final = 30.0


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "capacity",
        help="tell how many users this machine carries, and what is the first bound",
        description="Tell how many copies of each server this machine carries: if each takes all "
        "it may, and, where a gate runs, as they are seen to use. Nothing is started or changed.",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("gate.ini"), metavar="FILE", help="(gate.ini)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the same")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    try:
        config = read_config(arguments.config or arguments.file, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        pid, seen, used = measure(ControlClient(config.gate.state_dir / SOCKET_NAME))
    except CommandError as error:
        if error.code != NO_GATE:
            print(f"mcpgate: not measured: {error}", file=sys.stderr)
        pid, seen, used = None, {}, 0
    machine = this_machine(MachineFiles(), pid, used)
    found = rows(config, machine, seen)
    if arguments.format == "json":
        print_json(
            {
                "machine": asdict(machine),
                "measured": pid is not None,
                "shared_bytes": round(shared_bytes(config, seen)),
                "rows": [asdict(row) for row in found],
                "sizes": [asdict(size) for size in sizes(config, seen)],
            }
        )
    else:
        _print(config, machine, found, seen, measured=pid is not None)
    return 0


def measure(gate: ControlClient) -> tuple[int, dict[str, Use], int]:
    """
    Ask a running gate; give its pid, the mean use by server, and what all its servers use.

    :raises CommandError: no gate runs, or it does not answer.
    """
    pid = int(gate.get("/version", _ASK_S)["pid"])
    copies: dict[str, list[dict[str, Any]]] = {}
    for one in gate.get("/instances", _ASK_S)["instances"]:
        if one["state"] in ("running", "unresponsive") and one["memory_bytes"] is not None:
            copies.setdefault(one["server"], []).append(one)
    used = sum(one["memory_bytes"] for each in copies.values() for one in each)
    return pid, {server: mean(each) for server, each in copies.items()}, used


def mean(copies: Sequence[dict[str, Any]]) -> Use:
    """Tell what one of these takes on average; processors only of those that ran for a while."""
    shares = [
        one["cpu_s"] / one["uptime_s"]
        for one in copies
        if one["cpu_s"] is not None and (one["uptime_s"] or 0) >= _LEAST_UPTIME_S
    ]
    pids = [one["processes"] for one in copies if one["processes"]]
    return Use(
        memory_bytes=sum(one["memory_bytes"] for one in copies) / len(copies),
        cpus=sum(shares) / len(shares) if shares else None,
        pids=sum(pids) / len(pids) if pids else None,
        seen=len(copies),
    )


def this_machine(files: MachineFiles, pid: int | None, used: int) -> Machine:
    """
    Read what there is.

    :param pid: of the gate; None: none runs.
    :param used: memory of all its servers, bytes.
    """
    total, available = files.memory()
    gate = None if pid is None else files.resident(pid)
    others = total - available - used - (gate or 0)
    return Machine(
        memory_bytes=total,
        others_bytes=max(0, others),
        gate_bytes=ASSUMED_GATE if gate is None else gate,
        cpus=files.cpus(),
        pids=files.pids(),
        open_files=files.open_files(pid),
        ports=files.ports(),
    )


def _print(
    config: Config,
    machine: Machine,
    found: Sequence[Row],
    seen: dict[str, Use],
    *,
    measured: bool,
) -> None:
    gate = "gate" if measured else "gate (assumed)"
    shared = shared_bytes(config, seen)
    free = machine.memory_bytes - machine.others_bytes - machine.gate_bytes - shared
    print(
        f"Memory {mebibytes(machine.memory_bytes)}, other programs "
        f"{mebibytes(machine.others_bytes)}, {gate} {mebibytes(machine.gate_bytes)}, "
        f"shared servers {mebibytes(shared)}: {mebibytes(max(0, free))} for servers of users."
    )
    print(
        f"Processors {machine.cpus:g}, processes {machine.pids or '-'}, "
        f"open files {machine.open_files or '-'}, ports {machine.ports or '-'}.\n"
    )
    if not found:
        print("No server is started for each user: there is nothing to count.")
        return
    print_table(
        ("SERVER", "MEMORY", "CPUS", "FIT AT LIMIT", "FIRST BOUND", "NEXT", "CHANGE"),
        [_cells(row.name, row.limit, row.at_limit) for row in found],
    )
    if not measured:
        print("\nNo gate runs here: what servers really use was not measured.")
    elif not any(row.measured for row in found):
        print("\nNo server runs: what they really use was not measured.")
    else:
        print()
        print_table(
            ("SERVER", "MEMORY", "CPUS", "FIT MEASURED", "FIRST BOUND", "NEXT", "CHANGE", "SEEN"),
            [
                (*_cells(row.name, row.use, row.measured), row.use.seen)
                for row in found
                if row.use is not None and row.measured is not None
            ],
        )
    print("\nBy memory alone, users with one copy of each, on machines of other sizes:\n")
    print_table(
        ("MACHINE", "FOR SERVERS", "AT LIMIT", "MEASURED"),
        [
            (
                f"{size.memory_bytes // GIB}G",
                mebibytes(size.for_servers_bytes),
                size.at_limit,
                size.measured,
            )
            for size in sizes(config, seen)
        ],
    )


def _cells(name: str, use: Use, bounds: Sequence[Bound]) -> tuple[object, ...]:
    first = bounds[0] if bounds else None
    second = bounds[1] if len(bounds) > 1 else None
    return (
        *(name, mebibytes(use.memory_bytes), "-" if use.cpus is None else f"{use.cpus:.2f}"),
        None if first is None else first.most,
        None if first is None else first.what,
        None if second is None else f"{second.what} {second.most}",
        None if first is None else first.key,
    )
