"""``mcpgate check FILE``: what the file says, or all that is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mcpgate.config.advice import advise
from mcpgate.config.load import read_config
from mcpgate.config.problems import ConfigError
from mcpgate.config.summary import as_dict, as_text
from mcpgate.service.doctor.containers import missing_images

ENGINE_S: Final = 2.0
"""The engine is waited for no longer than this for one answer."""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="check a configuration file",
        description="Check a configuration file: exit code 0 when it is good, 2 when it is not.",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("gate.ini"), metavar="FILE", help="(gate.ini)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the container engine for images"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a summary and warnings and give 0, or print every problem and give 2."""
    as_json = arguments.format == "json"
    try:
        config = read_config(arguments.file, os.environ)
    except ConfigError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems]
            print(json.dumps({"ok": False, "problems": problems}, indent=2))
        else:
            print(error, file=sys.stderr)
        return 2
    warnings = advise(
        config, os.environ, datetime.now(UTC), lambda name, path: shutil.which(name, path=path)
    )
    if not arguments.offline:
        warnings += missing_images(config, ENGINE_S)
    if as_json:
        print(json.dumps({"ok": True, **as_dict(config), "warnings": warnings}, indent=2))
        return 0
    print(as_text(config))
    if warnings:
        print("\nWarnings:")
        for warning in warnings:
            print(f"  {warning}")
    return 0
