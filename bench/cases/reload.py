"""
A reload of ``gate.ini`` with 100 servers, one of them changed, while four clients go on calling.

The stall is the slowest of their calls; the same without a reload stands beside it.
"""

# ruff: noqa: TID251

from __future__ import annotations

import threading
import time
from pathlib import Path

from bench.lab import echo
from bench.lab.calls import call_and_stall
from bench.lab.gate import Gate, remote, stdio
from bench.lab.lab import GATE, Case, Lab
from mcpgate.cli.control_client import CommandError, ControlClient

WORK = "100 servers"
QUIET = f"{GATE}, no reload"
SERVERS = 100


def entries(servers: int, turn: int) -> str:
    """Give the servers; one of them differs from turn to turn."""
    many = [remote(f"s{number}", 9, f"header.X-Turn = {turn}") for number in range(1)]
    many += [remote(f"s{number}", 9) for number in range(1, servers)]
    return "".join([*many, stdio("io", echo.command())])


class Reloads(threading.Thread):
    """Writes the file and has it taken over, a few times; keeps how long each took."""

    def __init__(self, gate: Gate, servers: int, first: int, times: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self._gate, self._servers, self._first, self._times = gate, servers, first, times
        self._pause_s = pause_s
        self.took_s: list[float] = []
        self.why = ""

    def run(self) -> None:
        """Reload."""
        client = ControlClient(self._socket)
        for turn in range(self._times):
            time.sleep(self._pause_s)
            self._gate.configure(entries(self._servers, self._first + turn))
            begun = time.perf_counter()
            try:
                client.post("/reload", {}, timeout_s=30.0)
            except CommandError as error:
                self.why = str(error)
                return
            self.took_s.append(time.perf_counter() - begun)

    @property
    def _socket(self) -> Path:
        return self._gate.control_socket


def run(lab: Lab) -> None:
    """Measure."""
    servers = lab.size(SERVERS, 10)
    gate = Gate(lab, entries(servers, 0))
    pause_s, times = lab.size(0.3, 0.1), lab.size(4, 1)
    seconds = pause_s * (times + 2)
    done = 1
    for _ in range(lab.rounds):
        quiet = call_and_stall(lab, gate.port, "/io/mcp", gate.keys, seconds)
        lab.outcome.add(WORK, QUIET, **quiet)
        reloads = Reloads(gate, servers, done, times, pause_s)
        done += times
        reloads.start()
        busy = call_and_stall(lab, gate.port, "/io/mcp", gate.keys, seconds)
        reloads.join(60.0)
        if reloads.why or not reloads.took_s:
            lab.outcome.fail(WORK, GATE, reloads.why or "no reload came to its end")
            return
        time_ms = sum(reloads.took_s) / len(reloads.took_s) * 1000
        lab.outcome.add(WORK, GATE, time_ms=time_ms, **busy)


CASE = Case("reload", "a reload with 100 servers while others call", run)
