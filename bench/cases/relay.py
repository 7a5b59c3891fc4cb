"""
A small JSON call through the relay, in clear: the gate beside nginx, HAProxy and a first attempt.

Every proxy checks a key and keeps connections on both sides open.  ``direct`` is the server
without a proxy, which has to be far faster than any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.lab import cores
from bench.lab.gate import Gate, remote
from bench.lab.lab import GATE, Case, Lab
from bench.lab.load import Load
from bench.lab.nginx import HAPROXY, NGINX, haproxy, nginx
from bench.lab.running import Program, free_port, python
from bench.lab.upstream import Upstream

DIRECT = "direct"
NAIVE = "Klein + treq"
WORK = "32 connections"


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    gate = Gate(lab, remote("srv", upstream.port, "relay = on"))
    load = Load(lab, gate.key)
    naive_port = free_port()

    def naive() -> Program:
        words = python("naive", naive_port, upstream.port, gate.key)
        return lab.start("naive", [*cores.for_proxy(), *words], naive_port)

    turns: dict[str, Callable[[], dict[str, float]]] = {
        DIRECT: partial(load.turn, upstream.port, "/json", upstream.pid),
        GATE: partial(load.turn, gate.port, "/srv/json", gate.pid),
    }
    servers = lab.assemble(
        [WORK],
        {
            NGINX: lambda: nginx(lab, upstream.port, gate.key),
            HAPROXY: lambda: haproxy(lab, upstream.port, gate.key),
        },
    )
    for name, server in servers.items():
        turns[name] = partial(load.turn, server.port, "/srv/json", server.pid)
    for name, program in lab.assemble([WORK], {NAIVE: naive}).items():
        turns[name] = partial(load.turn, naive_port, "/srv/json", program.pid)
    lab.interleave(WORK, turns)


CASE = Case("relay", "a small JSON call through the relay, in clear", run, lives=4)
