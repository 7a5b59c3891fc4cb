"""``mcpgate completion SHELL``: what a shell needs to complete the words of ``mcpgate``."""

from __future__ import annotations

import argparse
from typing import Any

import shtab


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "completion",
        help="print completions for a shell",
        description="Print a script that completes commands and options; put it where your shell "
        "looks for completions.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"), metavar="SHELL")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from mcpgate.cli import make_parser  # noqa: PLC0415 - it imports this module

    print(shtab.complete(make_parser(), shell=arguments.shell))
    return 0
