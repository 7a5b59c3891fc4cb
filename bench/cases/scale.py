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
from bench.lab.memory import Memory, grown
from bench.lab.usage import usage

SESSIONS, KEYS = 10_000, 1000
OPEN, CALL = "10 000 sessions", "32 clients"
FEW, MANY = f"{GATE}, 1 key, 32 sessions", f"{GATE}, 1 000 keys, 10 000 sessions"


def run(lab: Lab) -> None:
    """Measure."""
    clients = lab.size(32, 4)
    sessions, keys = lab.size(SESSIONS, 60), lab.size(KEYS, 10)
    if lab.profiles is not None and not lab.smoke:
        sessions, keys = sessions // 10, keys // 10  # Who is looked into is slow.
    memory = Memory(lab.place("memory")) if lab.profiles is not None else None
    few = Gate(lab, stdio("io", echo.command()))
    many = Gate(
        lab,
        stdio("io", echo.command()),
        keys=keys,
        before=memory.code if memory is not None else "",
    )
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
    taken = memory.take(many.pid) if memory is not None else {}
    told = tell(lab, {**task, "handshakes": sessions})
    after = usage(many.pid, without=echo.MARK)
    if memory is not None:
        taken_after = memory.take(many.pid)
        lab.outcome.profiles.append(grown(taken, taken_after, sessions, "a session"))
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
