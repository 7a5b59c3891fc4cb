"""
What a case is given: a scratch directory, how much to do, and where its figures go.

`Lab.interleave` is the heart: every contender does a short piece of the same work in turn, A B C
A B C .., so that what the machine does meanwhile hits all of them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import ssl
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from bench.lab.figures import Outcome
from bench.lab.running import BenchError, Program

T = TypeVar("T")
GATE = "mcpgate"


class Stoppable(Protocol):
    """What ends with the case."""

    def stop(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Case:
    """
    One case.

    :ivar title: what is measured, in one line.
    :ivar run: measures; what it raises is the reason there are no figures.
    :ivar lives: how often all of it is done, with every program started anew: how fast one is
        depends on how it happened to be compiled and to lie in memory, and stays so.
    """

    name: str
    title: str
    run: Callable[[Lab], None]
    lives: int = 1


class Lab:
    """
    The surroundings of one run of one case.

    :param rounds: how often each contender's turn comes.
    :param smoke: tiny numbers: see that it works, not how fast.
    :param profiles: where profiles of gates go; None takes none.
    """

    def __init__(
        self,
        *,
        outcome: Outcome,
        scratch: Path,
        parts: Path,
        rounds: int,
        smoke: bool,
        profiles: Path | None = None,
    ):
        self.outcome = outcome
        self.scratch = scratch
        self.parts = parts
        self.rounds = rounds
        self.smoke = smoke
        self.profiles = profiles
        self._stack = contextlib.ExitStack()
        self._names = 0
        self.warming = False

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def size(self, full: T, smoke: T) -> T:
        """Choose how much to do."""
        return smoke if self.smoke else full

    @property
    def seconds(self) -> float:
        """How long one turn of steady work takes."""
        return self.size(0.3 if self.warming else 1.0, 0.15)

    def place(self, name: str) -> Path:
        """Give a directory of its own for a program."""
        self._names += 1
        made = self.scratch / f"{self._names}-{name}"
        made.mkdir(parents=True)
        return made

    def keep(self, thing: Stoppable) -> None:
        """End something with the case."""
        self._stack.callback(thing.stop)

    def start(
        self,
        name: str,
        command: list[str],
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """
        Start a program that ends with the case.

        :param port: waited for, unless 0.
        :raises BenchError: it does not listen.
        """
        program = Program(name, command, self.place(name), environment=environment)
        self.keep(program)
        if port:
            program.wait_for_port(port)
        return program

    def assemble(self, works: Iterable[str], makers: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Set contenders up; those that can not be have their reason written down."""
        made = {}
        for name, make in makers.items():
            try:
                made[name] = make()
            except (BenchError, OSError) as error:
                for work in works:
                    self.outcome.fail(work, name, str(error))
        return made

    def interleave(
        self,
        work: str,
        turns: Mapping[str, Callable[[], dict[str, float]]],
        rounds: int = 0,
        *,
        warm: bool = True,
    ) -> None:
        """
        Let each contender do its turn, in every round.

        One that fails has its reason written down and no further turn; the others go on.  A short
        round comes before and is not kept: what is cold then is warm in all others.  Every other
        round goes backwards, so that a machine that becomes slower does so for all.
        """
        left = dict(turns)
        for number in range(-1 if warm and not self.smoke else 0, rounds or self.rounds):
            order = list(left.items())
            for name, turn in reversed(order) if number % 2 else order:
                self.warming = number < 0
                try:
                    figures = turn()
                    if not self.warming:
                        self.outcome.add(work, name, **figures)
                except (BenchError, OSError) as error:
                    self.outcome.fail(work, name, str(error))
                    del left[name]
        self.warming = False


@dataclass
class Spent:
    """Times of a few things, for medians."""

    values: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Their median, in milliseconds."""
        return statistics.median(self.values) * 1000


def machine() -> dict[str, object]:
    """Describe the machine, for whoever compares figures."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_gib": round(total_kib / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
    }
