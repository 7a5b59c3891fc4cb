"""What a process and everything below it has used: read from ``/proc``, of nobody else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


@dataclass(frozen=True)
class Usage:
    """
    Use of a tree of processes.

    :ivar cpu_s: processor time since they began, that of children that ended among it.
    :ivar rss_mib: resident memory now; what processes share counts in each.
    """

    cpu_s: float
    rss_mib: float
    processes: int


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


def usage(pid: int, *, without: str = "") -> Usage:
    """
    Tell what a process and its descendants used.

    :param without: programs whose script is called so are left out: servers behind a proxy.
    """
    cpu_s, rss, count = 0.0, 0, 0
    for one in descendants(pid):
        if without and _script(one).endswith(without):
            continue
        fields = _stat(one)
        if fields:
            cpu_s += sum(int(field) for field in fields[11:15]) * _TICK_S
            rss += int(fields[21]) * _PAGE
            count += 1
    return Usage(cpu_s, rss / _MIB, count)


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


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
