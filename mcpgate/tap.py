"""``twistd mcpgate``: options, and the service made of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from twisted.python.usage import Options as BaseOptions
from typing_extensions import override

from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.service import Gateway, GatewayError, make_gateway


class Options(BaseOptions):
    """
    Command-line options of ``twistd mcpgate``.

    The configuration is read here, so that a bad file ends the program before anything starts:
    with the text that ``mcpgate check`` prints, exit status 2 and no traceback.
    """

    synopsis = "[--config gate.ini]"
    longdesc = "Runs the gate: one TLS endpoint, MCP servers of their own for every user."
    optParameters = [  # noqa: N815 - the name twistd looks for
        ["config", "c", "gate.ini", "The configuration file."],
    ]

    gate_config: Config

    @override
    def postOptions(self) -> None:
        """Read the configuration."""
        try:
            self.gate_config = read_config(Path(self["config"]), os.environ)
        except ConfigError as error:
            _end(str(error), 2)


def _end(text: str, status: int) -> NoReturn:
    sys.stderr.write(text.rstrip("\n") + "\n")
    raise SystemExit(status)


def makeService(options: Options) -> Gateway:
    """Make the service twistd runs; called by the plugin."""
    from twisted.internet import reactor  # noqa: PLC0415, TID251 - twistd has chosen one by now

    running: Any = reactor
    # Twisted's reactors count time by the wall clock; a clock put back must not stop timers (R60).
    running.seconds = time.monotonic
    try:
        gateway = make_gateway(running, options.gate_config, standalone=True)
    except GatewayError as error:
        _end(f"mcpgate can not start: {error}", 1)
    running.callWhenRunning(take_signals, running, gateway)
    return gateway


def take_signals(reactor: Any, gateway: Gateway) -> None:
    """
    Have SIGHUP read configuration, keys and certificates again.

    SIGTERM and SIGINT are the reactor's, but only the first of them: a second one, of somebody
    who has no patience while calls end, would be an error to it.
    """

    def again() -> None:
        # What was refused stands in the log.
        gateway.reload().addErrback(lambda failure: None)

    def reload(_number: int, _frame: object) -> None:
        reactor.callFromThread(again)

    signal.signal(signal.SIGHUP, reload)
    ending: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        end = signal.getsignal(number)
        if callable(end):
            signal.signal(number, partial(_once, ending, end))


def _once(ending: list[int], end: Callable[[int, Any], Any], number: int, frame: Any) -> None:
    if not ending:
        ending.append(number)
        end(number, frame)
