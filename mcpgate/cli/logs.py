"""``mcpgate logs SERVER``: the last lines running instances wrote."""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote, urlencode

from mcpgate.cli.control_client import ControlClient, add_arguments, asking, print_json
from mcpgate.telemetry.escaping import clean

_LINE_CHARS = 4096


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "logs",
        help="show what the instances of a server wrote to stderr",
        description="Show the last lines the running instances of a server wrote, oldest first. "
        "Exit code 3: no gate is running.",
    )
    parser.add_argument("server", metavar="SERVER")
    parser.add_argument("--owner", default="", metavar="OWNER", help="only of this owner, see ps")
    add_arguments(parser, ("text", "json"))
    parser.set_defaults(run=asking(_show))


def _show(arguments: argparse.Namespace, gate: ControlClient) -> None:
    target = f"/logs/{quote(arguments.server, safe='')}"
    if arguments.owner:
        target += "?" + urlencode({"owner": arguments.owner})
    logs = gate.get(target)["logs"]
    if arguments.format == "json":
        print_json(logs)
        return
    if not logs:
        print(f"no instance of {clean(arguments.server)} is running", file=sys.stderr)
    for owner, lines in sorted(logs.items()):
        for line in lines:
            print(
                f"{clean(owner)}  {clean(line, _LINE_CHARS)}"
                if len(logs) > 1
                else clean(line, _LINE_CHARS)
            )
