"""
The official conformance suite against a yardstick server, directly and through a gate.

    python -m tests.functional.conformance --fixture py2 --revision 2026-07-28 --via both

prints one line for each scenario: what passed, what failed and what the gate lost.  A check is
lost when it passes less often through the gate than directly, or fails only there.  The suite's
own verdict on a scenario is no measure: some pass on servers that do not speak the revision.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ParamSpec
from unittest import TestCase

from typing_extensions import override

from tests.functional import real
from tests.functional.gate_process import NO_LIMITS, ROOT, GateProcess
from tests.functional.yardsticks import YARDSTICKS, running

P = ParamSpec("P")

# How each revision is asked for.
REVISIONS = {
    "2025-06-18": ("--suite", "all", "--spec-version", "2025-06-18"),
    "2025-11-25": ("--requirements", "2025-11-25"),
    "2026-07-28": ("--requirements", "2026-07-28"),
}
SUITE_S = 240.0
SCENARIO_MS = 15_000
CLIENT_MS = 60_000

# The suite can send no key: everybody is the same user.
OPEN_GATE = (
    """
[gate]
listen =
    tls:tcp:<port>:interface=127.0.0.1
    tcp:<plain>:interface=127.0.0.1
state_dir = <dir>/state
drain_timeout = 1s
sweep = 1s

