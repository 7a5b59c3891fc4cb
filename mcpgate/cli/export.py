"""
``mcpgate export FORM``: a file for what runs the gate, or stands in front of it.

The texts lie beside this module in ``exports/``; what is filled in comes from ``gate.ini``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import urlsplit

from mcpgate.cli.addresses import address, reached
from mcpgate.cli.edit import DONE, REFUSED, add_config
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.web.listening.listeners import Kind, parse_listen

FORMS: Final = ("systemd", "quadlet", "compose", "nginx")
# Where a gate that has no plain listener yet can listen for nginx.
_BEHIND: Final = "tcp:8080:interface=127.0.0.1"


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
    listens = [parse_listen(text) for text in config.gate.listen]
    # What listens on loopback in a container is reached by nobody outside of it.
    ports = sorted({one.port for one in listens if one.port and not _loopback(one.host)})
    plain = next(
        (one for one in listens if one.kind is Kind.PLAIN and one.port and not one.proxied),
        parse_listen(_BEHIND),
    )
    host = urlsplit(url).hostname or "localhost"
    return {
        "config": str(config.path),
        "directory": str(config.path.parent),
        "state_dir": str(config.gate.state_dir),
        "twistd": str(beside) if beside.exists() else shutil.which("twistd") or "twistd",
        "image": image,
        "url": url,
        "port": str((config.gate.public_url and urlsplit(url).port) or 443),
        "names": " ".join([host, *map(_nginx_name, config.gate.server_hosts)]),
        "plain": plain.text,
        "upstream": f"http://{reached(plain)}",
        "certificate": str(pair.certificate) if pair else "/etc/ssl/certs/fullchain.pem",
        "key": str(pair.key) if pair else "/etc/ssl/private/privkey.pem",
        "ports_quadlet": "".join(f"PublishPort={port}:{port}\n" for port in ports),
        "ports_compose": "".join(
            ["    ports:\n" if ports else "", *(f'      - "{port}:{port}"\n' for port in ports)]
        ),
    }


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _nginx_name(pattern: str) -> str:
    """Write names with a star in the first label as nginx does: its own star is a whole label."""
    if pattern.startswith("*."):
        return pattern
    before, _, after = pattern.partition("*")
    return f"~^{re.escape(before)}[^.]+{re.escape(after)}$"
