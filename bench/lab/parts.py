"""
The programs of others that the gate is measured beside, and how they get onto this machine.

nginx, HAProxy and wrk come from Debian, with root and only when they are missing.  MCP proxies come
from the package indexes into ``var/bench``, each into an environment of its own.  What can not be
had costs one line that says why, and its cells in the tables; nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.lab.running import BenchError
from tests.functional.real_parts import PARTS, Installer, Part, node_of, stamp_of

DEBIAN: Final = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "taskset": "util-linux"}
COUNTER: Final = {"valgrind": "valgrind", "vgdb": "valgrind"}
_APT_S = 300.0
_POLICY = Path("/usr/sbin/policy-rc.d")
_SHARED = tuple(part for part in PARTS if part.name in ("node", "fastmcp"))
PEERS: Final = (
    *_SHARED,
    Part("mcp-proxy-py", "venv", ("mcp-proxy",)),
    Part("mcp-proxy-js", "npm", ("mcp-proxy",)),
    Part("supergateway", "npm", ("supergateway",)),
)
PROFILER: Final = Part("py-spy", "venv", ("py-spy",))


def install(root: Path, *, profiler: bool = False) -> None:
    """Install what is missing; say what is done, what can not be installed, and why."""
    install_debian(DEBIAN)
    wanted = (*PEERS, PROFILER) if profiler else PEERS
    if lacking := [part.name for part in wanted if not stamp_of(root, part.name).exists()]:
        print(f"bench: installing {', '.join(lacking)} into {root}", flush=True)
    for name in Installer(root).run(wanted):
        print(f"bench: without {name}", flush=True)


def install_debian(programs: Mapping[str, str]) -> None:
    """Install programs of Debian that are missing, given with their packages."""
    lacking = [name for name in programs if find(name) is None]
    if lacking:
        _install_debian(sorted({programs[name] for name in lacking}))
    for name in lacking:
        if find(name) is None:
            print(f"bench: without {name}: it is not installed", flush=True)


def _install_debian(packages: list[str]) -> None:
    wanted = " ".join(packages)
    if shutil.which("apt-get") is None:
        print(f"bench: there is no apt-get here; install {wanted} by hand")
        return
    if os.geteuid() != 0:
        print(f"bench: not root; install it by hand: apt-get install {wanted}")
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"bench: installing {wanted}", flush=True)
    with _no_services():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            try:
                done = subprocess.run(
                    ["apt-get", "-qq", *command],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_APT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                print(f"bench: apt-get {command[0]} did not end within {_APT_S:.0f} s")
                return
            if done.returncode != 0:
                said = done.stdout.decode(errors="replace").strip().splitlines()
                print(f"bench: apt-get {command[0]}: {said[-1] if said else 'it failed'}")


@contextmanager
def _no_services() -> Iterator[None]:
    """Packages would start their services, which nobody asked for."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def find(program: str) -> str | None:
    """Find a program of the system, also where only root's PATH leads."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def need(program: str) -> str:
    """Give a program's path; :raises BenchError: it is not installed."""
    found = find(program)
    if found is None:
        raise BenchError(f"{program} is not installed")
    return found


class Parts:
    """
    Parts from package indexes that are installed.

    :param root: ``var/bench``; the parts of the functional tests are looked at, too.
    """

    def __init__(self, root: Path) -> None:
        self._roots = [root]
        if tests := os.environ.get("MCPGATE_REAL_PARTS"):
            self._roots.append(Path(tests))

    def _root(self, name: str) -> Path:
        for root in self._roots:
            if stamp_of(root, name).exists():
                return root
        raise BenchError(f"{name} is not installed")

    def script(self, name: str, command: str) -> str:
        """Give a command of a Python part; :raises BenchError: it is not installed."""
        return str(self._root(name) / "venv" / name / "bin" / command)

    def node(self) -> str:
        """Give Node.js; :raises BenchError: it is not installed."""
        return str(node_of(self._root("node")))

    def package(self, name: str) -> Path:
        """Give the ``node_modules`` of an npm part; :raises BenchError: it is not installed."""
        return self._root(name) / "npm" / name / "node_modules"

    def version(self, name: str) -> str:
        """Tell which version of a part is installed; empty when it can not be told."""
        try:
            root = self._root(name)
        except BenchError:
            return ""
        if (modules := root / "npm" / name / "node_modules").is_dir():
            package = name.removesuffix("-js")
            return str(json.loads((modules / package / "package.json").read_text())["version"])
        package = name.removesuffix("-py").replace("-", "_")
        for found in (root / "venv" / name / "lib").glob(
            f"python*/site-packages/{package}-*.dist-info"
        ):
            return found.name.removeprefix(package + "-").removesuffix(".dist-info")
        return ""
