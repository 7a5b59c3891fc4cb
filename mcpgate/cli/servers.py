"""``mcpgate list`` and ``mcpgate show NAME``: the servers of ``gate.ini``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from mcpgate.cli.addresses import endpoint
from mcpgate.cli.control_client import print_table
from mcpgate.cli.edit import DONE, REFUSED, add_config, no_such
from mcpgate.config.editing import NoSuchSectionError, section_text
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.config.summary import as_dict


def add_parser(subparsers: Any) -> None:
    """Declare the subcommands."""
    listing = subparsers.add_parser(
        "list",
        help="list the servers of gate.ini",
        description="List the servers of gate.ini that are served, with the URLs clients use.",
    )
    listing.add_argument("--format", choices=("table", "json", "names"), default="table")
    listing.set_defaults(run=_list)
    show = subparsers.add_parser(
        "show",
        help="show a server's section of gate.ini",
        description="Show the section of a server as it stands in gate.ini, references unfilled.",
    )
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)
    for parser in (listing, show):
        add_config(parser, changes=False)


def _list(arguments: argparse.Namespace) -> int:
    try:
        config = read_config(arguments.config, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return REFUSED
    rows = _rows(config)
    if arguments.format == "json":
        print(json.dumps(rows, indent=2))
    elif arguments.format == "names":
        for row in rows:
            print(row["name"])
    else:
        print_table(
            ["NAME", "TRANSPORT", "RUNS AS", "ISOLATION", "AT", "URL"],
            [
                [row[name] for name in ("name", "transport", "runtime", "isolation", "at", "url")]
                for row in rows
            ],
        )
    return DONE


def _rows(config: Config) -> list[dict[str, Any]]:
    servers: Any = as_dict(config)["servers"]
    return [{**server, "url": endpoint(config, server["name"])} for server in servers]


def _show(arguments: argparse.Namespace) -> int:
    try:
        text = arguments.config.read_text(encoding="utf-8")
        print(section_text(text, f"server:{arguments.name}"), end="")
    except (OSError, UnicodeDecodeError) as error:
        print(f"{arguments.config}: the file can not be read: {error}", file=sys.stderr)
        return REFUSED
    except NoSuchSectionError:
        return no_such(arguments.config, arguments.name)
    return DONE
