"""
A gate with 1 000 keys and 10 000 open sessions beside one with a key and a few sessions.

Memory of a session is what the gate grows by while they are opened, divided by their number: with
what it keeps for each key.
"""

from __future__ import annotations

from functools import partial

from bench.lab import echo
from bench.lab.calls import call, tell
from bench.lab.gate import Gate, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.usage import usage

SESSIONS, KEYS = 10_000, 1000
OPEN, CALL = "10 000 sessions", "32 clients"
FEW, MANY = f"{GATE}, 1 key, 32 sessions", f"{GATE}, 1 000 keys, 10 000 sessions"


def run(lab: Lab) -> None:
    """Measure."""
    clients = lab.size(32, 4)
    sessions, keys = lab.size(SESSIONS, 60), lab.size(KEYS, 10)
    few = Gate(lab, stdio("io", echo.command()))
    many = Gate(lab, stdio("io", echo.command()), keys=keys)
    task = {
        "port": many.port,
        "path": "/io/mcp",
        "tool": "echo",
        "era": "legacy",
        "keys": many.keys,
        "clients": clients,
        "seconds": 0.1,
        "warm_seconds": 0.1,
    }
    tell(lab, task)
    before = usage(many.pid, without=echo.MARK)
    told = tell(lab, {**task, "handshakes": sessions})
    after = usage(many.pid, without=echo.MARK)
    lab.outcome.add(
        OPEN,
        GATE,
        kb_each=(after.rss_mib - before.rss_mib) * 1024 / sessions,
        open_ms=told["hands_ms"],
        rss_mib=after.rss_mib,
    )
    lab.interleave(
        CALL,
        {
            name: partial(
                call,
                lab,
                gate.port,
                "/io/mcp",
                pid=gate.pid,
                clients=clients,
                keys=gate.keys,
            )
            for name, gate in ((FEW, few), (MANY, many))
        },
    )


CASE = Case("scale", "1 000 keys and 10 000 open sessions", run)
