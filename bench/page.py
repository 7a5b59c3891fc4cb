"""
The page of figures in the documentation, made of the results of a run.

    python -m bench --docs           write docs/reference/performance.rst and its .json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cases.every import CASES
from bench.lab import plot, tables, targets
from bench.lab.figures import Outcome
from bench.lab.running import ROOT

PAGE: Final = ROOT / "docs" / "reference" / "performance.rst"
FIGURES: Final = PAGE.with_suffix(".json")

_INTRO: Final = """\
===========
Performance
===========

.. This page is made of performance.json by: python -m bench --docs

What the gate costs, beside other programs that do the same work on the same machine.
Why it is as it is, and what was tried, stands in :doc:`../explanation/performance`.

Figures of two runs do not compare: this machine is shared, and drifts by a factor of two.
Within one run every contender does a short piece of the same work in turn, so ratios hold.
They are taken within each round, and their median is given.
What is measured has one core for itself; clients and the servers behind it have another.
*Gate is x*: how many times as fast the gate is as what stands in the row.

To measure your own machine::

   make bench                        # installs what it needs into var/bench, runs every case
   python -m bench --list            # names the cases
   python -m bench relay stdio       # runs some of them again
   python -m bench --profile relay   # tells where the gate's time goes
   python -m bench --compare A B     # tells how far the ratios of two files are apart
   python -m bench --count           # counts instructions of requests, by Valgrind

"""
_MISSED: Final = """\
By py-spy, over the whole case with clients of all kinds: shares of the samples in which the main
thread did not wait, by the package whose code ran, and by function.
``python -m bench --profile`` takes them, apart from the figures: who is looked into is slower.
What it would take to do better stands in :doc:`../explanation/performance`.
"""
_LONGEST: Final = 6
_VERDICTS: Final = {True: "met", False: "**missed**", None: "-"}


def write(results: Path) -> list[Path]:
    """Write the page from a file of results; give what was written."""
    told = json.loads(results.read_text())
    FIGURES.write_text(json.dumps(told, indent=1) + "\n")
    PAGE.write_text(render(told))
    return [PAGE, FIGURES]


def render(told: dict[str, Any]) -> str:
    """Give the page for results as they stand in the file."""
    outcomes = {name: Outcome.from_json(name, case) for name, case in told["cases"].items()}
    parts = [_INTRO, *_machines(outcomes), *_targets(outcomes)]
    if drawing := plot.draw(outcomes):
        parts += [_title("Beside others"), ".. raw:: html", ""]
        parts += [*("   " + line for line in drawing.splitlines()), ""]
    parts.append(_title("Every case"))
    for case in CASES:
        if case.name in outcomes:
            parts += _case(outcomes[case.name], case.title)
    return "\n".join(parts).rstrip("\n") + "\n"


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def _machines(outcomes: Mapping[str, Outcome]) -> list[str]:
    found = {json.dumps(outcome.about["machine"], sort_keys=True) for outcome in outcomes.values()}
    dates = sorted(str(outcome.about["date"])[:10] for outcome in outcomes.values())
    parts = [_title("The machine")]
    for text in sorted(found):
        machine = json.loads(text)
        parts.append(
            f"- {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, "
            f"{machine['system']}, Python {machine['python']}, {machine['openssl']}"
        )
    if dates:
        span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        parts.append(f"- measured {span}")
    return [*parts, ""]


def _targets(outcomes: Mapping[str, Outcome]) -> list[str]:
    rows = [
        [
            verdict.target.work,
            verdict.target.wanted,
            verdict.value,
            _VERDICTS[verdict.met],
        ]
        for verdict in targets.judge(outcomes)
    ]
    return [
        *(_title("Targets"), *_table(["Work", "Wanted", "Measured", ""], rows)),
        *_missed(outcomes),
    ]


def _missed(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Give, for each case with a missed target, where the gate's time or memory goes."""
    missed: dict[str, list[targets.Verdict]] = {}
    for verdict in targets.judge(outcomes):
        if verdict.met is False:
            missed.setdefault(verdict.target.case, []).append(verdict)
    if not missed:
        return []
    parts = [_title("Where it goes in what missed its target"), _MISSED]
    for case, verdicts in missed.items():
        parts.append(_title(f"{case}: what was missed", "-"))
        for verdict in verdicts:
            target = verdict.target
            parts.append(f"- {target.work}: {verdict.value}, wanted {target.wanted}")
        parts.append("")
        outcome = outcomes[case]
        kinds = {"memory" if v.target.unit in ("KB", "MiB") else "time" for v in verdicts}
        kept = [p for p in outcome.profiles if p.get("kind", "time") in kinds]
        profiles = kept or _longest(outcome)
        for profile in profiles:
            for kind, title in (("rooms", "Of"), ("functions", "By function, of")):
                if found := profile.get(kind):
                    rows = [[f"``{name}``", f"{share:.1%}"] for name, share in found]
                    parts += _table([f"{title} {profile['of']}", "Share"], rows)
        if not profiles:
            parts.append("No profile is kept: the explanation says where it goes.\n")
    return parts


def _longest(outcome: Outcome) -> list[dict[str, Any]]:
    """Give the longest turns of a case that tells them, as shares of the longest."""
    found = {row.contender: row.median("turn_cpu_ms") or 0.0 for row in outcome.rows}
    if not any(found.values()):
        return []
    most = max(found.values())
    rows = sorted(found.items(), key=lambda pair: -pair[1])[:_LONGEST]
    return [{"of": f"the longest turn, {most:.0f} ms", "rooms": [[n, ms / most] for n, ms in rows]}]


def _case(outcome: Outcome, title: str) -> list[str]:
    parts = [_title(outcome.case, "-"), title[0].upper() + title[1:] + ".", ""]
    if outcome.skipped:
        return [*parts, f"Not run: {outcome.skipped}.", ""]
    for work in outcome.works():
        rows = [row for row in outcome.rows if row.work == work]
        titles, *cells = tables.table(outcome, work)
        if cells:
            parts += _table([work, *titles[1:]], cells)
        parts += [f"{row.contender}: not run: ``{row.reason}``\n" for row in rows if row.reason]
    if turn_ms := outcome.about.get("longest_turn_ms"):
        parts.append(f"Longest turn of the reactor, by the clock: {turn_ms} ms.\n")
    return [*parts, *(f"{note[0].upper()}{note[1:]}.\n" for note in outcome.notes)]


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [titles, *rows]:
        lines += [f"   {'*' if not i else ' '} - {cell}".rstrip() for i, cell in enumerate(row)]
    return [*lines, ""]
