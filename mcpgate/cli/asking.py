"""What the commands that ask a server through a running gate have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from mcpgate.cli.control_client import CommandError, ControlClient
from mcpgate.telemetry.escaping import clean, text_of

MAX_PAGES: Final = 100
MAX_ITEMS: Final = 10_000
CHARS_PER_TOKEN: Final = 4

_KEY_CHARS: Final = 4096
_NO_METHOD: Final = -32601
# The gate is waited for longer than it waits for the server.
MARGIN_S: Final = 10.0


class ServerSaidNoError(CommandError):
    """The server answered with an error of its own."""


def add_whose(parser: argparse.ArgumentParser) -> None:
    """Declare in whose name a server is asked, and for how long."""
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--user", metavar="NAME", help="as this user, who has called already")
    whose.add_argument("--owner", metavar="OWNER", help="as this owner, see ps")
    whose.add_argument(
        "--key-stdin",
        action="store_true",
        help="as the owner of the key on the first line of stdin",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="S", help="seconds (default: 60)"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("more than 0 and at most 3600")
    return value


def whose(arguments: argparse.Namespace) -> dict[str, str]:
    """Read in whose name to ask; raises `CommandError` without the key that was promised."""
    if arguments.key_stdin:
        return {"key": read_key()}
    given = {"user": arguments.user, "owner": arguments.owner}
    return {name: value for name, value in given.items() if value}


def read_key() -> str:
    """Read the first line of stdin; raises `CommandError` when it holds no key."""
    key = sys.stdin.readline(_KEY_CHARS + 1).strip()
    if not key or len(key) > _KEY_CHARS:
        raise CommandError("there is no key on the first line of stdin", 2)
    return key


class Asker:
    """Asks one server or group through a running gate."""

    def __init__(
        self, gate: ControlClient, server: str, asked: Mapping[str, str], timeout_s: float
    ) -> None:
        self._gate = gate
        self._target = f"/servers/{quote(server, safe='')}/ask"
        self._asked = asked
        self._timeout_s = timeout_s

    def ask(self, method: str, params: Mapping[str, object] | None = None) -> dict[str, Any]:
        """
        Ask and give the result.

        :raises ServerSaidNoError: with the server's words.
        :raises CommandError: the gate's refusal, or no gate.
        """
        told = self._gate.post(
            self._target,
            {**self._asked, "method": method, "params": params or {}, "timeout_s": self._timeout_s},
            self._timeout_s + MARGIN_S,
        )
        error = told.get("error")
        if isinstance(error, dict):
            if error.get("code") == _NO_METHOD and method.endswith("/list"):
                return {}
            raise ServerSaidNoError(
                f"the server refuses {method}: {clean(text_of(error.get('message')), 500)}"
            )
        result = told.get("result")
        return result if isinstance(result, dict) else {}

    def items(self, method: str, member: str) -> list[dict[str, Any]]:
        """Give a whole list, page after page; raises as `ask` does."""
        found: list[dict[str, Any]] = []
        cursor = None
        for _ in range(MAX_PAGES):
            result = self.ask(method, {} if cursor is None else {"cursor": cursor})
            page = result.get(member)
            found += (
                [one for one in page if isinstance(one, dict)] if isinstance(page, list) else []
            )
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str) or len(found) > MAX_ITEMS:
                break
        return found


def tokens_of(tool: Mapping[str, object]) -> int:
    """
    Estimate what a tool's definition costs in a model's context.

    Four characters a token: no model's own count, but good enough to compare.
    """
    shown = {name: tool[name] for name in ("name", "description", "inputSchema") if name in tool}
    text = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
    return -(-len(text) // CHARS_PER_TOKEN)


def failing(
    command: Callable[[argparse.Namespace, ControlClient], int],
    find: Callable[[argparse.Namespace], ControlClient],
) -> Callable[[argparse.Namespace], int]:
    """Make a subcommand's ``run`` of a function that asks, prints, and gives an exit code."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments, find(arguments))
        except CommandError as error:
            print(f"mcpgate: {error}", file=sys.stderr)
            return error.code

    return run
