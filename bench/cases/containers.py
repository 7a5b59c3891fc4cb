"""
A server in a container, started and called through the gate, beside the engine alone.

The work is done by `bench.containers`, which tells more.  It needs an engine, or starts one as
root with ``dockerd``; a smoke run starts none.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from bench.lab.lab import GATE, Case, Lab
from bench.lab.running import ROOT, NotHereError, run

ENGINE = "engine alone"
# What `bench.containers` calls its times: work, the gate's, the engine's.
TIMES = (
    ("cold start and first answer", "cold, through the gate", "cold, engine alone"),
    ("stopped, next answer", "stopped, through the gate", "stopped, engine alone"),
    ("call, running", "call, container, gate", "call, container, straight"),
)
NETWORK = "network, engine alone"
_DEADLINE_S = 240.0


def measure(lab: Lab) -> None:
    """Measure."""
    answers = "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").exists()
    startable = os.geteuid() == 0 and shutil.which("dockerd") is not None
    if lab.smoke:
        raise NotHereError("a smoke run starts no container engine; its tests are tests.functional")
    if not answers and not startable:
        raise NotHereError("no Docker engine answers, and starting one takes root and dockerd")
    words = ["--rounds", str(min(8, lab.rounds * 2)), "--calls", "150", "--json"]
    said = run([sys.executable, "-m", "bench.containers", *words], ROOT, _DEADLINE_S)
    told = json.loads(said.strip().splitlines()[-1])
    for work, ours, theirs in TIMES:
        lab.outcome.add(work, ENGINE, median_ms=told[theirs])
        lab.outcome.add(
            work, GATE, median_ms=told[ours], added_ms=round(told[ours] - told[theirs], 3)
        )
    lab.outcome.note(
        f"of what a cold start adds, {told[NETWORK]:.0f} ms are the user's network of its own"
    )


CASE = Case("containers", "a server in a container through the gate, minus the engine", measure)
