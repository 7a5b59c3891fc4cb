"""A program that does its work in steps, each when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.lab.running import BenchError, plain_environment


class Talking:
    """
    A program that prints a JSON object after each step and waits for a line before the next.

    Its last words are in the object: ``why`` says what failed.
    """

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        self._rest = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            env=plain_environment(directory),
            start_new_session=True,
        )

    def told(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the end of a step; :raises BenchError: it failed, or the time is over."""
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([number], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BenchError(f"a step did not end within {timeout_s:.0f} s")
            data = os.read(number, 1 << 16)
            if not data:
                raise BenchError("the clients ended without a word")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        if told["why"]:
            raise BenchError(told["why"])
        return told

    def go_on(self) -> None:
        """Let it do the next step."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
