"""
Where a gate's time goes, by py-spy: it looks at the running program from outside, many times a
second, and slows it little.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

from bench.lab import cores
from bench.lab.parts import Parts

RATE_HZ: Final = 200
SHOWN: Final = 30
KEPT: Final = 8
_END_S = 20.0
_WAITING: Final = "waiting"
_FRAME = re.compile(r"^(\S+) \((.*?)(?::\d+)?\)$")


class Profile:
    """
    A profile under way, from now until it is stopped.

    :param of: whose it is, for who reads it.
    :param file: where stacks are kept, for flame graphs; what they add up to lies beside it, as
        ``.txt``.
    :raises BenchError: py-spy is not installed.
    """

    def __init__(
        self, parts: Parts, pid: int, file: Path, of: str, kept: list[dict[str, Any]]
    ) -> None:
        self._file, self._of, self._kept = file, of, kept
        file.parent.mkdir(parents=True, exist_ok=True)
        binary = parts.script("py-spy", "py-spy")
        words = [
            "record",
            "--pid",
            pid,
            "--rate",
            RATE_HZ,
            "--format",
            "raw",
            "--nolineno",
            "--threads",
        ]
        words += ["--output", file, "--duration", 3600]
        self._process = subprocess.Popen(
            [*cores.for_load(), binary, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Have it written, and added up."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_S)
        with contextlib.suppress(OSError):
            stacks = self._file.read_text()
            if found := shares(stacks):
                self._kept.append({"of": self._of, **found})
            text = summary(stacks)
            self._file.with_suffix(".txt").write_text(text)
            print(text)


def summary(stacks: str) -> str:
    """
    Add the main thread's stacks up: which functions were running, and which were below them.

    Other threads wait for most of their life, which can not be told from work from outside.
    """
    alone: Counter[str] = Counter()
    rooms: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        thread, *whole = stack.split(";")
        if "MainThread" not in thread:
            continue
        frames = [_short(frame) for frame in whole]
        times = int(number)
        total += times
        alone[frames[-1]] += times
        rooms[_room(frames[-1])] += times
        for frame in set(frames):
            within[frame] += times
    lines = [f"{total} samples", "", "  self   with  function"]
    for frame, count in alone.most_common(SHOWN):
        lines.append(f"{count / total:6.1%} {within[frame] / total:6.1%}  {frame}")
    lines += ["", "  with  function"]
    for frame, count in within.most_common(2 * SHOWN):
        lines.append(f"{count / total:6.1%}  {frame}")
    working = total - rooms.pop(_WAITING, 0)
    lines += ["", f"{working} samples not waiting, by the room whose code ran", ""]
    lines += [f"{count / max(1, working):6.1%}  {room}" for room, count in rooms.most_common(SHOWN)]
    return "\n".join([*lines, ""])


def shares(stacks: str) -> dict[str, Any]:
    """Give what stands beside a missed target: shares of the time that the gate did not wait."""
    rooms: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        thread, *whole = stack.split(";")
        if "MainThread" not in thread or not whole:
            continue
        frame = _short(whole[-1])
        if (room := _room(frame)) != _WAITING:
            rooms[room] += int(number)
            functions[frame] += int(number)
    total = sum(rooms.values())
    return {
        kind: [[name, count / total] for name, count in found.most_common(KEPT)]
        for kind, found in (("rooms", rooms), ("functions", functions))
        if total
    }


def _room(frame: str) -> str:
    """Give the folder of a function, two deep: ``mcpgate/web``, ``twisted/internet``."""
    if frame.startswith("EPollReactor.doPoll"):
        return _WAITING
    path = frame.rpartition("(")[2].rstrip(")")
    return "/".join(path.split("/")[:2]) if "/" in path else path


def _short(frame: str) -> str:
    found = _FRAME.match(frame)
    if found is None:
        return frame
    name, path = found.groups()
    for mark in ("/site-packages/", "/mcpgate/"):
        if mark in path:
            path = path.rpartition(mark)[2]
            break
    return f"{name} ({path})"
