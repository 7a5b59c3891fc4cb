"""``mcpgate doctor``: look at everything a gate depends on, and say what is missing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from mcpgate._version import __version__
from mcpgate.cli.control_client import (
    NO_GATE,
    NOT_DONE,
    SOCKET_NAME,
    CommandError,
    ControlClient,
    print_json,
)
from mcpgate.cli.status import told_of
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.runtime.docker.secrets import default_root
from mcpgate.service.doctor import containers, machine, network
from mcpgate.service.doctor.findings import DEADLINE_S, FAIL, OK, WARN, Finding, Look, examine
from mcpgate.service.machine import MachineFiles
from mcpgate.service.offline import OfflineError, gate_id_of, holding
from mcpgate.telemetry.escaping import clean

_ASK_S: Final = 5.0
_CHARS: Final = 400


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="look at all the gate depends on, and say what is missing",
        description="Look at configuration, files, certificates, ports, programs, the container "
        "engine and what is elsewhere; one line each. Nothing is started or changed. Exit code 1: "
        "something fails.",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("gate.ini"), metavar="FILE", help="(gate.ini)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the same")
    parser.add_argument(
        "--quiet", action="store_true", help="only what is not well, for cron and shells"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, and print what was found."""
    try:
        config = read_config(arguments.config or arguments.file, os.environ)
    except ConfigError as error:
        found = [
            Finding(check="configuration", level=FAIL, text=str(problem))
            for problem in error.problems
        ]
        _print(arguments, found)
        return 2
    client = ControlClient(config.gate.state_dir / SOCKET_NAME)
    gate, pid = control(config, client)
    found = [*gate, *examine(looks(config, pid), DEADLINE_S)]
    if pid is not None:
        found += documents(client)
    _print(arguments, found)
    return NOT_DONE if any(one.level == FAIL for one in found) else 0


def control(config: Config, client: ControlClient) -> tuple[list[Finding], int | None]:
    """Look for a running gate; give its pid as well."""
    name = "gate"
    try:
        told = client.get("/version", _ASK_S)
    except CommandError as error:
        if error.code != NO_GATE:
            return [Finding(check=name, level=FAIL, text=str(error))], None
        try:
            with holding(config.gate.state_dir):
                return [Finding(check=name, text="none is running")], None
        except OfflineError as held:
            return [Finding(check=name, level=FAIL, text=str(held), remedy="see its log")], None
    pid, version = int(told["pid"]), str(told["version"])
    if version != __version__:
        text = f"pid {pid} is of version {version}, this is {__version__}"
        return [Finding(check=name, level=WARN, text=text, remedy="start the gate anew")], pid
    return [Finding(check=name, text=f"pid {pid} is running, its control socket answers")], pid


def documents(client: ControlClient) -> list[Finding]:
    """Tell how a running gate's OpenAPI documents are that it fetches."""
    try:
        servers = client.get("/servers", _ASK_S)["servers"]
    except CommandError as error:
        return [Finding(check="documents", level=FAIL, text=str(error))]
    found = []
    for one in servers:
        document = one.get("document")
        if document is not None:
            told = told_of(document)
            level = FAIL if document["state"] == "missing" else WARN if told else OK
            text = told or "its OpenAPI document is fetched"
            found.append(Finding(check=f"server {one['name']}", level=level, text=text))
    return found


def looks(config: Config, pid: int | None) -> dict[str, Look]:
    """Give everything there is to look at."""
    uid = owner_of(pid)
    gate_id = gate_id_of(config)
    folder = str(config.docker.files_dir or default_root(os.environ, gate_id))
    mounts = Path("/proc/mounts").read_text("utf-8", "replace")
    return {
        "configuration": lambda: machine.advice(config, os.environ),
        "state directory": lambda: machine.state_dir(config.gate.state_dir, uid),
        "certificate": lambda: machine.certificates(config),
        "ports": lambda: network.listeners(config, pid, os.geteuid() if uid is None else uid),
        **(network.reached(config) if pid is not None else {}),
        "open files": lambda: machine.open_files(MachineFiles(), pid),
        "clock": machine.clock,
        "programs": lambda: machine.programs(config, os.environ),
        "files_dir": lambda: machine.files_dir(config, folder, mounts),
        **containers.looks(config, gate_id, pid),
        **network.names(config),
        **network.remotes(config),
    }


def owner_of(pid: int | None) -> int | None:
    """Tell whose process it is; None when there is none."""
    try:
        return None if pid is None else os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _print(arguments: argparse.Namespace, found: Iterable[Finding]) -> None:
    shown = [one for one in found if not (arguments.quiet and one.level == OK)]
    if arguments.format == "json":
        print_json([asdict(one) for one in shown])
        return
    for one in shown:
        text = clean(one.text, _CHARS) + (f" -> {clean(one.remedy, _CHARS)}" if one.remedy else "")
        level = one.level if one.level == OK else one.level.upper()
        print(f"{level:4}  {clean(one.check, _CHARS)}: {text}")
