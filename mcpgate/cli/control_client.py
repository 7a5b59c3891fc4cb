"""
How subcommands ask a running gate: HTTP over its control socket, blocking, standard library only.

Also what they share: where the socket is, how answers are printed, exit code 3 when no gate runs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from mcpgate.config.load import read_config
from mcpgate.config.problems import ConfigError
from mcpgate.config.sections import default_state_dir
from mcpgate.model import MIB
from mcpgate.telemetry.escaping import clean, text_of

SOCKET_NAME: Final = "control.sock"
_HERE: Final = Path("gate.ini")
ANSWER_BYTES: Final = 64 * MIB
ASK_S: Final = 10.0
STOP_S: Final = 90.0
APPLY_S: Final = 180.0

NOT_DONE: Final = 1
NO_GATE: Final = 3


class CommandError(Exception):
    """
    The command can not be done.

    :ivar code: exit code.
    """

    def __init__(self, text: str, code: int = NOT_DONE) -> None:
        super().__init__(text)
        self.code = code


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("gate", timeout=timeout_s)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ControlClient:
    """Asks one gate; a connection per question."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, target: str, timeout_s: float = ASK_S) -> dict[str, Any]:
        """
        Ask.

        :raises CommandError: no gate answers, or it says no.
        """
        return self._ask("GET", target, None, timeout_s)

    def post(
        self, target: str, value: Mapping[str, object], timeout_s: float = STOP_S
    ) -> dict[str, Any]:
        """Have something done; raises as `get` does."""
        return self._ask("POST", target, json.dumps(value).encode(), timeout_s)

    def _ask(
        self, method: str, target: str, body: bytes | None, timeout_s: float
    ) -> dict[str, Any]:
        connection = _UnixConnection(self._path, timeout_s)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES)
        except (FileNotFoundError, ConnectionRefusedError):
            raise CommandError(
                f"no gate is running here: nobody listens at {self._path}", NO_GATE
            ) from None
        except PermissionError:
            raise CommandError(
                f"{self._path} belongs to another user: run this as the gate's user or as root"
            ) from None
        except TimeoutError:
            raise CommandError(f"the gate did not answer within {timeout_s:.0f} s") from None
        except (HTTPException, OSError) as error:
            raise CommandError(
                f"the gate broke off: {str(error) or type(error).__name__}"
            ) from None
        finally:
            connection.close()
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise CommandError(f"{self._path} does not speak as a gate does")
        if response.status != 200:
            told = value.get("error")
            text = told.get("message") if isinstance(told, dict) else None
            raise CommandError(clean(text_of(text or f"HTTP status {response.status}"), 500))
        return value


def add_arguments(parser: argparse.ArgumentParser, formats: Sequence[str] = ()) -> None:
    """Declare how to find the gate, and the forms an answer may have; the first is usual."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the gate's configuration, for its state_dir (gate.ini, if there is one here)",
    )
    where.add_argument("--state-dir", type=Path, metavar="DIR", help="the gate's state directory")
    if formats:
        parser.add_argument("--format", choices=formats, default=formats[0])


def find_gate(arguments: argparse.Namespace) -> ControlClient:
    """
    Find the socket: by ``--state-dir``, by the file of ``--config`` or the ``gate.ini`` of the
    working directory, or where it is by default.

    :raises CommandError: the configuration can not be read, or nothing tells where to look.
    """
    state_dir: Path | None = arguments.state_dir
    config: Path | None = arguments.config
    if state_dir is None and config is None and _HERE.is_file():
        config = _HERE
    if state_dir is None and config is not None:
        try:
            state_dir = read_config(config, os.environ).gate.state_dir
        except ConfigError as error:
            raise CommandError(f"{error}\nUse --state-dir to do without the file.", 2) from None
    if state_dir is None:
        state_dir = default_state_dir(os.environ)
    if state_dir is None:
        raise CommandError("say where the gate is: --config FILE or --state-dir DIR", 2)
    return ControlClient(state_dir / SOCKET_NAME)


def asking(
    command: Callable[[argparse.Namespace, ControlClient], None],
) -> Callable[[argparse.Namespace], int]:
    """Make a subcommand's ``run`` of a function that asks and prints."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            command(arguments, find_gate(arguments))
        except CommandError as error:
            print(f"mcpgate: {error}", file=sys.stderr)
            return error.code
        return 0

    return run


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, titles first; every value on its line and without control characters."""
    lines = [list(titles)] + [
        ["-" if value is None or value == "" else clean(text_of(value), 80) for value in row]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def print_instances(arguments: argparse.Namespace, found: Sequence[Mapping[str, str]]) -> None:
    """Print what was started or stopped, one ``SERVER/OWNER`` a line or as JSON."""
    if arguments.format == "json":
        print_json(found)
        return
    for one in found:
        print(f"{clean(one['server'])}/{clean(one['owner'])}")


def print_json(value: object) -> None:
    """Print a JSON value for programs."""
    print(json.dumps(value, indent=2))


def span(seconds: object) -> str:
    """Write seconds shortly: ``45s``, ``12m``, ``3h05m``, ``2d04h``."""
    if not isinstance(seconds, int | float):
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def mebibytes(amount: object) -> str:
    """Write bytes as whole MiB."""
    return f"{amount / MIB:.0f}M" if isinstance(amount, int | float) else "-"
