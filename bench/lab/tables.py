"""Figures as tables: of text for the terminal; titles and cells for the documentation."""

from __future__ import annotations

from bench.lab.figures import COSTS, KINDS, SPEEDS, Outcome, Row
from bench.lab.lab import GATE


def table(outcome: Outcome, work: str) -> list[list[str]]:
    """
    Give the titles and the rows of all who have figures at a work.

    The last columns say how many times as fast the gate is as the contender of the row, and how
    many times as much of the processor it takes.
    """
    rows = [row for row in outcome.rows if row.work == work and row.figures]
    there = {kind for row in rows for kind in row.figures}
    kinds = [kind for kind in KINDS if kind in there]
    ratios = []
    if len(rows) > 1 and any(row.contender == GATE for row in rows):
        for title, known in (("gate is x", SPEEDS), ("gate's CPU x", COSTS)):
            ratios += [(title, kind) for kind in known if kind in there][:1]
    titles = ["", *(KINDS[kind].label for kind in kinds), *(title for title, _ in ratios)]
    return [titles, *(_cells(outcome, row, kinds, [kind for _, kind in ratios]) for row in rows)]


def _cells(outcome: Outcome, row: Row, kinds: list[str], ratios: list[str]) -> list[str]:
    found = [row.contender]
    for kind in kinds:
        value = row.median(kind)
        found.append("-" if value is None else f"{value:,.{KINDS[kind].digits}f}".replace(",", " "))
    for kind in ratios:
        ratio = None
        if row.contender != GATE:
            ratio = outcome.ratio(row.work, kind, GATE, row.contender)
        found.append("" if ratio is None else f"{ratio:.2f}")
    return found


def text(outcome: Outcome, title: str) -> str:
    """Give a case as text."""
    lines = [f"== {outcome.case}: {title}"]
    if outcome.skipped:
        return "\n".join([*lines, f"   not run: {outcome.skipped}", ""])
    for work in outcome.works():
        rows = table(outcome, work)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines.append(f"-- {work}")
        for first, *others in rows:
            shown = "  ".join(o.rjust(w) for o, w in zip(others, widths[1:], strict=True))
            lines.append(f"   {first.ljust(widths[0])}  {shown}".rstrip())
        lines += [
            f"   {row.contender}: not run: {row.reason}"
            for row in outcome.rows
            if row.work == work and row.reason
        ]
    if turn_ms := outcome.about.get("longest_turn_ms"):
        lines.append(f"   longest turn of the reactor: {turn_ms} ms")
    lines += [f"   note: {note}" for note in outcome.notes]
    return "\n".join([*lines, ""])
