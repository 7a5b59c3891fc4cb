"""What the commands that change ``gate.ini`` have in common: check first, keep what was there."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mcpgate.config.editing import NoSuchSectionError
from mcpgate.config.load import parse_config, read_config
from mcpgate.config.problems import ConfigError, suggestion

DONE: Final = 0
NOT_DONE: Final = 1
REFUSED: Final = 2

_MOST_BACKUPS: Final = 1000


def add_config(parser: argparse.ArgumentParser, *, changes: bool = True) -> None:
    """Declare ``--config``, and ``--dry-run`` for a command that changes the file."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("gate.ini"),
        metavar="FILE",
        help="the configuration (default: %(default)s)",
    )
    if changes:
        parser.add_argument("--dry-run", action="store_true", help="show the change, write nothing")


def change(path: Path, edit: Callable[[str], str], done: str, *, dry_run: bool) -> int:
    """
    Change a configuration, if the result is good as a whole; give the exit code.

    :param done: says what was done, in the past tense.
    """
    try:
        before = path.read_text(encoding="utf-8")
        after = edit(before)
        parse_config(after, path, os.environ)
    except (OSError, UnicodeDecodeError) as error:
        print(f"{path}: the file can not be read: {error}", file=sys.stderr)
        return REFUSED
    except NoSuchSectionError as error:
        return no_such(path, str(error).removeprefix("server:"))
    except ConfigError as error:
        print(error, file=sys.stderr)
        print(f"{path}: nothing was changed.", file=sys.stderr)
        return REFUSED
    if dry_run:
        shown = difflib.unified_diff(
            before.splitlines(True), after.splitlines(True), str(path), f"{path} (not written)"
        )
        sys.stdout.writelines(shown)
        return DONE
    if before == after:
        print(f"{path}: nothing to change.")
        return DONE
    try:
        kept = replace(path, before, after)
    except OSError as error:
        print(f"{path}: the file can not be written: {error.strerror}", file=sys.stderr)
        return NOT_DONE
    print(f"{path}: {done}; what was there before is {kept.name}.")
    return DONE


def no_such(path: Path, name: str) -> int:
    """Say that there is no server of that name, and which one may be meant."""
    try:
        known = [spec.name for spec in read_config(path, os.environ).servers]
    except ConfigError:
        known = []
    remedy = suggestion(name, known)
    print(f"{path}: there is no [server:{name}]. {remedy}".rstrip(), file=sys.stderr)
    return NOT_DONE


def replace(path: Path, before: str, after: str) -> Path:
    """
    Write a file whole, keeping what was there under the next free number.

    :raises OSError: it could not be; the file is as it was.
    """
    status = path.stat()
    kept = _keep(path, before)
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


def _keep(path: Path, text: str) -> Path:
    for number in range(1, _MOST_BACKUPS):
        kept = path.with_name(f"{path.name}.{number}")
        try:
            descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as copy:
            copy.write(text)
        return kept
    raise FileExistsError(17, "too many copies of the file lie beside it", str(path))
