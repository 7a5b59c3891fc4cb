"""What every exporter tells of its own process, under the names that all of them use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpgate.telemetry.families import Family, counter, gauge

PROC: Final = Path("/proc")


def process_families(proc: Path = PROC) -> Iterator[Family]:
    """Read ``/proc``; blocks for less than a millisecond.  What can not be read is left out."""
    own = proc / "self"
    try:
        booted_at = _after(proc / "stat", "btime ")
        # The name, in brackets, may hold anything; what follows it are numbers.
        told = (own / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        fields = told.split()
        ticks = os.sysconf("SC_CLK_TCK")
        yield gauge(
            "process_virtual_memory_bytes", "Virtual memory size in bytes.", int(fields[20])
        )
        yield gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        )
        yield gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            booted_at + int(fields[19]) / ticks,
        )
        yield counter(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds.",
            (int(fields[11]) + int(fields[12])) / ticks,
        )
        yield gauge(
            "process_open_fds", "Number of open file descriptors.", len(os.listdir(own / "fd"))
        )
        yield gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            _after(own / "limits", "Max open files"),
        )
    except (OSError, ValueError, IndexError):
        return


def _after(file: Path, begin: str) -> float:
    """Give the first number of the line that begins so; :raises ValueError: there is none."""
    for line in file.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(begin):
            return float(line.removeprefix(begin).split()[0])
    raise ValueError(begin)
