"""
Two worker processes on two cores beside one process: the relay, in clear and over TLS.

Clients and the server behind share the two cores with them, so the rate says little on a machine
with two.  *Could do* is what the processes themselves would reach if they had two cores alone: by
the time of the processor of all of them together, and of the busiest, which has one core at most.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial

from bench.lab import cores
from bench.lab.figures import Outcome
from bench.lab.gate import Gate, remote
from bench.lab.lab import Case, Lab
from bench.lab.load import Load
from bench.lab.running import NotHereError
from bench.lab.upstream import Upstream
from bench.lab.usage import cpu_of_each, usage

WORKS = {"relay, in clear": False, "relay, TLS": True}
ONE, TWO = "mcpgate, one process", "mcpgate, two workers"
_CORES = 2


def work_of(
    gate: Gate, upstream: Upstream, turn: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Do a turn; add what the processes could do, and what the load took of the cores."""
    before, behind_s = cpu_of_each(gate.pid), _load_s(upstream)
    figures = turn()
    behind_s = _load_s(upstream) - behind_s
    spent = [cpu_s - before.get(one, 0.0) for one, cpu_s in cpu_of_each(gate.pid).items()]
    whole_s = max(1e-9, sum(spent))
    busiest = max(spent) / whole_s
    return {
        **figures,
        "capacity": min(1 / busiest, _CORES) * 1e6 / figures["cpu_us"],
        "busiest_percent": busiest * 100,
        "load_us": behind_s / whole_s * figures["cpu_us"],
    }


def _load_s(upstream: Upstream) -> float:
    """Tell what clients that have ended, and the server behind, took of the processor."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + usage(upstream.pid).cpu_s


def run(lab: Lab) -> None:
    """Measure."""
    if not cores.are_apart():
        raise NotHereError("this machine has one core")
    upstream = Upstream(lab)
    gates = {
        name: Gate(
            lab,
            remote("srv", upstream.port, "relay = on"),
            gate=f"workers = {workers}\n",
            core=cores.for_both,
            called=called,
        )
        for name, workers, called in (
            (ONE, 1, "one process"),
            (TWO, 2, "the owner behind two workers"),
        )
    }
    for work, tls in WORKS.items():
        turns = {}
        for name, gate in gates.items():
            port = gate.tls_port if tls else gate.port
            turn = partial(Load(lab, gate.key).turn, port, "/srv/json", gate.pid, tls=tls)
            turns[name] = partial(work_of, gate, upstream, turn)
        lab.interleave(work, turns)
        _say_bound(lab.outcome, work)


def _say_bound(outcome: Outcome, work: str) -> None:
    """Say how much the rate itself can grow where the load has to share the cores."""
    one_us, two_us, load_us = (
        outcome.median(work, name, kind)
        for name, kind in ((ONE, "cpu_us"), (TWO, "cpu_us"), (TWO, "load_us"))
    )
    if one_us and two_us and load_us:
        outcome.note(
            f"{work}: beside {two_us:.0f} us of two workers a request takes {load_us:.0f} us of "
            "clients and of the server behind: on two cores that all share, the rate of two "
            f"workers can not be more than {_CORES * one_us / (two_us + load_us):.2f} x that of one"
        )


CASE = Case("workers", "two worker processes beside one", run)
