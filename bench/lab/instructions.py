"""
Instructions that a running gate spends on a piece of work, counted by callgrind of Valgrind.

Load of the machine does not change them, so that a small change of the code shows where times drift
by half.  The gate starts without counting.  Its clock is slowed down as it is itself, so that
timers take the share of the work that they always take.  Python collects no garbage.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.lab.gate import Gate
from bench.lab.lab import Lab
from bench.lab.parts import need
from bench.lab.running import BenchError

START_S: Final = 240.0
_STEP_S: Final = 60.0
_RUNS: Final = 4
# Under callgrind a request takes fifty times as long.  The gate's clock goes slower as well, so
# that what it does now and then, by the clock, has about the share that it always has.
_SLOWER: Final = 20
_SLOW_CLOCK: Final = f"""\
import time
from twisted.internet.base import ReactorBase
_clock, _zero, _timeout = time.monotonic, time.monotonic(), ReactorBase.timeout
time.monotonic = lambda: _zero + (_clock() - _zero) / {_SLOWER}
def _slower(self):
    wait_s = _timeout(self)
    return None if wait_s is None else wait_s * {_SLOWER}
ReactorBase.timeout = _slower
"""
# A walk of the collector is as much as many requests, and comes now in one count, now in another.
_NO_WALKS: Final = "import gc; gc.disable(); gc.collect = lambda generation=2: 0\n"
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


class Counted:
    """
    A gate under callgrind, with the servers that stand in its configuration.

    :raises BenchError: Valgrind is not installed, or the gate does not start.
    """

    def __init__(self, lab: Lab, servers: str, *, reactor: str = "epoll") -> None:
        self._vgdb = need("vgdb")
        self._place = lab.place("callgrind")
        tool = [
            need("valgrind"),
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={self._place / 'out'}",
            f"--vgdb-prefix={self._place / 'vgdb'}",
        ]
        # Order of sets and of names in dictionaries is the same in every run.
        self.gate = Gate(
            lab,
            servers,
            reactor=reactor,
            before=_SLOW_CLOCK + _NO_WALKS,
            under=tool,
            start_s=START_S,
            environment={"PYTHONHASHSEED": "0"},
        )

    def count(self, work: Callable[[], None], times: int) -> float:
        """
        Tell what the work takes, once.

        What comes between only adds to it: of a few runs the least counts.

        :param work: done some times before and not counted; then ``times`` times in each run.
        """
        for _ in range(times // 3 + 1):
            work()
        self._tell("instrumentation", "on")
        for _ in range(times // 2 + 1):
            work()
        counts = [self._run(work, times) for _ in range(_RUNS)]
        self._tell("instrumentation", "off")
        return min(counts) / times

    def _run(self, work: Callable[[], None], times: int) -> int:
        self._tell("zero")
        for _ in range(times):
            work()
        known = set(self._place.iterdir())
        self._tell("dump")
        return sum(_total(file) for file in set(self._place.iterdir()) - known)

    def _tell(self, *words: str) -> None:
        command = [
            self._vgdb,
            f"--pid={self.gate.pid}",
            f"--vgdb-prefix={self._place / 'vgdb'}",
            *words,
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_STEP_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"vgdb {words[0]}: no end within {_STEP_S:.0f} s") from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise BenchError(f"vgdb {words[0]}: {said[-1] if said else 'it failed'}")


def _total(file: Path) -> int:
    found = _TOTALS.search(file.read_text(errors="replace"))
    if found is None:
        raise BenchError("callgrind told no total")
    return int(found[1])
