"""``mcpgate cleanup``: remove what a gate has left, through it when it runs, else directly."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from mcpgate.cli.control_client import (
    NO_GATE,
    NOT_DONE,
    CommandError,
    add_arguments,
    find_gate,
    print_json,
    print_table,
)
from mcpgate.config.load import read_config
from mcpgate.config.problems import ConfigError
from mcpgate.telemetry.escaping import clean

_OWNER_CHARS: Final = 8


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "cleanup",
        help="remove what a gate has left: containers, networks, files",
        description="Remove stopped and orphaned containers of this gate, and networks and files "
        "no container needs. Nothing without this gate's id is touched. Through the gate when one "
        "runs, else directly. Exit code 1: something could not be removed.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell")
    parser.add_argument(
        "--stopped",
        action="store_true",
        help="containers that wait for the next call of their owner",
    )
    parser.add_argument(
        "--orphans",
        action="store_true",
        help="containers no call will take up, networks and files without a container",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        type=_owner,
        metavar="OWNER",
        help="the data of these owners, for good; nothing else asks for that",
    )
    add_arguments(parser, ("table", "json", "names"))
    parser.set_defaults(run=run)


def _owner(text: str) -> str:
    if text != "shared" and len(text) < _OWNER_CHARS:
        raise argparse.ArgumentTypeError(f"{text} is no owner: see the OWNER of ps")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Remove and print what was removed."""
    chosen = arguments.stopped or arguments.orphans or arguments.data
    asked = {
        "dry_run": arguments.dry_run,
        "stopped": arguments.stopped or not chosen,
        "orphans": arguments.orphans or not chosen,
        "data": arguments.data,
    }
    try:
        try:
            found = find_gate(arguments).post("/cleanup", asked)["found"]
        except CommandError as error:
            if error.code != NO_GATE:
                raise
            found = _without_gate(arguments, asked)
    except CommandError as error:
        print(f"mcpgate: {error}", file=sys.stderr)
        return error.code
    _print(arguments, found)
    return NOT_DONE if any(one["error"] for one in found) else 0


def _without_gate(arguments: argparse.Namespace, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    from mcpgate.service.offline import OfflineError, clean_up  # noqa: PLC0415  # only then
    from mcpgate.web.pages.control import Tidying  # noqa: PLC0415

    path = arguments.config or Path("gate.ini")
    if arguments.state_dir is not None:
        raise CommandError("without a running gate --config is needed, not --state-dir", 2)
    try:
        config = read_config(path, os.environ)
    except ConfigError as error:
        raise CommandError(f"no gate is running, and\n{error}", 2) from None
    try:
        found = clean_up(config, Tidying(**{**asked, "data": tuple(asked["data"])}), os.environ)
    except OfflineError as error:
        raise CommandError(str(error)) from None
    return [asdict(one) for one in found]


def _print(arguments: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "names":
        for one in found:
            if not one["error"]:
                print(f"{clean(one['kind'])}/{clean(one['name'])}")
    elif not found:
        print("nothing to remove" if arguments.dry_run else "nothing was left")
    else:
        done = "would be removed" if arguments.dry_run else "removed"
        print_table(
            ("KIND", "SERVER", "OWNER", "NAME", "WHY", "RESULT"),
            [
                (
                    *(one["kind"], one["server"], one["owner"], one["name"], one["why"]),
                    f"left: {one['error']}" if one["error"] else done,
                )
                for one in found
            ],
        )
