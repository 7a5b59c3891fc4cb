"""``mcpgate remove|enable|disable NAME``: a server out of ``gate.ini``, or out of service."""

from __future__ import annotations

import argparse
from typing import Any

from mcpgate.cli.edit import add_config, change
from mcpgate.config.editing import with_key, without_section


def add_parser(subparsers: Any) -> None:
    """Declare the subcommands."""
    remove = subparsers.add_parser(
        "remove",
        help="take a server out of gate.ini",
        description="Take a server and the comments above it out of gate.ini; what was there "
        "before is kept beside it.",
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
    name = arguments.name
    return change(
        arguments.config,
        lambda text: without_section(text, f"server:{name}"),
        f"removed {name}",
        dry_run=arguments.dry_run,
    )


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
