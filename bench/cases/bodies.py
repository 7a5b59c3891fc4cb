"""
Bodies of 100 MB through the relay, up and down, and what memory they take on their way.

nginx passes them on as they come, as the gate does, and writes no temporary files.
"""

from __future__ import annotations

import json
from functools import partial

from bench.lab import cores
from bench.lab.gate import Gate, remote
from bench.lab.lab import GATE, Case, Lab
from bench.lab.nginx import NGINX, WebServer, nginx
from bench.lab.running import BenchError, python, run_json
from bench.lab.upstream import Upstream
from bench.lab.usage import forget_peak, peak_mib, usage

MB = 1_000_000
UP, DOWN, TLS = "100 MB up", "100 MB down", "100 MB down, TLS"


def carry(
    lab: Lab, key: str, port: int, path: str, pid: int, *, up: bool, tls: bool = False
) -> dict[str, float]:
    """Carry a body, some times; :raises BenchError: it did not arrive whole."""
    size, times = lab.size(100 * MB, 4 * MB), lab.size(3, 1)
    task = {
        "port": port,
        "path": path if up else f"{path}/{size}",
        "key": key,
        "bytes": size,
        "times": times,
        "up": up,
        "tls": tls,
    }
    forget_peak(pid)
    before = usage(pid)
    command = [*cores.for_load(), *python("body_load", json.dumps(task))]
    told = run_json(command, lab.scratch, 120.0)
    if told["why"]:
        raise BenchError(told["why"])
    after = usage(pid)
    carried_mb = size * times / MB
    return {
        "mb_s": carried_mb / told["seconds"],
        "cpu_ms_mb": (after.cpu_s - before.cpu_s) / carried_mb * 1000,
        "rss_mib": after.rss_mib,
        "grown_mib": max(0.0, peak_mib(pid) - before.rss_mib),
    }


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    gate = Gate(lab, remote("srv", upstream.port, "relay = on\nrelay_max_body = 0"))
    made = lab.assemble(
        [UP, DOWN, TLS],
        {
            NGINX: partial(
                nginx, lab, upstream.port, gate.key, certificate=gate.certificate, streaming=True
            )
        },
    )
    proxies: dict[str, Gate | WebServer] = {GATE: gate, **made}
    for work, path, up in ((UP, "/up", True), (DOWN, "/down", False)):
        turn = partial(carry, lab, gate.key, up=up)
        turns = {"direct": partial(turn, upstream.port, path, upstream.pid)}
        for name, proxy in proxies.items():
            turns[name] = partial(turn, proxy.port, f"/srv{path}", proxy.pid)
        lab.interleave(work, turns)
    secure = partial(carry, lab, gate.key, up=False, tls=True)
    lab.interleave(
        TLS,
        {
            name: partial(secure, proxy.tls_port, "/srv/down", proxy.pid)
            for name, proxy in proxies.items()
        },
    )


CASE = Case("bodies", "bodies of 100 MB through the relay", run, lives=2)
