"""``mcpgate ps``: the instances of a running gate, or the images it needs."""

from __future__ import annotations

import argparse
import sys
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

_DIGEST_CHARS = 19


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "ps",
        help="list the instances of a running gate, or its images",
        description="List what a running gate has started. Exit code 3: no gate is running.",
    )
    parser.add_argument("server", nargs="?", metavar="SERVER", help="only of this server")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--all", action="store_true", help="stopped ones, too, and how the last one ended"
    )
    what.add_argument("--images", action="store_true", help="the images of the configuration")
    add_arguments(parser, ("table", "json", "names"))
    parser.set_defaults(run=asking(_list))


def _list(arguments: argparse.Namespace, gate: ControlClient) -> None:
    if arguments.images:
        _images(arguments, gate)
        return
    told = gate.get("/instances/all" if arguments.all else "/instances")
    found = [
        one
        for one in told["instances"]
        if arguments.server in (None, one["server"])
        and (arguments.all or one["state"] != "stopped")
    ]
    if told.get("missing"):
        print(f"mcpgate: stopped containers: {clean(told['missing'])}", file=sys.stderr)
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "names":
        for one in found:
            print(f"{clean(one['server'])}/{clean(one['owner'])}")
    else:
        _table(found, all=arguments.all)


def _table(found: list[dict[str, Any]], *, all: bool) -> None:
    titles = ["SERVER", "OWNER", "USER", "STATE", "UP", "IDLE", "HEARD", "CALLS", "MEMORY", "CPU"]
    if all:
        titles += ["IMAGE", "RESTARTS", "LAST END"]
    rows = []
    for one in found:
        row = [
            *(one["server"], one["owner"], one["user"], one["state"]),
            *(span(one["uptime_s"]), span(one["idle_s"]), span(one.get("heard_s")), one["calls"]),
            *(mebibytes(one["memory_bytes"]), span(one["cpu_s"])),
        ]
        if all:
            row += [one["image"], max(0, one["starts"] - 1), _end(one)]
        rows.append(row)
    print_table(titles, rows)


def _end(one: dict[str, Any]) -> str:
    if not one["exit_reason"]:
        return str(one["error"])
    code = one["exit_code"]
    return one["exit_reason"] if code is None else f"{one['exit_reason']} {code}"


def _images(arguments: argparse.Namespace, gate: ControlClient) -> None:
    found = [
        one
        for one in gate.get("/images")["images"]
        if arguments.server is None or arguments.server in one["servers"]
    ]
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "names":
        for one in found:
            print(clean(one["name"]))
    else:
        print_table(
            ("IMAGE", "STATE", "SIZE", "DIGEST", "PULL", "USED BY"),
            [
                (
                    *(one["name"], _state(one), mebibytes(one["size_bytes"])),
                    *(one["digest"][:_DIGEST_CHARS], one["pull"], ", ".join(one["servers"])),
                )
                for one in found
            ],
        )


def _state(one: dict[str, Any]) -> str:
    if one["state"] == "pulling":
        percent = one["percent"]
        return "pulling" if percent is None else f"pulling {percent:.0f}%"
    return f"{one['state']}: {one['error']}" if one["error"] else str(one["state"])
