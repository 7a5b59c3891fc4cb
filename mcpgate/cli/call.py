"""``mcpgate call SERVER TOOL``: call a tool through a running gate."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mcpgate.cli.asking import Asker, add_whose, failing, whose
from mcpgate.cli.control_client import (
    NOT_DONE,
    CommandError,
    ControlClient,
    add_arguments,
    find_gate,
    print_json,
)
from mcpgate.telemetry.escaping import clean, text_of

_TEXT_CHARS = 1_000_000


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "call",
        help="call a tool of a server",
        description="Call a tool of a server or group of a running gate and print what it says. "
        "Exit code 1: the tool or the server failed; 3: no gate is running.",
    )
    parser.add_argument("server", metavar="SERVER|GROUP")
    parser.add_argument("tool", metavar="TOOL")
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="JSON | NAME=VALUE",
        help="an object, or values by name: JSON where it is JSON, else text",
    )
    add_whose(parser)
    add_arguments(parser, ("text", "json"))
    parser.set_defaults(run=failing(_call, find_gate))


def _call(arguments: argparse.Namespace, gate: ControlClient) -> int:
    given = read_arguments(arguments.arguments)
    asker = Asker(gate, arguments.server, whose(arguments), arguments.timeout)
    result = asker.ask("tools/call", {"name": arguments.tool, "arguments": given})
    if arguments.format == "json":
        print_json(result)
    else:
        print_content(result)
    return NOT_DONE if failed(result) else 0


def failed(result: dict[str, Any]) -> bool:
    """Tell whether a call came to nothing: an error, or a question instead of an answer."""
    return result.get("isError") is True or result.get("resultType") == "input_required"


def read_arguments(words: list[str]) -> dict[str, Any]:
    """Make a call's arguments of words; raises `CommandError`."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            value = json.loads(words[0])
        except (ValueError, RecursionError) as error:
            raise CommandError(f"the arguments are not JSON: {error}", 2) from None
        return dict(value)
    found: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise CommandError(f"{clean(word, 80)}: arguments are one JSON object or NAME=VALUE", 2)
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


def print_content(result: dict[str, Any]) -> None:
    """Print texts as lines, and name what is no text."""
    content = result.get("content")
    if result.get("resultType") == "input_required":
        print("the tool asks for input, which this command can not give")
    for one in content if isinstance(content, list) else []:
        if isinstance(one, dict) and isinstance(one.get("text"), str):
            for line in one["text"].splitlines() or [""]:
                print(clean(line, _TEXT_CHARS))
        elif isinstance(one, dict):
            print(f"[{clean(text_of(one.get('type')), 40)}]")
