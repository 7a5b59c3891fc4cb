"""
Runs all tests under coverage, in several processes at once: what `make coverage` calls.

``run_shards.py COUNT [FLAG ..]``: flags are trial's.  Most tests wait for other processes most of
the time; each shard has a temporary directory and a log of its own.  While they run it is told
which module each has come to, then follow the logs, what failed, shortly, and the sum.
"""

# ruff: noqa: T201 - a command line tool: it prints.

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# This folder holds packages named as those of the standard library; only its parent may be seen.
sys.path[0] = str(HERE.parent)

from tests.shards import (  # noqa: E402 - found by the path just mended
    UNIT,
    durations,
    functional_names,
    shared_out,
    summed_up,
    unit_names,
)

LOGS = HERE.parent / "_trial_temp.logs"

# Nothing of ours takes as long: what is not over by then hangs, and its log tells where.
LIMIT_S = 75 * 60.0
GRACE_S = 30.0


class Shard:
    """One process of trial, and what it says."""

    def __init__(self, number: int, modules: list[str], flags: list[str]) -> None:
        self.number = number
        self.log = LOGS / f"{number}.log"
        names = [name for m in modules for name in (unit_names() if m == UNIT else [m])]
        place = f"--temp-directory=_trial_temp.{number}"
        # Unbuffered: its log tells at any time how far it has come.
        trial = ["-u", "-m", "coverage", "run", "-m", "twisted.trial", place, *flags, *names]
        self.process = subprocess.Popen(
            [sys.executable, *trial],
            cwd=HERE.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.began = time.monotonic()
        self.took_s = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("wb") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                if line.startswith(b"tests.functional.") and line[:-1].count(b".") == 2:
                    self.say(line.decode(errors="replace").strip())

    def say(self, text: str) -> None:
        """Tell whoever waits how it goes."""
        print(f"[{self.number} {time.monotonic() - self.began:5.0f} s] {text}", flush=True)

    def wait(self, until: float) -> bool:
        """Wait for its end, which is brought about if it does not come; True when all passed."""
        try:
            self.process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self.say("not over in time: ended")
            self.process.terminate()
            try:
                self.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.took_s = time.monotonic() - self.began
        # What it started may hold its output open.
        self._reader.join(GRACE_S)
        self.say(f"over: exit status {self.process.returncode}")
        return self.process.returncode == 0

    @property
    def text(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")


def main(arguments: list[str]) -> int:
    """Run everything; gives 0 when all passed."""
    count, flags = int(arguments[0]), arguments[1:]
    parts = shared_out([UNIT, *functional_names()], count, durations())
    LOGS.mkdir(exist_ok=True)
    began = time.monotonic()
    shards = [Shard(number, part, flags) for number, part in enumerate(parts, 1)]
    until = began + LIMIT_S
    waiting = [threading.Thread(target=shard.wait, args=(until,)) for shard in shards]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    for shard in shards:
        print(f"\n--- Shard {shard.number} of {len(shards)}, {shard.took_s:.0f} s ---", flush=True)
        sys.stdout.write(shard.text)
        sys.stdout.flush()
    good = all(shard.process.returncode == 0 for shard in shards)
    if not good:
        print("\nWhat failed, shortly:", flush=True)
        for shard in shards:
            subprocess.run([HERE.parent / ".ci" / "failures", shard.log], check=False)
    try:
        ran, ends = summed_up([shard.text for shard in shards])
    except ValueError:
        print("A shard did not come to its end; its log above tells how far it came.")
        return 1
    told = ", ".join(f"{name}={number}" for name, number in sorted(ends.items()))
    print(f"\nRan {ran} tests in {time.monotonic() - began:.0f} s, {len(shards)} shards ({told})")
    print("PASSED" if good else "FAILED", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
