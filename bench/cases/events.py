"""
Streams of 1 000 events through the relay: the gate beside nginx, neither of which may hold any.

The time of the processor is that of one event.
"""

from __future__ import annotations

import json
from functools import partial

from bench.lab import cores
from bench.lab.gate import Gate, remote
from bench.lab.lab import GATE, Case, Lab
from bench.lab.nginx import NGINX, nginx
from bench.lab.running import BenchError, python, run_json
from bench.lab.upstream import Upstream

WORK = "1 000 events"
EVENTS, CLIENTS = 1000, 8


def read(lab: Lab, key: str, port: int, path: str, pid: int) -> dict[str, float]:
    """Read streams for a turn; :raises BenchError: one was not whole."""
    task = {
        "port": port,
        "path": path,
        "key": key,
        "pid": pid,
        "events": EVENTS,
        "clients": lab.size(CLIENTS, 2),
        "seconds": lab.seconds,
    }
    command = [*cores.for_load(), *python("stream_load", json.dumps(task))]
    told = run_json(command, lab.scratch, lab.seconds + 60.0)
    if told["why"]:
        raise BenchError(told["why"])
    return {
        "events": told["events"] / told["seconds"],
        **{kind: told[kind] for kind in ("cpu_us", "busy_percent", "waited_percent", "rss_mib")},
    }


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    gate = Gate(lab, remote("srv", upstream.port, "relay = on"))
    path = f"/events/{EVENTS}"
    servers = {
        "direct": (upstream.port, path, upstream.pid),
        GATE: (gate.port, f"/srv{path}", gate.pid),
    }
    made = lab.assemble(
        [WORK], {NGINX: partial(nginx, lab, upstream.port, gate.key, streaming=True)}
    )
    for name, server in made.items():
        servers[name] = (server.port, f"/srv{path}", server.pid)
    turn = partial(read, lab, gate.key)
    lab.interleave(WORK, {name: partial(turn, *where) for name, where in servers.items()})


CASE = Case("events", "streams of 1 000 events through the relay", run)
