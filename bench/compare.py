"""
Two runs beside each other: how far each ratio, and each target's value, is from the other run's.

    python -m bench --compare A.json B.json

A ratio is that of the gate to one contender at one work: in speed, or in time of the processor.
The worst stand first.  Times and memory by themselves are no ratios and drift with the machine:
they stand apart, and nothing is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.lab import store, targets
from bench.lab.figures import COSTS, SPEEDS, Outcome
from bench.lab.lab import GATE

WITHIN: Final = 0.15
_SHOWN: Final = 12
_TAILS: Final = ("p99_ms",)


@dataclass(frozen=True)
class Pair:
    """
    One value in two runs.

    :ivar apart: by how much the larger is more than the smaller; 0.1 is ten percent.
    """

    name: str
    one: float
    other: float

    @property
    def apart(self) -> float:
        """Tell how far apart they are."""
        low, high = sorted((abs(self.one), abs(self.other)))
        return high / low - 1 if low else float(high > 0)


def compare(first: Path, second: Path) -> tuple[str, bool]:
    """Give the text, and whether all ratios of speed and processor time agree within 15 %."""
    one, other = store.read(first), store.read(second)
    lines = []
    good = True
    groups = (
        ("ratios that targets are about", _of_targets(one, other, ratios=True), True),
        ("ratios of speed", _ratios(one, other, SPEEDS), True),
        ("ratios of processor time", _ratios(one, other, COSTS), True),
        ("ratios of slow calls, p99", _ratios(one, other, _TAILS), False),
        ("other values of targets", _of_targets(one, other, ratios=False), False),
    )
    for title, pairs, asked in groups:
        found = sorted(pairs, key=lambda pair: -pair.apart)
        if not found:
            continue
        beyond = [pair for pair in found if pair.apart > WITHIN]
        good &= not (asked and beyond)
        lines.append(f"== {title}: {len(beyond)} of {len(found)} differ by more than {WITHIN:.0%}")
        shown = max(len(beyond), _SHOWN)
        for pair in found[:shown]:
            mark = "  over" if pair.apart > WITHIN else ""
            lines.append(
                f"   {pair.apart:7.1%}  {pair.one:9.4g} {pair.other:9.4g}  {pair.name}{mark}"
            )
        if len(found) > shown:
            lines.append(f"   and {len(found) - shown} that differ by less")
        lines.append("")
    if not lines:
        return "the two runs have nothing in common\n", False
    return "\n".join(lines), good


def _ratios(
    one: Mapping[str, Outcome], other: Mapping[str, Outcome], kinds: tuple[str, ...]
) -> Iterator[Pair]:
    for name, outcome in one.items():
        if name not in other:
            continue
        for row in outcome.rows:
            # What stands behind every proxy is no contender.
            if row.contender in (GATE, "direct"):
                continue
            for kind in kinds:
                values = [
                    each.ratio(row.work, kind, GATE, row.contender)
                    for each in (outcome, other[name])
                ]
                if values[0] is not None and values[1] is not None:
                    what = f"{name}: {row.work}: {row.contender}"
                    yield Pair(what, values[0], values[1])


def _of_targets(
    one: Mapping[str, Outcome], other: Mapping[str, Outcome], *, ratios: bool
) -> Iterator[Pair]:
    for target in targets.TARGETS:
        if target.case not in one or target.case not in other or target.is_ratio != ratios:
            continue
        values = [target.measure(outcomes[target.case]) for outcomes in (one, other)]
        if values[0] is not None and values[1] is not None:
            yield Pair(f"{target.work} ({target.unit})", values[0], values[1])
