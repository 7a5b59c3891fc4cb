"""Two worker processes on two cores beside one: the relay, with the load on both cores as well."""

from __future__ import annotations

from functools import partial

from bench.lab import cores
from bench.lab.gate import Gate, remote
from bench.lab.lab import Case, Lab
from bench.lab.load import Load
from bench.lab.running import NotHereError
from bench.lab.upstream import Upstream
from mcpgate.config.schema import GATE as KEYS

WORK = "relay"
ONE, TWO = "mcpgate, one process", "mcpgate, two workers"


def run(lab: Lab) -> None:
    """Measure."""
    if not any(key.name == "workers" for key in KEYS.keys):
        raise NotHereError("this gate has no worker processes yet")
    if not cores.are_apart():
        raise NotHereError("this machine has one core")
    upstream = Upstream(lab)
    turns = {}
    for name, workers in ((ONE, 1), (TWO, 2)):
        gate = Gate(
            lab,
            remote("srv", upstream.port, "relay = on"),
            gate=f"workers = {workers}\n",
            core=cores.for_both,
        )
        turns[name] = partial(Load(lab, gate.key).turn, gate.port, "/srv/json", gate.pid)
    lab.interleave(WORK, turns)


CASE = Case("workers", "two worker processes beside one", run)
