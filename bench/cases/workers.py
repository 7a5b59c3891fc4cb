"""
Two worker processes on two cores beside one process: the relay, in clear and over TLS.

The load has to share the two cores, so a ratio of two is out of reach on a machine with two.
"""

from __future__ import annotations

from functools import partial

from bench.lab import cores
from bench.lab.gate import Gate, remote
from bench.lab.lab import Case, Lab
from bench.lab.load import Load
from bench.lab.running import NotHereError
from bench.lab.upstream import Upstream
from mcpgate.config.schema import GATE as KEYS

WORKS = {"relay, in clear": False, "relay, TLS": True}
ONE, TWO = "mcpgate, one process", "mcpgate, two workers"


def run(lab: Lab) -> None:
    """Measure."""
    if not any(key.name == "workers" for key in KEYS.keys):
        raise NotHereError("this gate has no worker processes yet")
    if not cores.are_apart():
        raise NotHereError("this machine has one core")
    upstream = Upstream(lab)
    gates = {
        name: Gate(
            lab,
            remote("srv", upstream.port, "relay = on"),
            gate=f"workers = {workers}\n",
            core=cores.for_both,
        )
        for name, workers in ((ONE, 1), (TWO, 2))
    }
    for work, tls in WORKS.items():
        turns = {}
        for name, gate in gates.items():
            port = gate.tls_port if tls else gate.port
            turn = Load(lab, gate.key).turn
            turns[name] = partial(turn, port, "/srv/json", gate.pid, tls=tls)
        lab.interleave(work, turns)


CASE = Case("workers", "two worker processes beside one", run)
