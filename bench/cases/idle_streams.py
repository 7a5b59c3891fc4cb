"""
10 000 clients that hold an event stream each and wait: memory of each, and the time they cost.

In clear and with TLS, on a gate each.  Memory of a stream is what the gate grows by while the
streams are opened, when their sessions are there already, which the case ``scale`` counts.  The
processor is watched for longer than a keep-alive period.
"""

# ruff: noqa: TID251

from __future__ import annotations

import json
import resource
import time

from bench.lab import cores, echo
from bench.lab.gate import Gate, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.memory import Memory, grown
from bench.lab.running import BenchError, python
from bench.lab.talking import Talking
from bench.lab.usage import usage

STREAMS = 10_000
WORKS = {"in clear": False, "TLS": True}
# Descriptors that the gate and its clients need beside the streams.
_SPARE = 1000
_GATE = """\
max_connections = {room}
streams_per_key = 0
sse_keepalive = 25s
"""


def hold(lab: Lab, streams: int, *, tls: bool) -> dict[str, float]:
    """Open the streams and watch; :raises BenchError: they can not be opened, or do not live."""
    memory = Memory(lab.place("memory")) if lab.profiles is not None else None
    gate = Gate(
        lab,
        stdio("io", echo.command()),
        gate=_GATE.format(room=streams + 500),
        before=memory.code if memory is not None else "",
    )
    task = {
        "port": gate.tls_port if tls else gate.port,
        "path": "/io/mcp",
        "keys": gate.keys,
        "streams": streams,
        "tls": tls,
    }
    command = [*cores.for_load(), *python("idle_clients", json.dumps(task))]
    clients = Talking(command, lab.scratch)
    try:
        clients.told(240.0)
        before = usage(gate.pid, without=echo.MARK)
        taken = memory.take(gate.pid) if memory is not None else {}
        clients.go_on()
        clients.told(240.0)
        time.sleep(lab.size(2.0, 0.1))
        opened = usage(gate.pid, without=echo.MARK)
        if memory is not None:
            of = f"a stream, {'TLS' if tls else 'in clear'}"
            lab.outcome.profiles.append(grown(taken, memory.take(gate.pid), streams, of))
        watched_s = lab.size(26.0 if memory is None else 0.5, 0.5)
        time.sleep(watched_s)
        idle = usage(gate.pid, without=echo.MARK)
        clients.go_on()
        living = clients.told(60.0)["living"]
    finally:
        clients.stop()
        gate.stop()
    if living < streams:
        raise BenchError(f"{streams - living} of {streams} streams were closed")
    return {
        "kb_each": (opened.rss_mib - before.rss_mib) * 1024 / streams,
        "cpu_percent": (idle.cpu_s - opened.cpu_s) / watched_s * 100,
        "streams": streams,
        "rss_mib": opened.rss_mib,
    }


def run(lab: Lab) -> None:
    """Measure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    streams = lab.size(STREAMS if lab.profiles is None else STREAMS // 5, 20)
    if hard - _SPARE < streams:
        streams = hard - _SPARE
        lab.outcome.note(f"{streams} streams: this machine lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        for work, tls in WORKS.items():
            try:
                lab.outcome.add(work, GATE, **hold(lab, streams, tls=tls))
            except BenchError as error:
                lab.outcome.fail(work, GATE, str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CASE = Case("idle-streams", "10 000 event streams that nothing happens on", run)
