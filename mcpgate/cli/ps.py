"""``mcpgate ps``: the instances of a running gate."""

from __future__ import annotations

import argparse
from typing import Any

from mcpgate.cli.control_client import (
    ControlClient,
    add_arguments,
    asking,
    mebibytes,
    print_json,
    print_table,
    span,
)
from mcpgate.telemetry.escaping import clean


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "ps",
        help="list the instances of a running gate",
        description="List what a running gate has started. Exit code 3: no gate is running.",
    )
    parser.add_argument("server", nargs="?", metavar="SERVER", help="only of this server")
    add_arguments(parser, ("table", "json", "names"))
    parser.set_defaults(run=asking(_list))


def _list(arguments: argparse.Namespace, gate: ControlClient) -> None:
    found = [
        one
        for one in gate.get("/instances")["instances"]
        if arguments.server in (None, one["server"])
    ]
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "names":
        for one in found:
            print(f"{clean(one['server'])}/{clean(one['owner'])}")
    else:
        print_table(
            ("SERVER", "OWNER", "USER", "STATE", "UP", "IDLE", "CALLS", "MEMORY", "CPU"),
            [
                (
                    *(one["server"], one["owner"], one["user"], one["state"]),
                    *(span(one["uptime_s"]), span(one["idle_s"]), one["calls"]),
                    *(mebibytes(one["memory_bytes"]), span(one["cpu_s"])),
                )
                for one in found
            ],
        )
