"""Messages over WebSocket through the relay and back: the gate beside nginx and no proxy."""

from __future__ import annotations

import json
from functools import partial

from bench.lab import cores
from bench.lab.gate import Gate, remote
from bench.lab.lab import GATE, Case, Lab
from bench.lab.nginx import NGINX, nginx
from bench.lab.running import BenchError, python, run_json
from bench.lab.upstream import Upstream

WORK = "8 connections"
CLIENTS = 8


def echo(lab: Lab, key: str, port: int, path: str, pid: int) -> dict[str, float]:
    """Send messages for a turn; :raises BenchError: one did not come back."""
    task = {
        "port": port,
        "path": path,
        "key": key,
        "pid": pid,
        "clients": lab.size(CLIENTS, 2),
        "seconds": lab.seconds,
    }
    command = [*cores.for_load(), *python("ws_load", json.dumps(task))]
    told = run_json(command, lab.scratch, lab.seconds + 60.0)
    if why := told.pop("why"):
        raise BenchError(why)
    return told


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    gate = Gate(lab, remote("srv", upstream.port, "relay = on"))
    servers = {
        "direct": (upstream.port, "/ws", upstream.pid),
        GATE: (gate.port, "/srv/ws", gate.pid),
    }
    made = lab.assemble(
        [WORK], {NGINX: partial(nginx, lab, upstream.port, gate.key, streaming=True)}
    )
    for name, server in made.items():
        servers[name] = (server.port, "/srv/ws", server.pid)
    turn = partial(echo, lab, gate.key)
    lab.interleave(WORK, {name: partial(turn, *where) for name, where in servers.items()})


CASE = Case("websocket", "WebSocket messages through the relay and back", run)
