"""From nothing to a gate that listens, with one server configured and with 100; and its memory."""

# ruff: noqa: TID251

from __future__ import annotations

import time
from functools import partial

from bench.lab import echo, imports
from bench.lab.gate import Gate, stdio
from bench.lab.lab import GATE, Case, Lab

SERVERS = (1, 100)


def work(servers: int) -> str:
    """Name the work."""
    return f"{servers} server{'s' if servers > 1 else ''}"


def start(lab: Lab, servers: int) -> dict[str, float]:
    """Start a gate and end it; give how long it took to listen, and its memory once it is ready."""
    entries = "".join(stdio(f"s{number}", echo.command()) for number in range(servers))
    gate = Gate(lab, entries)
    try:
        time.sleep(lab.size(0.5, 0.0))
        return {"time_ms": gate.listening_s * 1000, "rss_mib": gate.usage().rss_mib}
    finally:
        gate.stop()


def run(lab: Lab) -> None:
    """Measure."""
    if lab.profiles is not None:
        lab.outcome.profiles += imports.profile()
        return
    start(lab, 1)  # What Python compiles once for all is there from now on.
    for servers in SERVERS:
        rounds = lab.size(max(5, lab.rounds), 1)
        lab.interleave(work(servers), {GATE: partial(start, lab, servers)}, rounds, warm=False)


CASE = Case("cold-start", "from nothing to a gate that listens", run)
