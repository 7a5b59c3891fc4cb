"""``mcpgate sessions``: the live sessions of a running gate, without their ids."""

from __future__ import annotations

import argparse
from typing import Any

from mcpgate.cli.control_client import (
    ControlClient,
    add_arguments,
    asking,
    print_json,
    print_table,
    span,
)
from mcpgate.telemetry.escaping import clean


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sessions",
        help="list the client sessions of a running gate",
        description="List client sessions, the most recently used first. A session is shown by a "
        "digest: its id is a credential. Exit code 3: no gate is running.",
    )
    parser.add_argument("server", nargs="?", metavar="SERVER", help="only of this server")
    add_arguments(parser, ("table", "json", "names"))
    parser.set_defaults(run=asking(_list))


def _list(arguments: argparse.Namespace, gate: ControlClient) -> None:
    found = [
        one
        for one in gate.get("/sessions")["sessions"]
        if arguments.server in (None, one["server"])
    ]
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "names":
        for one in found:
            print(clean(one["label"]))
    else:
        print_table(
            ("SESSION", "SERVER", "KEY", "USER", "REVISION", "AGE", "IDLE", "IN USE"),
            [
                (
                    *(one["label"], one["server"], one["owner"], one["user"], one["revision"]),
                    *(span(one["age_s"]), span(one["idle_s"]), one["in_use"]),
                )
                for one in found
            ],
        )
