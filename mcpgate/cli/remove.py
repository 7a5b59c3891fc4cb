"""``mcpgate remove|enable|disable NAME``: a server out of ``gate.ini``, or out of service."""

from __future__ import annotations

import argparse
import os
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from mcpgate.cli.control_client import APPLY_S, CommandError, ControlClient, find_gate
from mcpgate.cli.edit import DONE, NOT_DONE, add_config, change
from mcpgate.config.editing import with_key, without_section
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.service.doctor import network

_NOT_FOUND: Final = 404


def add_parser(subparsers: Any) -> None:
    """Declare the subcommands."""
    remove = subparsers.add_parser(
        "remove",
        help="take a server out of gate.ini",
        description="Take a server and the comments above it out of gate.ini; what was there "
        "before is kept beside it.",
    )
    remove.add_argument(
        "--test",
        action="store_true",
        help="have a running gate take it over, and see that the server is gone; go back if not",
    )
    remove.set_defaults(run=_remove)
    enable = subparsers.add_parser(
        "enable", help="serve a server again", description="Take enabled = off away."
    )
    enable.set_defaults(run=_enable)
    disable = subparsers.add_parser(
        "disable",
        help="serve a server no more, but keep its section",
        description="Write enabled = off into a server's section.",
    )
    disable.set_defaults(run=_disable)
    for parser in (remove, enable, disable):
        parser.add_argument("name", metavar="NAME")
        add_config(parser)


def _remove(arguments: argparse.Namespace) -> int:
    if arguments.test and not arguments.dry_run:
        return _tested(arguments.config, arguments.name)
    return _taken_out(arguments.config, arguments.name, dry_run=arguments.dry_run)


def _taken_out(path: Path, name: str, *, dry_run: bool = False) -> int:
    return change(
        path,
        lambda text: without_section(text, f"server:{name}"),
        f"removed {name}",
        dry_run=dry_run,
    )


def _tested(path: Path, name: str) -> int:
    """Take it out, have the gate take that over, look; write back what was there if that fails."""
    try:
        gate = find_gate(argparse.Namespace(state_dir=None, config=path))
        gate.get("/version")
        before = path.read_text(encoding="utf-8")
        code = _taken_out(path, name)
        if code:
            return code
        try:
            gate.post("/reload", {}, APPLY_S)
            left = remains(gate, read_config(path, os.environ), name)
            if not left:
                print(f"{name} is gone.")
                return DONE
            print(f"mcpgate: {name}: {left}", file=sys.stderr)
        except CommandError as error:
            print(f"mcpgate: {error}", file=sys.stderr)
        change(path, lambda _: before, f"put {name} back", dry_run=False)
        gate.post("/reload", {}, APPLY_S)
    except CommandError as error:
        print(f"mcpgate: {error}", file=sys.stderr)
        return error.code
    return NOT_DONE


def remains(gate: ControlClient, config: Config, name: str) -> str:
    """Say what a gate still has of a server that was taken out; empty when nothing."""
    if any(one["name"] == name for one in gate.get("/servers")["servers"]):
        return "the gate serves it still"
    for listener in network.askable(config):
        try:
            status, _ = network.get(listener, f"/{name}/mcp")
        except (OSError, HTTPException) as error:
            return f"port {listener.port} does not answer: {error}"
        if status != _NOT_FOUND:
            return f"/{name}/mcp at port {listener.port} answers {status}"
    return ""


def _enable(arguments: argparse.Namespace) -> int:
    return _switch(arguments, None, "enabled")


def _disable(arguments: argparse.Namespace) -> int:
    return _switch(arguments, "off", "disabled")


def _switch(arguments: argparse.Namespace, value: str | None, done: str) -> int:
    name = arguments.name
    return change(
        arguments.config,
        lambda text: with_key(text, f"server:{name}", "enabled", value),
        f"{done} {name}",
        dry_run=arguments.dry_run,
    )
