"""
The longest turn of the reactor in everything that looks at many things at once.

`bench.scale` does it, with 100 000 sessions: sweeps, restores, scrapes, reloads, large messages.
Each row is one such work of the gate.  The clock's time of a turn grows where other programs want
the processor; the processor's does not.
"""

from __future__ import annotations

import re
import sys

from bench.lab import cores
from bench.lab.lab import Case, Lab
from bench.lab.running import ROOT, BenchError, run

_LINE = re.compile(r"^ +([\d.]+) +([\d.]+) +([\d.]+)  (.*?)(?:  over 50 ms)?$", re.MULTILINE)
_DEADLINE_S = 240.0
WORK = "100 000 sessions"


def measure(lab: Lab) -> None:
    """Measure."""
    words = lab.size([], ["--sessions", "500", "--servers", "10", "--only", "deadlines"])
    command = [*cores.for_proxy(), sys.executable, "-m", "bench.scale", *words]
    # It ends with 1 when a turn was too long: that is for the table to say.
    said = run(command, ROOT, _DEADLINE_S, good=(0, 1))
    found = _LINE.findall(said)
    if not found:
        raise BenchError("bench.scale told no turns")
    for longest_ms, cpu_ms, whole_ms, work in found:
        lab.outcome.add(
            WORK,
            work,
            stall_ms=float(longest_ms),
            turn_cpu_ms=float(cpu_ms),
            time_ms=float(whole_ms),
        )


CASE = Case("turns", "the longest turn of the reactor, with 100 000 sessions", measure)
