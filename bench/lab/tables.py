"""Figures as tables: of text for the terminal; cells for the documentation."""

from __future__ import annotations

from bench.lab.figures import KINDS, Outcome, Row


def header(outcome: Outcome, work: str) -> list[str]:
    """Give the kinds of figures that contenders have at a work, in the order of `KINDS`."""
    there = {kind for row in outcome.rows if row.work == work for kind in row.figures}
    return [kind for kind in KINDS if kind in there]


def cells(row: Row, kinds: list[str]) -> list[str]:
    """Give the cells of a row: the contender, its figures."""
    found = [row.contender]
    for kind in kinds:
        value = row.median(kind)
        found.append("-" if value is None else f"{value:,.{KINDS[kind].digits}f}".replace(",", " "))
    return found


def text(outcome: Outcome, title: str) -> str:
    """Give a case as text."""
    lines = [f"== {outcome.case}: {title}"]
    if outcome.skipped:
        return "\n".join([*lines, f"   not run: {outcome.skipped}", ""])
    for work in outcome.works():
        kinds = header(outcome, work)
        rows = [row for row in outcome.rows if row.work == work]
        table = [["", *(KINDS[kind].label for kind in kinds)]]
        table += [cells(row, kinds) for row in rows if row.figures]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines.append(f"-- {work}")
        for line in table:
            first, *others = line
            shown = "  ".join(o.rjust(w) for o, w in zip(others, widths[1:], strict=True))
            lines.append(f"   {first.ljust(widths[0])}  {shown}".rstrip())
        lines += [f"   {row.contender}: not run: {row.reason}" for row in rows if row.reason]
    if turn_ms := outcome.about.get("longest_turn_ms"):
        lines.append(f"   longest turn of the reactor: {turn_ms} ms")
    lines += [f"   note: {note}" for note in outcome.notes]
    return "\n".join([*lines, ""])
