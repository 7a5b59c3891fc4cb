"""
The file of results, and a run's place in it: a case that ran again takes the place of its last run.

What a run with ``--profile`` found goes beside the figures of the run before, if there was one.
So a long run may be done in pieces.  The file is written whole or not at all.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.lab.figures import Outcome


def read(file: Path) -> dict[str, Outcome]:
    """Read the results so far; none when there is no file."""
    if not file.exists():
        return {}
    cases: dict[str, Any] = json.loads(file.read_text())["cases"]
    return {name: Outcome.from_json(name, told) for name, told in cases.items()}


def merge(file: Path, outcome: Outcome, order: list[str]) -> None:
    """Put one case's results in, in the order cases have."""
    outcomes = read(file)
    before = outcomes.get(outcome.case)
    if before is not None and not outcome.profiles:
        outcome.profiles = before.profiles
    elif before is not None and before.rows and not outcome.skipped:
        # Who is looked into is slower: what was measured before is kept.
        before.profiles = outcome.profiles
        outcome = before
    outcomes[outcome.case] = outcome
    names = sorted(outcomes, key=lambda name: order.index(name) if name in order else len(order))
    text = json.dumps({"cases": {name: outcomes[name].to_json() for name in names}}, indent=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text + "\n")
    beside.replace(file)
