"""
Measures the gate beside others: ``make bench``, ``python -m bench``.

    python -m bench                  install what is needed, run every case, print tables
    python -m bench --list           name the cases
    python -m bench relay stdio      run these
    python -m bench --smoke          see that each case works, with tiny numbers
    python -m bench --compare A B    tell how far the ratios of two runs are apart
    python -m bench --count          count instructions of requests: see bench/counts.py

Results are kept in one JSON file; a case that runs again takes the place of its last run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import compare, counts, page
from bench.cases.every import CASES
from bench.lab import cores, parts, store, tables, targets
from bench.lab.figures import Outcome
from bench.lab.lab import Case, Lab, machine
from bench.lab.running import ROOT, BenchError, NotHereError

PLACE = ROOT / "var" / "bench"
ROUNDS = 7
# A case of several lives shares the rounds out among them, but none gets fewer than this.
LEAST_OF_A_LIFE = 4


def main(arguments: Sequence[str]) -> int:
    """Run the cases that were asked for; give 1 when one of them could not be run."""
    by_name = {case.name: case for case in CASES}
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the gate beside others on the same work.",
        epilog="Figures of two runs do not compare; ratios within one run do.",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="run only these (--list)")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"turns of each, at least ({ROUNDS})"
    )
    parser.add_argument("--smoke", "--quick", action="store_true", help="tiny numbers, one round")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="results (var/bench/results.json)"
    )
    parser.add_argument(
        "--parts", type=Path, default=PLACE, metavar="DIR", help="installed programs (var/bench)"
    )
    parser.add_argument("--install", action="store_true", help="install what is needed and end")
    parser.add_argument("--no-install", action="store_true", help="take what is there")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="tell where the gate's time goes (var/bench/profiles)",
    )
    parser.add_argument(
        "--docs", action="store_true", help="write the page of figures from the results and end"
    )
    parser.add_argument(
        "--count", action="store_true", help="count instructions of requests, by Valgrind"
    )
    parser.add_argument(
        "--keep", action="store_true", help="with --count: write them to bench/counts.json"
    )
    parser.add_argument("--targets", action="store_true", help="print results so far and end")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.json", "B.json"),
        help="tell how far the ratios of two runs are apart; status 1: more than 15 %%",
    )
    args = parser.parse_args(arguments)
    known = counts.WORKS if args.count else by_name
    if unknown := [name for name in args.cases if name not in known]:
        parser.error(f"no case is called {unknown[0]}; there are {', '.join(known)}")
    if args.rounds < 1:
        parser.error("--rounds: at least one")
    if args.compare:
        for given in args.compare:
            if not given.is_file():
                parser.error(f"--compare: there is no file {given}")
        told, agree = compare.compare(*args.compare)
        print(told, end="")
        return int(not agree)
    file = args.json or (PLACE / ("smoke.json" if args.smoke else "results.json"))
    if args.list:
        for case in CASES:
            print(f"{case.name:14} {case.title}")
        return 0
    if args.docs:
        for written in page.write(file):
            print(written)
        return 0
    installing = args.install or not (args.no_install or args.smoke or args.targets)
    if installing and (args.count or args.install):
        parts.install_debian(parts.COUNTER)
    if installing and not args.count:
        parts.install(args.parts.resolve(), profiler=args.profile)
    if args.install:
        return 0
    if args.count:
        return counts.count(args.cases, args.parts.resolve(), keep=args.keep, smoke=args.smoke)
    if not args.targets:
        chosen = [by_name[name] for name in args.cases] or list(CASES)
        failed = [case.name for case in chosen if not run(case, file, args)]
        if args.smoke:
            return bool(failed)
    else:
        failed = []
        for name, outcome in store.read(file).items():
            print(tables.text(outcome, by_name[name].title if name in by_name else ""))
    print(targets.text(store.read(file)))
    print(f"results: {file}")
    return bool(failed)


def run(case: Case, file: Path, args: argparse.Namespace) -> bool:
    """Run one case, print and keep what it brought; tell whether there are figures, or a reason."""
    outcome = Outcome(case.name)
    begun = time.monotonic()
    good = True
    lives = 1 if args.smoke or args.profile else case.lives
    rounds = 1 if args.smoke else max(args.rounds // lives, min(args.rounds, LEAST_OF_A_LIFE))
    with tempfile.TemporaryDirectory(prefix="mcpgate-bench-") as scratch:
        try:
            for life in range(lives):
                with Lab(
                    outcome=outcome,
                    scratch=Path(scratch, str(life)),
                    parts=args.parts.resolve(),
                    rounds=rounds,
                    smoke=args.smoke,
                    profiles=file.parent / "profiles" if args.profile else None,
                ) as lab:
                    case.run(lab)
        except NotHereError as error:
            outcome.skipped = str(error)
        except Exception as error:
            if not isinstance(error, BenchError | OSError):
                traceback.print_exc()
            outcome.skipped = f"{type(error).__name__}: {error}"
            good = False
    outcome.about |= {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": lives * rounds,
        "smoke": args.smoke,
        "profiled": args.profile,
        "took_s": round(time.monotonic() - begun, 1),
        "pinned": cores.are_apart(),
        "machine": machine(),
    }
    store.merge(file, outcome, [case.name for case in CASES])
    print(tables.text(outcome, case.title), flush=True)
    return good


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # What was started is ended on the way out, whoever ends us.
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main(sys.argv[1:]))
