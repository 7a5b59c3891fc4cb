"""What a process and everything below it has used: read from ``/proc``, of nobody else."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
# Of the three clocks of a process, the one of the scheduler (see clock_getcpuclockid(3)).
_SCHED = 2


@dataclass(frozen=True)
class Usage:
    """
    Use of a tree of processes.

    :ivar cpu_s: processor time since they began, that of children that ended among it.
    :ivar waited_s: how long their first threads were ready to run and others had the core.
    :ivar rss_mib: resident memory now; what processes share counts in each.
    """

    cpu_s: float
    rss_mib: float
    processes: int
    waited_s: float = 0.0

    def since(self, before: Usage, seconds: float, times: float) -> dict[str, float]:
        """
        Give figures of a turn that has ended.

        :param seconds: how long it took.
        :param times: how often the work was done in it.
        """
        cpu_s = self.cpu_s - before.cpu_s
        return {
            "cpu_us": cpu_s / times * 1e6,
            "busy_percent": cpu_s / seconds * 100,
            "waited_percent": max(0.0, self.waited_s - before.waited_s) / seconds * 100,
            "rss_mib": self.rss_mib,
        }


def descendants(pid: int) -> Iterator[int]:
    """Give a process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += parents.get(one, [])


def usage(pid: int, *, without: str = "", only: bool = False) -> Usage:
    """
    Tell what a process and its descendants used.

    :param only: leave its descendants out.
    :param without: programs whose script is called so are left out: servers behind a proxy.
    """
    cpu_s, waited_s, rss, count = 0.0, 0.0, 0, 0
    for one in [pid] if only else descendants(pid):
        if without and _script(one).endswith(without):
            continue
        fields = _stat(one)
        if fields:
            cpu_s += _clock_s(one, fields) + (int(fields[13]) + int(fields[14])) * _TICK_S
            waited_s += _waited_s(one)
            rss += int(fields[21]) * _PAGE
            count += 1
    return Usage(cpu_s, rss / _MIB, count, waited_s)


def cpu_of_each(pid: int) -> dict[int, float]:
    """Give the processor time, in seconds, of a process and of each below it."""
    return {one: _clock_s(one, fields) for one in descendants(pid) if (fields := _stat(one))}


def forget_peak(pid: int) -> None:
    """Begin to look anew for the most memory a process and its descendants take."""
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{one}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """Give the most they took since `forget_peak`, each for itself, added up."""
    total = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
    return total / 1024


def _script(pid: int) -> str:
    """Give the first argument of a process; empty when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[1].decode("utf-8", "replace") if len(words) > 1 else ""


def began(pid: int) -> str:
    """Give what tells a process from a later one with its id; empty when it is gone."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _clock_s(pid: int, fields: list[str]) -> float:
    """Read the process's own clock, which knows nanoseconds where ``stat`` counts ticks."""
    try:
        return time.clock_gettime((~pid << 3) | _SCHED)
    except OSError:
        return (int(fields[11]) + int(fields[12])) * _TICK_S


def _waited_s(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
