"""
``mcpgate config diff|apply|history|rollback``: changes of ``gate.ini`` on a running gate; and
``mcpgate reload``, the name by which others know ``config apply``.

A running gate takes a written file over by itself within seconds; these commands tell what that
means beforehand, wait for it, and go back.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcpgate.cli.control_client import APPLY_S, ControlClient, asking
from mcpgate.cli.control_client import add_arguments as add_gate_arguments
from mcpgate.cli.edit import DONE, NOT_DONE, REFUSED, add_config, change
from mcpgate.config.changes import compare
from mcpgate.config.load import read_config
from mcpgate.config.problems import ConfigError


def add_parser(subparsers: Any) -> None:
    """Declare the subcommands."""
    parser = subparsers.add_parser(
        "config",
        help="take a changed gate.ini over, look back, go back",
        description="Changes of gate.ini on a running gate.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    diff = commands.add_parser(
        "diff",
        help="tell how gate.ini differs from another",
        description="Tell what it means to go from another file (by default the newest copy "
        "kept beside it) to gate.ini: servers added, removed and changed, what needs a restart.",
    )
    diff.add_argument("other", nargs="?", type=Path, metavar="OTHER")
    diff.add_argument("--text", action="store_true", help="the lines that differ, too")
    diff.set_defaults(run=_diff)
    for group, name in ((commands, "apply"), (subparsers, "reload")):
        apply = group.add_parser(
            name,
            help="have a running gate take gate.ini over now",
            description="Have a running gate read gate.ini, try out new and changed servers "
            "beside those that run, and serve them; when anything is wrong nothing changes. "
            "Exit code 1: it was not taken over; 3: no gate is running.",
        )
        add_gate_arguments(apply, ("text", "json"))
        apply.set_defaults(run=asking(_apply))
    history = commands.add_parser(
        "history", help="list the copies kept beside gate.ini", description="Newest first."
    )
    history.set_defaults(run=_history)
    rollback = commands.add_parser(
        "rollback",
        help="go back to a copy kept beside gate.ini",
        description="Write a copy that was kept (by default the newest) in place of gate.ini; "
        "what stands there now is kept in turn. A running gate takes it over within seconds.",
    )
    rollback.add_argument("number", nargs="?", type=int, metavar="NUMBER")
    rollback.set_defaults(run=_rollback)
    for command in (diff, history):
        add_config(command, changes=False)
    add_config(rollback)


def copies(path: Path) -> list[tuple[int, Path]]:
    """Give the copies kept beside a file, newest first."""
    found = []
    for one in path.parent.glob(f"{path.name}.*"):
        number = one.name.removeprefix(f"{path.name}.")
        if number.isdecimal() and one.is_file():
            found.append((int(number), one))
    return sorted(found, reverse=True)


def _diff(arguments: argparse.Namespace) -> int:
    other = arguments.other
    if other is None:
        kept = copies(arguments.config)
        if not kept:
            print(f"{arguments.config}: no copy is kept beside it.", file=sys.stderr)
            return NOT_DONE
        other = kept[0][1]
    try:
        old, new = (read_config(path, os.environ) for path in (other, arguments.config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return REFUSED
    print(f"from {other} to {arguments.config}:")
    for line in compare(old, new).words():
        print(f"  {line}")
    if arguments.text:
        before, after = (
            path.read_text(encoding="utf-8").splitlines(True) for path in (other, arguments.config)
        )
        shown = difflib.unified_diff(before, after, str(other), str(arguments.config))
        sys.stdout.writelines(shown)
    return DONE


def _apply(arguments: argparse.Namespace, gate: ControlClient) -> None:
    told = gate.post("/reload", {}, timeout_s=APPLY_S)
    if arguments.format == "json":
        print(json.dumps(told["changes"]))
        return
    for line in told["changes"]:
        print(line)


def _history(arguments: argparse.Namespace) -> int:
    for number, path in copies(arguments.config):
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        print(f"{number:4}  {written:%Y-%m-%d %H:%M:%S}  {path}")
    return DONE


def _rollback(arguments: argparse.Namespace) -> int:
    kept = dict(copies(arguments.config))
    number = arguments.number if arguments.number is not None else max(kept, default=0)
    if number not in kept:
        print(f"{arguments.config}: there is no copy {number or ''} beside it.", file=sys.stderr)
        return NOT_DONE
    try:
        text = kept[number].read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"{kept[number]}: the file can not be read: {error}", file=sys.stderr)
        return NOT_DONE
    return change(
        arguments.config, lambda _: text, f"went back to {number}", dry_run=arguments.dry_run
    )
