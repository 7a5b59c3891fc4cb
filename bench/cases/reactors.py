"""
The gate on the reactors it could run on: epoll, its own; asyncio; asyncio with uvloop's loop.

The relay of a small call, and ``tools/call`` to a stdio server.  What the explanation of figures
says of it decided that there is no option for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

from bench.lab import echo
from bench.lab.calls import call
from bench.lab.gate import REACTORS, Gate, remote, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.load import Load
from bench.lab.running import BenchError
from bench.lab.upstream import Upstream

RELAY, TLS, STDIO = "relay, in clear", "relay, TLS", "tools/call, stdio server"


def name_of(reactor: str) -> str:
    """Name a contender."""
    return GATE if reactor == "epoll" else f"{GATE}, {reactor}"


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    servers = remote("srv", upstream.port, "relay = on") + stdio("io", echo.command())

    def start(reactor: str) -> Gate:
        if reactor == "uvloop" and importlib.util.find_spec("uvloop") is None:
            raise BenchError("uvloop is not installed")
        return Gate(lab, servers, reactor=reactor)

    gates = lab.assemble(
        [RELAY, TLS, STDIO],
        {name_of(reactor): partial(start, reactor) for reactor in REACTORS},
    )
    works: dict[str, dict[str, Callable[[], dict[str, float]]]] = {RELAY: {}, TLS: {}, STDIO: {}}
    clients = lab.size(32, 4)
    for name, gate in gates.items():
        load = Load(lab, gate.key)
        works[RELAY][name] = partial(load.turn, gate.port, "/srv/json", gate.pid)
        works[TLS][name] = partial(load.turn, gate.tls_port, "/srv/json", gate.pid, tls=True)
        works[STDIO][name] = partial(
            call, lab, gate.port, "/io/mcp", pid=gate.pid, clients=clients, keys=gate.keys
        )
    for work, turns in works.items():
        lab.interleave(work, turns)


CASE = Case("reactors", "the gate on epoll, on asyncio, and on uvloop", run)
