"""
``tools/call`` with limits nobody meets, beside the same without limits.

That the limits are counted is tried first, on a gate whose limits are met.  What they take is a
few percent: look at the time of the processor, and at ``python -m bench --count``.
"""

from __future__ import annotations

from functools import partial

from bench.lab import echo
from bench.lab.calls import call
from bench.lab.gate import NO_LIMITS, PLENTY, Gate, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.running import BenchError
from bench.programs.mcp_load import Client, LoadError

WORK = "32 clients"
ON, OFF = f"{GATE}, limits on", f"{GATE}, limits off"
_OF_SERVER = "rate = {0}/s\nburst = {0}"
# Lower than what one client asks for; the same keys as in the limits nobody meets.
_TIGHT, _CALLS = 10, 60


def refused(lab: Lab, limits: str, server: str) -> int:
    """Tell how many of some calls in a row a gate with these limits refuses."""
    gate = Gate(lab, stdio("io", echo.command(), server), limits=limits)
    task = {"port": gate.port, "path": "/io/mcp", "era": "legacy", "keys": gate.keys}
    client, count = Client(task, 0), 0
    client.shake_hands()
    client.prepare("echo")
    for _ in range(_CALLS):
        client.id += 1
        try:
            client.ask(b"%b%d%b" % (client.before, client.id, client.after))
        except LoadError as error:
            count += "rate_limited" in str(error)
    gate.stop()
    return count


def run(lab: Lab) -> None:
    """Measure; :raises BenchError: limits are not counted as they are configured."""
    plenty = _OF_SERVER.format(1_000_000)
    tight = PLENTY.replace("1000000", str(_TIGHT))
    for limits, server in ((tight, plenty), (PLENTY, _OF_SERVER.format(_TIGHT))):
        if not refused(lab, limits, server):
            raise BenchError("limits that have to be met refuse nothing")
    turns = {}
    for name, limits, rate in ((ON, PLENTY, plenty), (OFF, NO_LIMITS, "")):
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
    if percent := lab.outcome.ratio(WORK, "cpu_us", ON, OFF):
        lab.outcome.note(f"limits take {percent - 1:+.1%} of the processor's time of a call")


CASE = Case("limiter", "limits on keys, addresses and servers, on and off", run)
