"""``mcpgate version``: this gate and what it stands on."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from mcpgate._version import __version__

_SHOWN: Final = ("Twisted", "pyOpenSSL", "cryptography", "httptools", "klein", "treq", "h2")


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("version", help="show the version and those of its parts")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the versions."""
    found = {"mcpgate": __version__, "Python": platform.python_version()}
    for name in _SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if arguments.format == "json":
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name} {value}")
    return 0
