"""``mcpgate tools``: what servers offer, and what it costs in a model's context."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from mcpgate.cli import tool_pins
from mcpgate.cli.asking import Asker, add_whose, failing, tokens_of, whose
from mcpgate.cli.control_client import (
    NOT_DONE,
    CommandError,
    ControlClient,
    add_arguments,
    find_gate,
    print_json,
    print_table,
)
from mcpgate.telemetry.escaping import clean, text_of


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "tools",
        help="list the tools of a server",
        description="List the tools of a server or group of a running gate, or of every server, "
        "with an estimate of the tokens each takes in a model's context; or look at, and accept, "
        "how those of one server differ from the ones that are trusted. Exit code 1: a server did "
        "not tell, or --diff found something; 3: no gate is running.",
    )
    parser.add_argument("server", nargs="?", metavar="SERVER|GROUP", help="default: every server")
    tool_pins.add_arguments(parser)
    add_whose(parser)
    add_arguments(parser, ("table", "json", "names"))
    parser.set_defaults(run=failing(_tools, find_gate))


def _tools(arguments: argparse.Namespace, gate: ControlClient) -> int:
    if tool_pins.is_wanted(arguments):
        return tool_pins.run(arguments, gate)
    asked = whose(arguments)
    every = arguments.server is None
    served = gate.get("/servers")["servers"] if every or arguments.format != "names" else ()
    if arguments.server is not None:
        names = [arguments.server]
    else:
        names = [one["name"] for one in served if one["kind"] == "server"]
    found: dict[str, list[dict[str, Any]]] = {}
    code = 0
    for name in names:
        try:
            found[name] = Asker(gate, name, asked, arguments.timeout).items("tools/list", "tools")
        except CommandError as error:
            if len(names) == 1:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            code = NOT_DONE
    pins = {one["name"]: one["tools"] for one in served}
    _print(arguments.format, found, pins, qualified=len(names) > 1)
    return code


def _print(
    form: str,
    found: dict[str, list[dict[str, Any]]],
    pins: Mapping[str, str],
    *,
    qualified: bool,
) -> None:
    if form == "json":
        print_json(
            {
                name: {
                    "tokens": sum(map(tokens_of, tools)),
                    "pinned": pins.get(name, ""),
                    "tools": [{**tool, "tokens": tokens_of(tool)} for tool in tools],
                }
                for name, tools in found.items()
            }
        )
    elif form == "names":
        for name, tools in found.items():
            for tool in tools:
                shown = clean(text_of(tool.get("name")), 200)
                print(f"{name}/{shown}" if qualified else shown)
    else:
        rows: list[tuple[object, ...]] = []
        for name, tools in found.items():
            rows += [(name, tool.get("name"), tokens_of(tool), _about(tool)) for tool in tools]
            rows.append(
                (name, f"{len(tools)} tools", sum(map(tokens_of, tools)), pins.get(name, ""))
            )
        print_table(("SERVER", "TOOL", "TOKENS", "ABOUT"), rows)


def _about(tool: dict[str, Any]) -> str:
    for text in (tool.get("title"), tool.get("description")):
        if isinstance(text, str) and text.strip():
            return text.strip().splitlines()[0]
    return ""
