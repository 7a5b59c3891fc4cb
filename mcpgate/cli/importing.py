"""
``mcpgate import FILE``: servers of another program's file as sections of ``gate.ini``.

Prints them, or adds them to a configuration that is checked as a whole before it is written; what
was there before is kept beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from mcpgate.cli.edit import change
from mcpgate.config.dialects import NotTakenError, Taken, read_servers
from mcpgate.config.dialects.entries import LIMIT_BYTES
from mcpgate.config.dialects.writing import as_ini
from mcpgate.config.editing import with_section
from mcpgate.config.interpolation import read_bounded
from mcpgate.config.problems import BadValueError
from mcpgate.telemetry.escaping import clean

_NOTE_CHARS: Final = 1000


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "import",
        help="make sections of gate.ini from another program's file",
        description="Make [server:NAME] sections from an mcpServers file, VS Code's servers, an "
        "mcpProxy file, server.json, Codex' config.toml, a PORT/CMD/ARGS file or a docker run "
        "line, and print them. What could not be taken over is said on stderr.",
    )
    parser.add_argument("file", metavar="FILE", help="- reads stdin")
    parser.add_argument(
        "--into", type=Path, metavar="GATE.INI", help="add them to this file instead of printing"
    )
    parser.add_argument("--name", help="for a file that holds one server without a name")
    parser.add_argument("--only", metavar="A,B", help="take these servers only")
    parser.add_argument(
        "--shared", action="store_true", help="one copy for everybody, not one for each key"
    )
    parser.add_argument("--dry-run", action="store_true", help="with --into: write nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Give 0, 1 when nothing could be taken, 2 when a file is no good."""
    try:
        text = _text(arguments.file)
        name = arguments.name or ("server" if arguments.file == "-" else Path(arguments.file).stem)
        taken = read_servers(text, name, os.environ)
        if arguments.only is not None:
            _choose(taken, [one.strip() for one in arguments.only.split(",")])
    except NotTakenError as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
        return 2
    for note in taken.notes:
        print(f"note: {clean(note, _NOTE_CHARS)}", file=sys.stderr)
    for server in taken.servers:
        for note in server.notes:
            print(f"note: {server.name}: {clean(note, _NOTE_CHARS)}", file=sys.stderr)
    if not taken.servers:
        print(f"{arguments.file}: no server could be taken over.", file=sys.stderr)
        return 1
    extra = [("isolation", "shared")] if arguments.shared else []
    if arguments.into is None:
        print(as_ini(taken, extra=extra, with_gate=True), end="")
        return 0
    sections = as_ini(taken, extra=extra)
    names = ", ".join(server.name for server in taken.servers)
    return change(
        arguments.into,
        lambda text: with_section(text, sections),
        f"added {names}",
        dry_run=arguments.dry_run,
    )


def _text(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        else:
            content, _ = read_bounded(Path(file), LIMIT_BYTES)
        return content.decode("utf-8")
    except BadValueError as error:
        raise NotTakenError(f"{error.text}.") from None
    except UnicodeDecodeError:
        raise NotTakenError("The file is not UTF-8.") from None
    except OSError as error:
        raise NotTakenError(f"The file can not be read: {error.strerror}.") from None


def _choose(taken: Taken, wanted: list[str]) -> None:
    missing = set(wanted) - {server.name for server in taken.servers}
    if missing:
        raise NotTakenError(f"There is no server named {', '.join(sorted(missing))} in it.")
    taken.servers = [server for server in taken.servers if server.name in wanted]
