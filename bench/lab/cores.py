"""
Which program runs on which core.

What is measured has one core for itself; clients and the servers behind it share another, so that
neither makes the other look slow.  On a machine with one core nothing is pinned.
"""

from __future__ import annotations

import os
import shutil

_CORES = sorted(os.sched_getaffinity(0))


def are_apart() -> bool:
    """Tell whether load and proxies have a core each."""
    return len(_CORES) > 1 and shutil.which("taskset") is not None


def for_proxy() -> list[str]:
    """Give what stands before the command of what is measured."""
    return _pinned(0)


def for_load() -> list[str]:
    """Give what stands before the command of clients, and of servers behind what is measured."""
    return _pinned(1)


def for_both() -> list[str]:
    """Give what stands before the command of what may use two cores."""
    return ["taskset", "-c", f"{_CORES[0]},{_CORES[1]}"] if are_apart() else []


def _pinned(number: int) -> list[str]:
    return ["taskset", "-c", str(_CORES[number])] if are_apart() else []
