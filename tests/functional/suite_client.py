"""
What the conformance suite starts as the client to try.

    python -m tests.functional.suite_client direct|gate legacy|modern URL

runs a client of that era against the suite's own server, or puts a gate between the two.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tests.functional import real
from tests.functional.conformance import OPEN_GATE, Bench
from tests.functional.gate_process import ROOT, GateProcess

CLIENT = ROOT / "tests" / "functional" / "clients" / "suite2.py"
CLIENT_S = 60.0


def run_client(era: str, url: str) -> int:
    """Run the client; give its exit status."""
    command = [real.python("mcp2"), str(CLIENT), era, url]
    try:
        return subprocess.run(command, check=False, timeout=CLIENT_S).returncode
    except subprocess.TimeoutExpired:
        return 1


def main(arguments: Sequence[str]) -> int:
    """Run the client where it was asked for."""
    via, era, url = arguments
    if via == "direct":
        return run_client(era, url)
    bench = Bench()
    try:
        entry = f"[server:sut]\nurl = {url}\n"
        gate = GateProcess(bench, OPEN_GATE + entry).start()
        status = run_client(era, f"http://localhost:{gate.plain_port}/sut/mcp")
    finally:
        bench.close()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
