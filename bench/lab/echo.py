"""The stdio server of every case that needs one, on the core of the load."""

from __future__ import annotations

import sys
from typing import Final

from bench.lab import cores
from bench.lab.running import ROOT

MARK: Final = "echo_stdio.py"
_PROGRAM: Final = str(ROOT / "bench" / "programs" / MARK)


def command(era: str = "legacy") -> list[str]:
    """Give the command that starts it."""
    return [*cores.for_load(), sys.executable, _PROGRAM, era]
