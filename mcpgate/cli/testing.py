"""``mcpgate test SERVER``: shake hands with a server, ask for its lists, call a tool."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from mcpgate.cli.asking import Asker, add_whose, failing, tokens_of, whose
from mcpgate.cli.call import failed, read_arguments
from mcpgate.cli.control_client import (
    NO_GATE,
    NOT_DONE,
    CommandError,
    ControlClient,
    add_arguments,
    find_gate,
    print_json,
    print_table,
)
from mcpgate.telemetry.escaping import clean, text_of

_LISTS: Final = (
    ("tools", "tools/list", "tools"),
    ("prompts", "prompts/list", "prompts"),
    ("resources", "resources/list", "resources"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """
    One step of a test.

    :ivar told: what came of it.
    """

    name: str
    good: bool
    seconds: float
    told: str


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "test",
        help="try a server: handshake, lists, and a call",
        description="Try a server or group of a running gate: handshake, lists, and a call if you "
        "name one; each step with its time. The server is started if it does not run. Exit code 1: "
        "a step failed; 3: no gate is running.",
    )
    parser.add_argument("server", metavar="SERVER|GROUP")
    parser.add_argument(
        "--call",
        nargs="+",
        metavar=("TOOL", "JSON"),
        help="call this tool, too: arguments as for the command call",
    )
    add_whose(parser)
    add_arguments(parser, ("table", "json"))
    parser.set_defaults(run=failing(_test, find_gate))


def _test(arguments: argparse.Namespace, gate: ControlClient) -> int:
    asker = Asker(gate, arguments.server, whose(arguments), arguments.timeout)
    steps = try_server(asker, arguments.call or [])
    if arguments.format == "json":
        print_json([asdict(step) for step in steps])
    else:
        print_steps(steps)
    return report(arguments.server, steps)


def try_server(asker: Asker, call: list[str]) -> list[Step]:
    """
    Take the steps up to the first that fails.

    :raises CommandError: there is no gate, or the words of the call are no good.
    """
    given = read_arguments(call[1:])
    steps: list[Step] = []
    greeting: dict[str, Any] = {}

    def greet() -> str:
        greeting.update(asker.ask("server/discover"))
        return _who(greeting)

    def take(name: str, step: Callable[[], str]) -> bool:
        began = time.monotonic()
        try:
            told, good = step(), True
        except CommandError as error:
            if error.code == NO_GATE:
                raise
            told, good = str(error), False
        steps.append(Step(name, good, round(time.monotonic() - began, 3), told))
        return good

    def listed(method: str, member: str) -> str:
        found = asker.items(method, member)
        tokens = f", about {sum(map(tokens_of, found))} tokens" if member == "tools" else ""
        return f"{len(found)} {member}{tokens}"

    def called() -> str:
        result = asker.ask("tools/call", {"name": call[0], "arguments": given})
        content = result.get("content")
        first = content[0] if isinstance(content, list) and content else {}
        text = text_of(first.get("text", "")) if isinstance(first, dict) else ""
        if failed(result):
            raise CommandError(f"the tool failed: {clean(text, 300)}")
        return clean(text, 300)

    if not take("handshake", greet):
        return steps
    capabilities = greeting.get("capabilities")
    for name, method, member in _LISTS:
        offered = isinstance(capabilities, Mapping) and name in capabilities
        if offered and not take(name, lambda m=method, n=member: listed(m, n)):  # type: ignore[misc]
            return steps
    if call:
        take(f"call {call[0]}", called)
    return steps


def _who(greeting: Mapping[str, Any]) -> str:
    meta = greeting.get("_meta")
    told = greeting.get("serverInfo")
    if not isinstance(told, dict) and isinstance(meta, dict):
        told = meta.get("io.modelcontextprotocol/serverInfo")
    who = told if isinstance(told, dict) else {}
    return clean(f"{text_of(who.get('name', '?'))} {text_of(who.get('version', ''))}".strip(), 100)


def print_steps(steps: list[Step]) -> None:
    """Print a table."""
    print_table(
        ("STEP", "", "TIME", "TOLD"),
        [
            (step.name, "ok" if step.good else "FAIL", f"{step.seconds:.2f}s", step.told)
            for step in steps
        ],
    )


def report(server: str, steps: list[Step]) -> int:
    """Say what failed and what to do, on stderr; give the exit code."""
    bad = next((step for step in steps if not step.good), None)
    if bad is None:
        return 0
    print(f"mcpgate: {server}: {bad.name}: {bad.told}", file=sys.stderr)
    print(f"Look at what it wrote: mcpgate logs {server}", file=sys.stderr)
    return NOT_DONE
