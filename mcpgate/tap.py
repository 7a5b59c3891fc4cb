"""``twistd mcpgate``: options, and the service made of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python.usage import Options as BaseOptions
from typing_extensions import override

from mcpgate.config.ini import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError


class Options(BaseOptions):
    """
    Command-line options of ``twistd mcpgate``.

    The configuration is read here, so that a bad file ends the program before anything starts:
    with the text that ``mcpgate check`` prints, exit status 2 and no traceback.
    """

    synopsis = "[--config gate.ini]"
    longdesc = "Runs the gate: one TLS endpoint, MCP servers of their own for every user."
    optParameters = [
        ["config", "c", "gate.ini", "The configuration file."],
    ]

    gate_config: Config

    @override
    def postOptions(self) -> None:
        """Read the configuration."""
        try:
            self.gate_config = read_config(Path(self["config"]), os.environ)
        except ConfigError as error:
            _refuse(str(error))


def _refuse(text: str) -> NoReturn:
    sys.stderr.write(text.rstrip("\n") + "\n")
    raise SystemExit(2)


def makeService(options: Options) -> IService:
    """Make the service twistd runs; called by the plugin."""
    from twisted.internet import reactor  # noqa: PLC0415, TID251 - twistd has chosen one by now

    from mcpgate.service import make_gateway  # noqa: PLC0415 - rooms that import the reactor

    running: Any = reactor
    return make_gateway(running, options.gate_config, signals=True)
