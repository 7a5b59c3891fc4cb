"""
Failures that are expected, in files that may only shrink.

A file holds, for each run, what fails in it: groups and the names in them.  A failure that is not
there is a failure of the test, and so is an entry that does not fail any more.  With
``MCPGATE_SHRINK_EXPECTED=1`` such entries are taken out; nothing ever puts one in but an editor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from unittest import TestCase

Failures = Mapping[str, Iterable[str]]


def check(case: TestCase, path: Path, run: str, failures: Failures) -> None:
    """
    Compare what failed with what is expected to.

    :raises AssertionError: something else failed, or something did not that should.
    """
    known = json.loads(path.read_text())
    expected = {group: set(names) for group, names in known.get(run, {}).items()}
    found = {group: set(names) for group, names in failures.items()}
    new = _less(found, expected)
    stale = _less(expected, found)
    if stale and os.environ.get("MCPGATE_SHRINK_EXPECTED", "") == "1":
        known[run] = _less(expected, stale)
        if not known[run]:
            del known[run]
        path.write_text(written(known))
        stale = {}
    case.assertEqual(new, {}, f"{run}: these failed")
    case.assertEqual(stale, {}, f"{run}: take these out of {path.name}, they do not fail")


def written(known: Mapping[str, Failures]) -> str:
    """Write such a file, with a line for each group."""
    runs = []
    for run, groups in sorted(known.items()):
        lines = [
            f"  {json.dumps(group)}: {json.dumps(sorted(names))}"
            for group, names in sorted(groups.items())
        ]
        runs.append(f" {json.dumps(run)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(runs) + "\n}\n"


def _less(groups: Mapping[str, set[str]], taken: Failures) -> dict[str, list[str]]:
    rest = {
        group: sorted(names.difference(taken.get(group, ()))) for group, names in groups.items()
    }
    return {group: names for group, names in rest.items() if names}
