"""``mcpgate start SERVER``: start an instance of a running gate before anybody calls it."""

from __future__ import annotations

import argparse
from typing import Any

from mcpgate.cli.asking import read_key
from mcpgate.cli.control_client import (
    ControlClient,
    add_arguments,
    asking,
    print_instances,
)


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "start",
        help="start an instance of a server",
        description="Start an instance of a server and wait until it is ready. A server that runs "
        "once for each key is started for somebody who has called since the gate started, or for "
        "the owner of a key given on stdin. Exit code 1: not started; 3: no gate is running.",
    )
    parser.add_argument("server", metavar="SERVER")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--owner", "--key", metavar="OWNER", help="for this owner, see ps")
    whose.add_argument("--user", metavar="NAME", help="for every key of this user that has called")
    whose.add_argument(
        "--stdin", action="store_true", help="for the owner of the key on the first line of stdin"
    )
    add_arguments(parser, ("names", "json"))
    parser.set_defaults(run=asking(_start))


def _start(arguments: argparse.Namespace, gate: ControlClient) -> None:
    asked = {"server": arguments.server}
    if arguments.stdin:
        asked["key"] = read_key()
    if arguments.owner:
        asked["owner"] = arguments.owner
    if arguments.user:
        asked["user"] = arguments.user
    print_instances(arguments, gate.post("/instances/start", asked)["started"])
