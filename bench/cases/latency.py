"""
What the gate adds to a call of one client when everything is warm: through it, and straight.

Straight is the same HTTP server without the gate, and the same stdio server at the end of a pipe.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.lab import echo
from bench.lab.calls import call, tell
from bench.lab.gate import Gate, remote, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.running import BenchError
from bench.lab.upstream import Upstream

DIRECT = "direct"
HTTP, STDIO = "HTTP server", "stdio server"


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    entries = [remote("srv", upstream.port), stdio("io", echo.command())]
    gate = Gate(lab, "".join(entries))

    def pipe() -> dict[str, float]:
        task = {"command": echo.command(), "tool": "echo", "seconds": lab.seconds}
        told = tell(lab, task)
        return {"p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"]}

    ways: dict[str, tuple[Callable[[], dict[str, float]], str]] = {
        HTTP: (partial(call, lab, upstream.port, "/mcp"), "/srv/mcp"),
        STDIO: (pipe, "/io/mcp"),
    }
    for work, (straight, path) in ways.items():
        for _ in range(lab.rounds):
            try:
                one = straight()
                other = call(lab, gate.port, path, keys=gate.keys)
            except BenchError as error:
                lab.outcome.fail(work, GATE, str(error))
                break
            for name, figures in ((DIRECT, one), (GATE, other)):
                kept = {kind: figures[kind] for kind in ("p50_ms", "p99_ms")}
                if name == GATE:
                    kept["added_ms"] = other["p50_ms"] - one["p50_ms"]
                lab.outcome.add(work, name, **kept)


CASE = Case("latency", "what the gate adds to a warm call of one client", run, lives=2)
