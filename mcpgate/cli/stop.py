"""``mcpgate stop SERVER``: stop instances of a running gate; the next call starts them again."""

from __future__ import annotations

import argparse
from typing import Any

from mcpgate.cli.control_client import (
    CommandError,
    ControlClient,
    add_arguments,
    asking,
    print_json,
)
from mcpgate.telemetry.escaping import clean


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "stop",
        help="stop instances of a server",
        description="Stop running instances of a server and wait until they have ended; the next "
        "call starts them again. Exit code 1: none was running; 3: no gate is running.",
    )
    parser.add_argument("server", metavar="SERVER")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--owner", metavar="OWNER", help="the instance of this owner, see ps")
    whose.add_argument("--all", action="store_true", help="every instance of the server")
    add_arguments(parser, ("names", "json"))
    parser.set_defaults(run=asking(_stop))


def _stop(arguments: argparse.Namespace, gate: ControlClient) -> None:
    asked = {"server": arguments.server, "owner": arguments.owner or ""}
    stopped = gate.post("/instances/stop", asked)["stopped"]
    if arguments.format == "json":
        print_json(stopped)
    else:
        for owner in stopped:
            print(f"{clean(arguments.server)}/{clean(owner)}")
    if not stopped:
        raise CommandError(f"no such instance of {clean(arguments.server)} is running")
