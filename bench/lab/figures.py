"""
What was measured: figures of contenders at some work, one value for each round.

Medians are over rounds.  Ratios are taken within each round and their median given: the machine
drifts, but what runs one after the other meets about the same machine.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Kind:
    """How a kind of figure is shown."""

    label: str
    digits: int = 0


KINDS: Final = {
    "rate": Kind("req/s"),
    "connections": Kind("conn/s"),
    "p50_ms": Kind("p50 ms", 2),
    "p99_ms": Kind("p99 ms", 2),
    "median_ms": Kind("median ms", 2),
    "added_ms": Kind("added ms", 3),
    "time_ms": Kind("ms"),
    "open_ms": Kind("ms to open", 2),
    "stall_ms": Kind("stall ms", 1),
    "turn_cpu_ms": Kind("its CPU ms", 1),
    "events": Kind("events/s"),
    "mb_s": Kind("MB/s"),
    "cpu_us": Kind("CPU us", 1),
    "cpu_ms_mb": Kind("CPU ms/MB", 2),
    "capacity": Kind("could do req/s"),
    "busiest_percent": Kind("busiest %"),
    "load_us": Kind("load's CPU us", 1),
    "busy_percent": Kind("busy %"),
    "waited_percent": Kind("waited %"),
    "cpu_percent": Kind("CPU %", 2),
    "kb_each": Kind("KB each", 1),
    "streams": Kind("streams"),
    "rss_mib": Kind("RSS MiB"),
    "grown_mib": Kind("grown MiB", 1),
    "processes": Kind("procs"),
    "failed": Kind("failed"),
}

# What the gate is compared by: how fast it is, and what of the processor it takes.
SPEEDS: Final = ("rate", "connections", "events", "mb_s")
COSTS: Final = ("cpu_us", "cpu_ms_mb")


@dataclass
class Row:
    """
    One contender at one work.

    :ivar figures: kind to one value for each round.
    :ivar reason: why there are none.
    """

    work: str
    contender: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""

    def median(self, kind: str) -> float | None:
        """Give the median of a kind over the rounds."""
        values = self.figures.get(kind)
        return statistics.median(values) if values else None


@dataclass
class Outcome:
    """
    What a case brought.

    :ivar notes: what a reader of the figures must know: what was scaled down, and why.
    :ivar skipped: why nothing was measured at all.
    :ivar profiles: where the gate's time went, when that was looked at: shares, the largest first.
    """

    case: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    profiles: list[dict[str, Any]] = field(default_factory=list)

    def row(self, work: str, contender: str) -> Row:
        """Find a row, or begin it."""
        for row in self.rows:
            if (row.work, row.contender) == (work, contender):
                return row
        self.rows.append(Row(work, contender))
        return self.rows[-1]

    def add(self, work: str, contender: str, **figures: float) -> None:
        """Add the figures of one round."""
        row = self.row(work, contender)
        for kind, value in figures.items():
            row.figures.setdefault(kind, []).append(float(value))

    def fail(self, work: str, contender: str, reason: str) -> None:
        """Say why a contender has no figures."""
        self.row(work, contender).reason = reason

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    def median(self, work: str, contender: str, kind: str) -> float | None:
        """Give a median, when it was measured."""
        return self.row(work, contender).median(kind) if self.has(work, contender) else None

    def has(self, work: str, contender: str) -> bool:
        """Tell whether a contender was tried at a work."""
        return any((row.work, row.contender) == (work, contender) for row in self.rows)

    def ratio(self, work: str, kind: str, ours: str, theirs: str) -> float | None:
        """Give the median of the ratios of each round."""
        if not (self.has(work, ours) and self.has(work, theirs)):
            return None
        pairs = zip(
            self.row(work, ours).figures.get(kind, ()),
            self.row(work, theirs).figures.get(kind, ()),
            strict=False,
        )
        ratios = [one / other for one, other in pairs if other]
        return statistics.median(ratios) if ratios else None

    def works(self) -> list[str]:
        """Give the works, in the order they came."""
        return list(dict.fromkeys(row.work for row in self.rows))

    # --- JSON -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Give what `from_json` reads."""
        return {
            "about": self.about,
            "notes": self.notes,
            "skipped": self.skipped,
            "profiles": self.profiles,
            "rows": [
                {
                    "work": row.work,
                    "contender": row.contender,
                    "reason": row.reason,
                    "figures": {
                        kind: {
                            "median": _short(statistics.median(values)),
                            "rounds": [_short(value) for value in values],
                        }
                        for kind, values in row.figures.items()
                    },
                }
                for row in self.rows
            ],
        }

    @classmethod
    def from_json(cls, case: str, told: dict[str, Any]) -> Outcome:
        """Read what `to_json` gave."""
        rows = [
            Row(
                work=row["work"],
                contender=row["contender"],
                reason=row["reason"],
                figures={kind: list(found["rounds"]) for kind, found in row["figures"].items()},
            )
            for row in told["rows"]
        ]
        return cls(
            case,
            rows,
            list(told["notes"]),
            told["skipped"],
            dict(told["about"]),
            list(told.get("profiles", ())),
        )


def _short(value: float) -> float:
    return float(f"{value:.5g}")
