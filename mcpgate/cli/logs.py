"""``mcpgate logs SERVER``: the last lines instances wrote, and those that come."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from mcpgate.cli.control_client import (
    CommandError,
    ControlClient,
    add_arguments,
    asking,
    print_json,
)
from mcpgate.telemetry.escaping import clean

FOLLOW_S: Final = 0.5

_LINE_CHARS = 4096
_LINES = 1_000_000
_TAIL = 20


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "logs",
        help="show what the instances of a server wrote to stderr",
        description="Show the last lines the instances of a server wrote, oldest first; those of "
        "one that does not run are its last words. Exit code 3: no gate is running.",
    )
    parser.add_argument("server", metavar="SERVER")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        "--owner", "--key", default="", metavar="OWNER", help="only of this owner, see ps"
    )
    whose.add_argument("--user", default="", metavar="NAME", help="only of this user")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "--tail", type=_count, default=_LINES, metavar="N", help="at most so many lines of each"
    )
    add_arguments(parser, ("text", "json"))
    parser.set_defaults(run=asking(_show))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise argparse.ArgumentTypeError(f"{text} is not a number of lines")
    return int(text)


def _show(arguments: argparse.Namespace, gate: ControlClient) -> None:
    if arguments.follow:
        if arguments.format == "json":
            raise CommandError("what is followed has no end: there is no JSON of it", 2)
        follow = _Follower(gate, arguments)
        while True:
            follow.look()
            time.sleep(FOLLOW_S)  # noqa: TID251  # no reactor runs here
    target = f"/logs/{quote(arguments.server, safe='')}"
    whose = {name: getattr(arguments, name) for name in ("owner", "user")}
    asked = {name: text for name, text in whose.items() if text}
    if asked:
        target += "?" + urlencode(asked)
    logs = {
        owner: _last(lines, arguments.tail)
        for owner, lines in sorted(gate.get(target)["logs"].items())
    }
    if arguments.format == "json":
        print_json(logs)
        return
    if not logs:
        print(f"no instance of {clean(arguments.server)} is known", file=sys.stderr)
    for owner, lines in logs.items():
        _print(owner if len(logs) > 1 else "", lines)


def _last(lines: Sequence[str], count: int) -> Sequence[str]:
    return lines[-count:] if count else []


def _print(owner: str, lines: Sequence[str]) -> None:
    for line in lines:
        shown = clean(line, _LINE_CHARS)
        print(f"{clean(owner)}  {shown}" if owner else shown)


class _Follower:
    """Asks again and again for what came since."""

    def __init__(self, gate: ControlClient, arguments: argparse.Namespace) -> None:
        self._gate = gate
        self._server = arguments.server
        self._asked = {"owner": arguments.owner, "user": arguments.user}
        self._tail = arguments.tail
        self._cursors: dict[str, str] = {}
        self._printed: dict[str, Sequence[str]] = {}
        self._ended: dict[str, bool] = {}
        self._several = False

    def look(self) -> None:
        """Print what is new."""
        target = f"/logs/{quote(self._server, safe='')}/follow"
        logs = self._gate.post(target, {**self._asked, "cursors": self._cursors})["logs"]
        self._several = self._several or len(logs) > 1
        for owner, told in sorted(logs.items()):
            self._one(owner, told)
        self._cursors = {owner: told["cursor"] for owner, told in logs.items() if told["cursor"]}
        sys.stdout.flush()

    def _one(self, owner: str, told: Mapping[str, Any]) -> None:
        lines: Sequence[str] = told["lines"]
        new = owner not in self._printed
        ended = bool(told["ended"])
        if ended and not new:
            # What the gate keeps of one that has ended are its last words, known or not.
            lines = [] if self._ended[owner] else unknown(self._printed[owner], lines)
        if new:
            lines = _last(lines, self._tail)
        _print(owner if self._several else "", lines)
        if ended and not self._ended.get(owner, new):
            print(f"{clean(owner)}: ended: {clean(told['ended'])}", file=sys.stderr)
        self._ended[owner] = ended
        self._printed[owner] = [*self._printed.get(owner, ()), *lines][-_TAIL:]


def unknown(printed: Sequence[str], lines: Sequence[str]) -> Sequence[str]:
    """Give the lines that come after those printed, where they overlap."""
    for count in range(min(len(printed), len(lines)), 0, -1):
        if list(printed[-count:]) == list(lines[:count]):
            return lines[count:]
    return lines
