"""
The ``mcpgate`` command.

Each subcommand is a module of this package with ``add_parser(subparsers)``, which sets ``run`` as
the parser's default: a function from the parsed arguments to an exit code.  Nothing here installs
a reactor; a subcommand that needs one does so inside its function.

Exit codes: 0 done; 1 not done; 2 wrong usage or a refused configuration; 3 no gate is running.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import UnsupportedOperation
from typing import Final

from mcpgate._version import __version__

COMMANDS: Final = (
    "add",
    "call",
    "capacity",
    "check",
    "cleanup",
    "client",
    "completion",
    "config",
    "demo",
    "doctor",
    "export",
    "health",
    "importing",
    "keys",
    "logs",
    "password",
    "ps",
    "reference",
    "remove",
    "servers",
    "sessions",
    "start",
    "status",
    "stop",
    "testing",
    "tools",
    "version",
)
"""
Modules of this package, in the order ``mcpgate --help`` lists what they declare; ``servers`` is
``list`` and ``show``, ``importing`` is ``import``, ``testing`` is ``test``;
``config`` is ``reload``, too.
"""

_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE, what a shell reports for it


def make_parser() -> argparse.ArgumentParser:
    """Make the parser with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="mcpgate",
        description="Event-driven reverse proxy for MCP servers.",
        epilog="The gate itself is started with: twistd -n mcpgate --config gate.ini",
    )
    parser.add_argument(
        "--version", action="version", version=f"mcpgate {__version__}", help="show the version"
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"mcpgate.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one subcommand and give its exit code.

    :param argv: arguments without the program's name; None: those of the process.
    :raises SystemExit: with 2 on wrong usage, with 0 after ``--help`` and ``--version``.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    # What stands behind -- is a command line of its own; argparse would look into it.
    here = given.index("--") if "--" in given else len(given)
    parser = make_parser()
    arguments = parser.parse_args(given[:here])
    if "words" in arguments:
        arguments.words = given[here + 1 :]
    elif here < len(given):
        parser.error("this command takes nothing behind --")
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from flushing again.
        with suppress(UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return 130
    return code
