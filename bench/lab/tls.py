"""Clients that speak TLS, as `bench.programs.tls_load` in a process of its own."""

from __future__ import annotations

import json
from typing import Any

from bench.lab import cores
from bench.lab.lab import Lab
from bench.lab.running import BenchError, python, run_json

CLIENTS = 8


def keep_calling(lab: Lab, port: int, path: str, key: str, pid: int) -> dict[str, float]:
    """Call on connections that stay open; :raises BenchError: a client failed."""
    told = _tell(lab, port=port, path=path, key=key, pid=pid, how="kept")
    return {"rate": told["answers"] / told["seconds"], **_common(told)}


def connect(
    lab: Lab, port: int, path: str, pid: int, *, key: str, resume: bool
) -> dict[str, float]:
    """
    Call once on each connection.

    :param resume: resume the session of the connection before.
    :raises BenchError: a client failed, or sessions were not resumed as they had to be.
    """
    how = "resumed" if resume else "new"
    told = _tell(lab, port=port, path=path, key=key, pid=pid, how=how)
    if resume and told["resumed"] < told["answers"]:
        raise BenchError(f"{told['resumed']} of {told['answers']} sessions were resumed")
    return {"connections": told["answers"] / told["seconds"], **_common(told)}


def _tell(lab: Lab, **task: Any) -> dict[str, Any]:
    whole = {"clients": lab.size(CLIENTS, 2), "seconds": lab.seconds, **task}
    command = [*cores.for_load(), *python("tls_load", json.dumps(whole))]
    told = run_json(command, lab.scratch, whole["seconds"] + 60.0)
    if told["why"] or not told["answers"]:
        raise BenchError(told["why"] or "no answer came")
    return told


def _common(told: dict[str, Any]) -> dict[str, float]:
    kinds = ("p50_ms", "p99_ms", "cpu_us", "busy_percent", "waited_percent", "rss_mib")
    return {kind: told[kind] for kind in kinds}
