"""
``mcpgate import FILE``: servers of another program's file as sections of ``gate.ini``.

Prints them, or adds them to a configuration that is checked as a whole before it is written; what
was there before is kept beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcpgate.config.dialects import NotTakenError, Taken, read_servers
from mcpgate.config.dialects.entries import LIMIT_BYTES
from mcpgate.config.dialects.writing import as_ini
from mcpgate.config.interpolation import read_bounded
from mcpgate.config.load import parse_config
from mcpgate.config.problems import BadValueError, ConfigError

_MOST_BACKUPS = 1000


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
        print(f"note: {note}", file=sys.stderr)
    for server in taken.servers:
        for note in server.notes:
            print(f"note: {server.name}: {note}", file=sys.stderr)
    if not taken.servers:
        print(f"{arguments.file}: no server could be taken over.", file=sys.stderr)
        return 1
    extra = [("isolation", "shared")] if arguments.shared else []
    if arguments.into is None:
        print(as_ini(taken, extra=extra, with_gate=True), end="")
        return 0
    return _add(arguments.into, taken, as_ini(taken, extra=extra), dry_run=arguments.dry_run)


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


def _add(path: Path, taken: Taken, sections: str, *, dry_run: bool) -> int:
    """Add the sections to a configuration, if the whole is good."""
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"{path}: the file can not be read: {error}", file=sys.stderr)
        return 2
    after = before.rstrip("\n") + "\n\n" + sections
    try:
        parse_config(after, path, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        print(f"{path}: nothing was changed.", file=sys.stderr)
        return 2
    names = ", ".join(server.name for server in taken.servers)
    if dry_run:
        print(sections, end="")
        print(f"{path}: would get {names}.", file=sys.stderr)
        return 0
    try:
        kept = _replace(path, before, after)
    except OSError as error:
        print(f"{path}: the file can not be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{path}: added {names}; what was there before is {kept.name}.")
    return 0


def _replace(path: Path, before: str, after: str) -> Path:
    """Write a file whole, keeping what was there under the next free number."""
    status = path.stat()
    for number in range(1, _MOST_BACKUPS):
        kept = path.with_name(f"{path.name}.{number}")
        try:
            descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            break
        except FileExistsError:
            continue
    else:
        raise FileExistsError(0, "too many copies of the file lie beside it", str(path))
    with os.fdopen(descriptor, "w", encoding="utf-8") as copy:
        copy.write(before)
    handle, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as new:
            new.write(after)
            new.flush()
            os.fsync(new.fileno())
        os.chmod(fresh, status.st_mode & 0o777)
        if os.geteuid() == 0:
            os.chown(fresh, status.st_uid, status.st_gid)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    return kept
