"""
Programs that a case starts: each is waited for with a deadline and ended by its id.

A program gets a session of its own; at its end it and what it started get SIGTERM, and SIGKILL
after a grace.  What it wrote is kept for the one line that says why it did not work.
"""

# ruff: noqa: TID251 - waiting for programs blocks nobody.

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lab import usage

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
START_S = 30.0
_GRACE_S = 10.0
_POLL_S = 0.002


class BenchError(Exception):
    """Something can not be measured; the text is one line that says why."""


class NotHereError(BenchError):
    """This machine lacks what a whole case needs: nothing is wrong."""


class Program:
    """
    One program and what it started.

    :ivar pid: its process id.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**plain_environment(directory), **(environment or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def usage(self, *, without: str = "") -> usage.Usage:
        """Tell what it and what it started used; see `usage.usage`."""
        return usage.usage(self.pid, without=without)

    def wait_for(self, look: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
        """
        Look until it is so.

        :raises BenchError: the program ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not look():
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended: {self.last_words()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name}: {what} not within {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def wait_for_port(self, port: int, timeout_s: float = START_S) -> None:
        """Wait until somebody listens there; :raises BenchError: see `wait_for`."""
        self.wait_for(lambda: listens(port), f"port {port} was not listened on", timeout_s)

    def last_words(self) -> str:
        """Give the last line of what it wrote."""
        lines = self.log_text().strip().splitlines()
        return lines[-1].strip()[:200] if lines else "without a word"

    def log_text(self) -> str:
        """Give what it wrote."""
        return self._log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send it, alone, a signal."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it and all that it started."""
        family = {one: usage.began(one) for one in usage.descendants(self.pid)}
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        for one, began in family.items():
            if began and usage.began(one) == began:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(_GRACE_S)


def plain_environment(home: Path) -> dict[str, str]:
    """Give an environment without settings of ours; what is measured is not traced, either."""
    return {
        "PATH": os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def python(module: str, *words: object) -> list[str]:
    """Give the command of one of `bench.programs`."""
    return [sys.executable, "-m", f"bench.programs.{module}", *(str(word) for word in words)]


def run(
    command: Sequence[str | Path],
    directory: Path,
    timeout_s: float,
    *,
    good: Sequence[int] = (0,),
) -> str:
    """
    Run a program to its end; give what it printed.

    :param good: with which status it may end.
    :raises BenchError: it failed, or the time is over.
    """
    name = Path(command[0]).name
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=plain_environment(directory),
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        # It may have started things of its own, and gets the time to end them.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE_S)
        raise BenchError(f"{name}: no end within {timeout_s:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_GRACE_S)
    if process.returncode not in good:
        said = (errors or out).strip().splitlines()
        raise BenchError(said[-1].strip()[:300] if said else f"{name} ended badly")
    return out


def run_json(command: Sequence[str | Path], directory: Path, timeout_s: float) -> dict[str, Any]:
    """Run a program that prints one JSON object; :raises BenchError: see `run`."""
    told: dict[str, Any] = json.loads(run(command, directory, timeout_s))
    return told


def free_port() -> int:
    """Give a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def get(port: int, path: str, timeout_s: float = 10.0, **fields: str) -> tuple[int, bytes]:
    """GET a page in clear; give status and body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=fields)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
