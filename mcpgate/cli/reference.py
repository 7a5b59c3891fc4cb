"""``mcpgate reference``: every section and key of ``gate.ini``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mcpgate.config.reference import as_rows, as_rst
from mcpgate.config.servers_schema import as_json


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("reference", help="show every key of gate.ini")
    parser.add_argument("--format", choices=("rst", "json", "schema"), default="rst")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the reference."""
    if arguments.format == "json":
        print(json.dumps(as_rows(), indent=2))
    elif arguments.format == "schema":
        print(as_json(), end="")
    else:
        print(as_rst(), end="")
    return 0