[auth:everybody]
type = none
"""
    + NO_LIMITS
)


@dataclass(frozen=True)
class Checks:
    """
    What the checks of one scenario came to.

    :ivar passed: how often each check passed.
    :ivar noted: how often it had only something to note: JSON where events would do as well.
    :ivar failed: what those that failed say.
    """

    passed: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> str:
        """Give how many passed and failed."""
        return f"{self.passed.total()}/{len(self.failed)}"


Results = Mapping[str, Checks]


def suite() -> list[str]:
    """Give the command of the suite."""
    place = real.package("conformance") / "@modelcontextprotocol" / "conformance"
    return [real.node(), str(place / "dist" / "index.js")]


def required(revision: str) -> list[str]:
    """Give the scenarios that a revision requires of servers."""
    place = real.package("conformance") / "@modelcontextprotocol" / "conformance"
    text = (place / "requirements" / f"{revision}.yaml").read_text()
    block = re.search(r"^server:\n((?:(?: .*|#.*)?\n)*)", text, re.MULTILINE)
    assert block is not None
    return re.findall(r"^  - (\S+)", block.group(1), re.MULTILINE)


def read_results(directory: Path, kind: str) -> dict[str, Checks]:
    """Read what the suite wrote."""
    results = {}
    for written in sorted(directory.glob(f"{kind}*/checks.json")):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", written.parent.name)
        checks = Checks()
        for check in json.loads(written.read_text()):
            if check["status"] == "SUCCESS":
                checks.passed[check["id"]] += 1
            elif check["status"] == "INFO":
                checks.noted[check["id"]] += 1
            elif check["status"] in ("FAILURE", "WARNING"):
                checks.failed[check["id"]] = str(check.get("errorMessage", ""))[:300]
        results[scenario.removeprefix(kind)] = checks
    return results


def run_suite(words: Sequence[str], kind: str, **extra: str) -> dict[str, Checks]:
    """
    Run the suite once.

    :param kind: how the directories of its results begin.
    :param extra: more of its environment.
    :raises AssertionError: it did not end in time, or brought nothing.
    """
    with tempfile.TemporaryDirectory(prefix="mcpgate-suite-") as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, **extra}
        command = [*suite(), *words, "-o", home]
        try:
            done = subprocess.run(
                command,
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SUITE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the suite did not end within {SUITE_S:.0f} s") from None
        results = read_results(Path(home), kind)
    if not results:
        raise AssertionError(done.stdout.decode(errors="replace")[-2000:])
    return results


def run_server_suite(url: str, revision: str) -> dict[str, Checks]:
    """Try a server."""
    words = ("server", "--url", url, *REVISIONS[revision], "--timeout", str(SCENARIO_MS))
    return run_suite(words, "server-")


def run_client_suite(scenario: str, revision: str, via: str, era: str) -> dict[str, Checks]:
    """
    Try a client, see `tests.functional.suite_client`.

    :param via: ``direct`` or ``gate``.
    :param era: that of the client; the suite speaks the one of the revision.
    """
    command = f"{sys.executable} -m tests.functional.suite_client {via} {era}"
    words = ["client", "--command", command, "--scenario", scenario, "--spec-version", revision]
    parts = real.require("node", "conformance", "mcp2")
    return run_suite(
        [*words, "--timeout", str(CLIENT_MS)],
        "",
        PYTHONPATH=os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)]),
        MCPGATE_REAL_PARTS=str(parts.resolve()),
    )


def run_direct(fixture: str, revision: str) -> dict[str, Checks]:
    """Try a yardstick."""
    with running(YARDSTICKS[fixture]) as port:
        return run_server_suite(f"http://localhost:{port}/mcp", revision)


def run_gate(case: TestCase, fixture: str, revision: str) -> dict[str, Checks]:
    """Try a yardstick through a gate, which starts it where it speaks stdio."""
    yardstick = YARDSTICKS[fixture]
    if yardstick.how == "stdio":
        gate = GateProcess(case, OPEN_GATE + yardstick.entry("sut")).start()
        return run_server_suite(f"http://localhost:{gate.plain_port}/sut/mcp", revision)
    with running(yardstick) as port:
        gate = GateProcess(case, OPEN_GATE + yardstick.entry("sut", port)).start()
        return run_server_suite(f"http://localhost:{gate.plain_port}/sut/mcp", revision)


def lost(direct: Results, gate: Results) -> dict[str, list[str]]:
    """Give the checks of each scenario that passed less often, or failed, only through the gate."""
    found = {}
    for scenario, checks in direct.items():
        seen = gate.get(scenario, Checks())
        missing = set(checks.passed - seen.passed - seen.noted)
        missing |= seen.failed.keys() - checks.failed.keys()
        if missing:
            found[scenario] = sorted(missing)
    return found


def totals(results: Results) -> str:
    """Count all checks that passed and failed."""
    passed = sum(checks.passed.total() for checks in results.values())
    return f"{passed}/{sum(len(checks.failed) for checks in results.values())}"


def table(direct: Results, gate: Results) -> list[str]:
    """Write a line for each scenario."""
    lines = [f"{'scenario':48} {'direct':>8} {'gate':>8}  lost"]
    missing = lost(direct, gate) if direct and gate else {}
    for scenario in direct or gate:
        columns = [
            results[scenario].count if scenario in results else "-" for results in (direct, gate)
        ]
        names = " ".join(missing.get(scenario, ()))
        lines.append(f"{scenario:48} {columns[0]:>8} {columns[1]:>8}  {names}".rstrip())
    sums = [totals(results) if results else "-" for results in (direct, gate)]
    lines.append(f"{'in all':48} {sums[0]:>8} {sums[1]:>8}")
    return lines


class Bench(TestCase):
    """What a gate needs beside a configuration, where no test runs."""

    def __init__(self) -> None:
        super().__init__()
        self._cleanups_of_gate = contextlib.ExitStack()

    def runTest(self) -> None:  # noqa: N802 - a name of unittest
        """Do nothing."""

    @override
    def addCleanup(
        self, function: Callable[P, object], /, *arguments: P.args, **named: P.kwargs
    ) -> None:
        self._cleanups_of_gate.callback(function, *arguments, **named)

    def close(self) -> None:
        """Clean up; :raises AssertionError: the gate left something behind."""
        self._cleanups_of_gate.close()


def main(arguments: Sequence[str]) -> int:
    """Run the suite and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.functional.conformance")
    parser.add_argument("--fixture", choices=YARDSTICKS, default="py2")
    parser.add_argument("--revision", choices=REVISIONS, default="2026-07-28")
    parser.add_argument("--via", choices=("gate", "direct", "both"), default="both")
    parser.add_argument("--reference", choices=YARDSTICKS, help="who is asked directly")
    parser.add_argument("--why", action="store_true", help="say why checks failed")
    parser.add_argument("--json", type=Path, help="write all results there")
    asked = parser.parse_args(arguments)
    direct: dict[str, Checks] = {}
    gate: dict[str, Checks] = {}
    if asked.via != "gate":
        direct = run_direct(asked.reference or asked.fixture, asked.revision)
    if asked.via != "direct":
        bench = Bench()
        try:
            gate = run_gate(bench, asked.fixture, asked.revision)
        finally:
            bench.close()
    lines = table(direct, gate)
    if asked.why:
        shown = gate or direct
        lines += [
            f"{scenario}:{name}: {why}"
            for scenario, checks in shown.items()
            for name, why in checks.failed.items()
        ]
    print("\n".join(lines))  # noqa: T201 - a command line tool
    if asked.json is not None:
        told = {"direct": direct, "gate": gate}
        plain = {
            via: {scenario: asdict(checks) for scenario, checks in results.items()}
            for via, results in told.items()
        }
        asked.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 1 if direct and gate and lost(direct, gate) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
