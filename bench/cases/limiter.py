"""``tools/call`` with limits nobody meets, beside the same without limits."""

from __future__ import annotations

from functools import partial

from bench.lab import echo
from bench.lab.calls import call
from bench.lab.gate import NO_LIMITS, PLENTY, Gate, stdio
from bench.lab.lab import GATE, Case, Lab

WORK = "32 clients"
ON, OFF = f"{GATE}, limits on", f"{GATE}, limits off"


def run(lab: Lab) -> None:
    """Measure."""
    turns = {}
    for name, limits, rate in (
        (ON, PLENTY, "rate = 1000000/s\nburst = 1000000"),
        (OFF, NO_LIMITS, ""),
    ):
        gate = Gate(lab, stdio("io", echo.command(), rate), limits=limits)
        turns[name] = partial(
            call,
            lab,
            gate.port,
            "/io/mcp",
            pid=gate.pid,
            clients=lab.size(32, 4),
            keys=gate.keys,
        )
    lab.interleave(WORK, turns)


CASE = Case("limiter", "limits on keys, addresses and servers, on and off", run)
