"""What the tests of the configuration write and read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mcpgate.config.load import parse_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError, Problem

ENVIRON: Mapping[str, str] = {"HOME": "/home/gate", "TOKEN": "hunter2-canary"}
PATH = Path("/etc/mcpgate/gate.ini")

BASE = """\
[gate]
listen = tcp:8080:interface=127.0.0.1
[auth:keys]
type = static
keys_file = keys
[server:notes]
command = notes --stdio
"""


def read(text: str, environ: Mapping[str, str] = ENVIRON) -> Config:
    """Read a text that is meant to be good."""
    return parse_config(text, PATH, environ)


def problems(text: str, environ: Mapping[str, str] = ENVIRON) -> tuple[Problem, ...]:
    """Give what is wrong with a text."""
    try:
        parse_config(text, PATH, environ)
    except ConfigError as error:
        return error.problems
    return ()


def found(text: str) -> list[tuple[int, str, str]]:
    """Give line, section and key of what is wrong with a text."""
    return [(problem.line, problem.section, problem.key) for problem in problems(text)]
