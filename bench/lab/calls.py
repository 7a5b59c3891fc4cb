"""Clients that call a tool over HTTP, as `bench.programs.mcp_load` in a process of its own."""

from __future__ import annotations

import json
from typing import Any

from bench.lab import cores, echo
from bench.lab.lab import Lab
from bench.lab.running import BenchError, python, run_json

# Of a hundred calls at most one may fail: more, and what is left says nothing.
_MOST_FAILED = 0.01


def call(lab: Lab, port: int, path: str, *, pid: int = 0, **task: Any) -> dict[str, float]:
    """
    Let clients call for a turn.

    :param pid: whose use of the machine is told; servers behind it are left out of the time.
    :param task: see `bench.programs.mcp_load`.
    :raises BenchError: too many calls failed.
    """
    whole: dict[str, Any] = {
        "port": port,
        "path": path,
        "pid": pid,
        "without": echo.MARK,
        "tool": "echo",
        "era": "legacy",
        "clients": 1,
        "seconds": lab.seconds,
        "warm_seconds": lab.size(0.3, 0.05),
        **task,
    }
    told = tell(lab, whole)
    figures = {
        "rate": told["answers"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
    }
    for kind in ("cpu_us", "busy_percent", "waited_percent", "rss_mib", "processes"):
        if kind in told:
            figures[kind] = told[kind]
    if told["failed"]:
        figures["failed"] = told["failed"]
    return figures


def call_and_stall(
    lab: Lab, port: int, path: str, keys: list[str], seconds: float
) -> dict[str, float]:
    """Let four clients call for a while; give the median and the slowest of all their calls."""
    task = {"port": port, "path": path, "keys": keys, "tool": "echo", "era": "legacy", "clients": 4}
    told = tell(lab, {**task, "seconds": seconds, "warm_seconds": 0.05})
    return {"p50_ms": told["p50_ms"], "stall_ms": told["max_ms"]}


def tell(lab: Lab, task: dict[str, Any]) -> dict[str, Any]:
    """Let clients do a task; give what they tell; :raises BenchError: too many calls failed."""
    command = [*cores.for_load(), *python("mcp_load", json.dumps(task))]
    told = run_json(command, lab.scratch, task["seconds"] + 90.0)
    if told["failed"] > told["answers"] * _MOST_FAILED or not told["answers"]:
        raise BenchError(told["why"] or "no answer came")
    return told
