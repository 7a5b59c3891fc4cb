"""
``mcpgate health``: does a gate answer here?  For health checks of containers.

``python -m mcpgate.cli.health`` does the same at a quarter of the cost, for whoever asks every half
minute.  What a load balancer should know is at ``/ready``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from mcpgate.cli.control_client import ControlClient, add_arguments, asking

WAIT_S: Final = 4.0

_TOLD: Final = (
    "Ask a gate at its control socket whether it answers. Exit code 1: it is there and does not; "
    "3: no gate is running."
)


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "health", help="tell whether a gate answers, for health checks", description=_TOLD
    )
    _arguments(parser)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.set_defaults(run=asking(_health))


def _health(arguments: argparse.Namespace, gate: ControlClient) -> None:
    told = gate.get("/version", WAIT_S)
    print(f"pid {told['pid']} answers, up for {told['uptime_s']:.0f} s")


def main(words: Sequence[str]) -> int:
    """Do it without the other commands; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mcpgate.cli.health", description=_TOLD)
    _arguments(parser)
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
