"""
Where the real servers and clients of functional tests lie, and what it means that one is missing.

``MCPGATE_REAL_PARTS`` names the directory that ``real_parts.py`` filled.  A missing part skips the
test that needs it; with ``MCPGATE_NO_SKIPS=1``, in CI, it fails it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from twisted.trial.unittest import SkipTest

from tests.functional.real_parts import node_of, stamp_of


def root() -> Path | None:
    """Give the directory of the parts, if there is one."""
    named = os.environ.get("MCPGATE_REAL_PARTS", "")
    return Path(named) if named else None


def missing(what: str) -> NoReturn:
    """
    Give up a test that lacks something of the machine.

    :raises SkipTest: with the reason.
    :raises AssertionError: skips are not allowed here.
    """
    if os.environ.get("MCPGATE_NO_SKIPS", "") == "1":
        raise AssertionError(f"{what}, and MCPGATE_NO_SKIPS allows no skip")
    raise SkipTest(what)


def require(*names: str) -> Path:
    """Give the directory of the parts, when all of these are there; otherwise see `missing`."""
    where = root()
    if where is None:
        missing("MCPGATE_REAL_PARTS names no directory of real servers; run make functional")
    for name in names:
        if not stamp_of(where, name).exists():
            missing(f"the real part {name} is not installed")
    return where


def python(name: str) -> str:
    """Give the interpreter of a Python part."""
    return str(require(name) / "venv" / name / "bin" / "python")


def script(name: str, command: str) -> str:
    """Give a command of a Python part."""
    return str(require(name) / "venv" / name / "bin" / command)


def node() -> str:
    """Give the Node.js that npm parts run on."""
    return str(node_of(require("node")))


def package(name: str) -> Path:
    """Give the ``node_modules`` of an npm part."""
    return require("node", name) / "npm" / name / "node_modules"
