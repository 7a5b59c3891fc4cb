"""``mcpgate stop``: stop instances of a running gate; the next call starts them again."""

from __future__ import annotations

import argparse
from typing import Any

from mcpgate.cli.control_client import (
    CommandError,
    ControlClient,
    add_arguments,
    asking,
    print_instances,
)
from mcpgate.config.problems import BadValueError
from mcpgate.config.units import parse_duration


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "stop",
        help="stop instances",
        description="Stop running instances and wait until they have ended; the next call starts "
        "them again. Exit code 1: none was running; 3: no gate is running.",
    )
    parser.add_argument("server", nargs="?", metavar="SERVER", help="of this server")
    parser.add_argument("--server", dest="named", metavar="NAME", help="the same")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--owner", "--key", metavar="OWNER", help="of this owner, see ps")
    whose.add_argument("--user", metavar="NAME", help="of this user")
    whose.add_argument("--all", action="store_true", help="of everybody")
    parser.add_argument(
        "--idle",
        nargs="?",
        const="0s",
        type=_duration,
        metavar="TIME",
        help="only those without a call in work, unused for this long (0s)",
    )
    add_arguments(parser, ("names", "json"))
    parser.set_defaults(run=asking(_stop))


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except BadValueError as bad:
        raise argparse.ArgumentTypeError(f"{text}: {bad.text}") from None


def _stop(arguments: argparse.Namespace, gate: ControlClient) -> None:
    if arguments.server and arguments.named and arguments.server != arguments.named:
        raise CommandError("two servers are named", 2)
    server = arguments.named or arguments.server or ""
    idle = arguments.idle is not None
    if not (arguments.owner or arguments.user or arguments.all or idle):
        raise CommandError("say whose: --owner, --user, --idle or --all", 2)
    asked: dict[str, object] = {
        "server": server,
        "owner": arguments.owner or "",
        "user": arguments.user or "",
    }
    if idle:
        asked["idle_s"] = arguments.idle
    stopped = gate.post("/instances/stop", asked)["stopped"]
    print_instances(arguments, stopped)
    if not stopped:
        raise CommandError("no such instance is running")
