"""``mcpgate tools SERVER --diff`` and ``--accept``: how tools differ from those trusted."""

from __future__ import annotations

import argparse
from typing import Any, Final
from urllib.parse import quote

from mcpgate.cli.asking import MARGIN_S, whose
from mcpgate.cli.control_client import CommandError, ControlClient, print_json
from mcpgate.telemetry.escaping import clean, text_of

DIFFERS: Final = 1

_USAGE: Final = 2
_ABOUT_CHARS: Final = 1000
_NAME_CHARS: Final = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--diff",
        action="store_true",
        help="show how the tools differ from those that are trusted; exit code 1 if they do",
    )
    what.add_argument(
        "--accept", action="store_true", help="trust the tools as they are now, and show the same"
    )
    parser.add_argument("--dry-run", action="store_true", help="with --accept: change nothing")


def is_wanted(arguments: argparse.Namespace) -> bool:
    """
    Tell whether it is this that is asked for.

    :raises CommandError: the options do not fit together.
    """
    wanted: bool = arguments.diff or arguments.accept
    if arguments.dry_run and not arguments.accept:
        raise CommandError("--dry-run goes with --accept", _USAGE)
    if wanted and arguments.server is None:
        raise CommandError("--diff and --accept need the name of a SERVER", _USAGE)
    return wanted


def run(arguments: argparse.Namespace, gate: ControlClient) -> int:
    """Ask the gate to compare or accept, and tell what it found."""
    accept = arguments.accept and not arguments.dry_run
    told = gate.post(
        f"/servers/{quote(arguments.server, safe='')}/pins",
        {**whose(arguments), "accept": accept, "timeout_s": arguments.timeout},
        arguments.timeout + MARGIN_S,
    )
    changes = told["changes"]
    if arguments.format == "json":
        print_json(told)
    elif arguments.format == "names":
        for one in changes:
            print(clean(text_of(one["name"]), _NAME_CHARS))
    else:
        _print(arguments, told, accepted=accept)
    return DIFFERS if changes and arguments.diff else 0


def _print(arguments: argparse.Namespace, told: dict[str, Any], *, accepted: bool) -> None:
    changes, server = told["changes"], arguments.server
    for one in changes:
        parts = f" ({', '.join(one['parts'])})" if one["parts"] else ""
        print(f"{one['kind']} {clean(text_of(one['name']), _NAME_CHARS)}{parts}")
        if one["before"] != one["now"]:
            for sign, text in (("-", one["before"]), ("+", one["now"])):
                if text:
                    print(f"  {sign} {clean(text_of(text), _ABOUT_CHARS)}")
    if accepted:
        print(f"{server}: {told['trusted']} tools are trusted")
    elif not changes:
        print(f"{server}: the tools are as they are trusted")
    elif arguments.accept:
        print(f"{server}: {told['listed']} tools would be trusted")
    else:
        print(f"{server}: accept with 'mcpgate tools {server} --accept'")
