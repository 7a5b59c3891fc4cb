"""Which tests run at the same time, and what their logs said: for `run_shards`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What all tests but the functional ones are called here.
UNIT = "unit"

# One engine serves them all, and what it does to the machine's firewall is not done twice.
ENGINE = "tests.functional.test_docker_"

# Of a module nobody has measured yet.
UNKNOWN_S = 20.0

_OUTCOME = re.compile(r"^Ran (\d+) tests in ", re.MULTILINE)
_COUNTS = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?$", re.MULTILINE)


def unit_names() -> list[str]:
    """Give the packages and modules of all tests but the functional ones, as trial takes them."""
    rooms = sorted(path.name for path in HERE.iterdir() if (path / "__init__.py").exists())
    modules = sorted(path.stem for path in HERE.glob("test_*.py"))
    return [f"tests.{name}" for name in (*rooms, *modules) if name != "functional"]


def functional_names() -> list[str]:
    """Give the modules of functional tests, as trial takes them."""
    return [f"tests.functional.{p.stem}" for p in sorted((HERE / "functional").glob("test_*.py"))]


def durations() -> dict[str, float]:
    """Give the seconds that modules took when they were measured."""
    told = json.loads((HERE / "durations.json").read_text())
    return {name: float(seconds) for name, seconds in told.items()}


def shared_out(modules: Iterable[str], count: int, seconds: Mapping[str, float]) -> list[list[str]]:
    """
    Divide modules among shards that take about as long; the same every time.

    The longest go first, each to the shard with the least to do.  What needs the engine stays
    together.

    :param seconds: what modules take; others are taken for short ones.
    """
    groups: dict[str, list[str]] = {}
    for module in sorted(set(modules)):
        groups.setdefault(ENGINE if module.startswith(ENGINE) else module, []).append(module)
    weights = {
        name: sum(seconds.get(module, UNKNOWN_S) for module in group)
        for name, group in groups.items()
    }
    shards: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for name in sorted(groups, key=lambda name: (-weights[name], name)):
        least = loads.index(min(loads))
        shards[least] += groups[name]
        loads[least] += weights[name]
    # Unit tests come first: who breaks one hears of it soon.
    return [sorted(shard, key=lambda module: (module != UNIT, module)) for shard in shards if shard]


def summed_up(logs: Sequence[str]) -> tuple[int, Counter[str]]:
    """
    Tell from logs of trial how many tests ran, and how they ended: ``successes``, ``failures`` ..

    :raises ValueError: one of them does not come to an end.
    """
    ran, ends = 0, Counter[str]()
    for log in logs:
        told, counts = _OUTCOME.findall(log), _COUNTS.findall(log)
        if not told or not counts:
            raise ValueError("a log without an end")
        ran += int(told[-1])
        for part in filter(None, counts[-1].split(", ")):
            name, _, number = part.partition("=")
            ends[name] += int(number)
    return ran, ends
