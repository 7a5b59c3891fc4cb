"""
``mcpgate export FORM``: a file for what runs the gate, or stands in front of it.

The texts lie beside this module in ``exports/``; what is filled in comes from ``gate.ini``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import urlsplit

from mcpgate.cli.addresses import address
from mcpgate.cli.edit import DONE, REFUSED, add_config
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.web.listening.listeners import parse_listen

FORMS: Final = ("systemd", "quadlet", "compose", "nginx")


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="write a unit, a compose file or an nginx site for the gate",
        description="Print a file for what runs the gate, or for nginx in front of it, made from "
        "the configuration. Nothing is installed.",
    )
    parser.add_argument("form", choices=FORMS, metavar="FORM", help=", ".join(FORMS))
    parser.add_argument(
        "--image",
        default="localhost/mcpgate:latest",
        help="of the gate itself, for quadlet and compose (default: %(default)s)",
    )
    add_config(parser, changes=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the file; give the exit code."""
    try:
        config = read_config(arguments.config, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return REFUSED
    text = files("mcpgate.cli").joinpath("exports", f"{arguments.form}.txt").read_text("utf-8")
    print(Template(text).substitute(_values(config, arguments.image)), end="")
    return DONE


def _values(config: Config, image: str) -> dict[str, str]:
    url = address(config)
    pair = config.tls.certificates[0] if config.tls.certificates else None
    beside = Path(sys.executable).with_name("twistd")
    ports = sorted({p for text in config.gate.listen if (p := parse_listen(text).port)})
    return {
        "config": str(config.path),
        "directory": str(config.path.parent),
        "state_dir": str(config.gate.state_dir),
        "twistd": str(beside) if beside.exists() else shutil.which("twistd") or "twistd",
        "image": image,
        "url": url,
        "host": urlsplit(url).hostname or "localhost",
        "certificate": str(pair.certificate) if pair else "/etc/ssl/certs/fullchain.pem",
        "key": str(pair.key) if pair else "/etc/ssl/private/privkey.pem",
        "ports_quadlet": "\n".join(f"PublishPort={port}:{port}" for port in ports),
        "ports_compose": "\n".join(f'      - "{port}:{port}"' for port in ports),
    }
