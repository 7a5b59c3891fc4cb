"""
Ten real servers behind one gate, shared by everybody: two of ours, eight of other people.

What each of them lists is asked of it directly, on pipes of its own, so that the gate's word is not
taken for it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import TestCase

from mcpgate.gate.access.digest import KeyDigest, load_secret
from mcpgate.model import Secret
from tests.functional import real
from tests.functional.gate_process import (
    GATE,
    NO_LIMITS,
    GateProcess,
    children_of,
    free_port,
)
from tests.functional.mcp_client import INITIALIZE
from tests.functional.real_clients import KEY_FIELD
from tests.functional.test_modern import message

SHARED = """
[server:{name}]
command = {command}
isolation = shared
memory = {memory}
"""
PARTS = ("mcp2", "servers", "node", "everything", "reference", "fetch-git", "outline")

# The longest a name may be where hosts put ``mcp__mcpgate__`` before it.
NAME_CHARS = 64 - len("mcp__mcpgate__")
DIGEST_CHARS = 9

# What the gate tells a legacy server that many share: its clients can be asked everything.
_ABLE: dict[str, Any] = {"roots": {}, "sampling": {}, "elicitation": {"form": {}, "url": {}}}
_QUESTIONS: Mapping[str, Sequence[dict[str, Any]]] = {
    "modern": [message("tools/list", "list")],
    "legacy": [
        {"id": 1, "method": "initialize", "params": {**INITIALIZE, "capabilities": _ABLE}},
        {"method": "notifications/initialized"},
        # Some know only after this what they have for such a client.
        {"id": 2, "method": "ping"},
        {"id": 3, "method": "tools/list"},
    ],
}

# A tool, its arguments, and what its answer must hold.
Call = tuple[str, dict[str, Any], str]


class _Page(BaseHTTPRequestHandler):
    """A page to fetch."""

    def do_GET(self) -> None:
        """Serve it."""
        body = b"a page of the test"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class TenServers:
    """
    The gate and all that is around it, running.

    :param case: what is cleaned up when it is over.
    :ivar calls: one call for each server; Outline's has nobody to ask, and says so.
    """

    def __init__(self, case: TestCase, keys: int) -> None:
        real.require(*PARTS)
        if shutil.which("git") is None:
            real.missing("there is no git on this machine")
        self.case = case
        # Clients of every way at once are more than an address has by default.
        text = GATE.replace("[gate]", "[gate]\nmax_connections_per_address = 1000", 1)
        text += f"[auth]\nheader = {KEY_FIELD}\n" + NO_LIMITS
        self.gate = GateProcess(case, text)
        files = self.gate.directory / "files"
        (files / "repository").mkdir(parents=True)
        (files / "seen.txt").write_text("seen\n")
        self._repository(files / "repository")
        self.commands = _commands(files)
        self.variables = _variables(files)
        for name, command in self.commands.items():
            memory = "2GiB" if command[0] == real.node() else "512MiB"
            text += SHARED.format(name=name, command=shlex.join(command), memory=memory)
            for variable, value in self.variables.get(name, {}).items():
                text += f"env.{variable} = {value}\n"
        self.gate.write(text)
        self.keys = self.gate.add_keys(keys)
        self.gate.start()
        self.calls = _calls(files, self._serve_page())
        self._digest = KeyDigest(load_secret(self.gate.directory / "state", os.urandom))

    def _repository(self, place: Path) -> None:
        """Make a repository with one commit."""
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        alone = {"PATH": os.environ["PATH"], "HOME": str(self.gate.directory)}
        for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "one commit"]):
            subprocess.run(["git", *words], cwd=place, env=alone, check=True, timeout=30)

    def _serve_page(self) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.case.addCleanup(thread.join, 10)
        self.case.addCleanup(server.server_close)
        self.case.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}/page"

    # --- What there is to see ---------------------------------------------------------------------

    def listed(self) -> set[str]:
        """Ask every server for its tools, on pipes of its own; give the names to see."""
        with ThreadPoolExecutor(3) as pool:
            told = list(pool.map(self._tools_of, self.commands))
        return {
            f"{name}__{tool}"
            for name, tools in zip(self.commands, told, strict=True)
            for tool in tools
        }

    def _tools_of(self, name: str) -> list[str]:
        home = self.gate.directory
        process = subprocess.Popen(
            self.commands[name],
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), **self.variables.get(name, {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            told: dict[str, Any] = {}
            timer = threading.Timer(60, process.kill)
            timer.start()
            try:
                for one in _QUESTIONS["modern" if name == "yardstick" else "legacy"]:
                    process.stdin.write(json.dumps({"jsonrpc": "2.0", **one}).encode() + b"\n")
                    process.stdin.flush()
                    if "id" in one:
                        told = next(m for m in map(json.loads, process.stdout) if _answers(m, one))
            finally:
                timer.cancel()
            assert "nextCursor" not in told["result"], name
            return [tool["name"] for tool in told["result"]["tools"]]
        finally:
            process.kill()
            process.communicate()

    def shown(self, tool: str, seen: set[str]) -> str:
        """Give the name under which a tool is seen: cut, with a digest, where it is too long."""
        if len(tool) <= NAME_CHARS:
            return tool
        start = tool[: NAME_CHARS - DIGEST_CHARS] + "_"
        (found,) = {name for name in seen if len(name) == NAME_CHARS and name.startswith(start)}
        return found

    # --- What the gate says -----------------------------------------------------------------------

    def principal(self, key: str) -> str:
        """Give the name under which the log knows a key."""
        return self._digest(Secret(key))[:8]

    def accesses(self, key: str) -> list[str]:
        """Give the lines of the access log for what was asked with a key."""
        who = f" - {self.principal(key)} ["
        return [line for line in self.gate.log_text().splitlines() if who in line]

    def pid_of(self, server: str) -> int:
        """Give the process of a server that runs: a child of the gate, with its command."""
        command = "\0".join(self.commands[server]).encode() + b"\0"
        (pid,) = [
            pid
            for pid, state in children_of(self.gate.pid).items()
            if state != "Z" and Path(f"/proc/{pid}/cmdline").read_bytes() == command
        ]
        return pid


def _answers(told: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    return told.get("id") == asked["id"] and "method" not in told


def _commands(files: Path) -> dict[str, list[str]]:
    """Give the servers."""
    here = Path(__file__).parent / "servers"
    node = real.node()
    everything = real.package("everything") / "@modelcontextprotocol"
    reference = real.package("reference") / "@modelcontextprotocol"

    def script(where: Path, name: str) -> str:
        return str(where / f"server-{name}" / "dist" / "index.js")

    fetch_git = real.python("fetch-git")
    return {
        "io": [real.python("mcp2"), str(here / "stdio_mcp.py")],
        "yardstick": [real.python("mcp2"), str(here / "yardstick2.py"), "modern", "stdio"],
        "everything": [node, script(everything, "everything"), "stdio"],
        "filesystem": [node, script(reference, "filesystem"), str(files)],
        "memory": [node, script(reference, "memory")],
        "thinking": [node, script(reference, "sequential-thinking")],
        "time": [real.python("servers"), "-m", "mcp_server_time"],
        "fetch": [
            fetch_git,
            "-m",
            "mcp_server_fetch",
            "--ignore-robots-txt",
            "--allow-private-ips",
        ],
        "git": [fetch_git, "-m", "mcp_server_git", "--repository", str(files / "repository")],
        "outline": [real.script("outline", "mcp-outline")],
    }


def _variables(files: Path) -> dict[str, dict[str, str]]:
    """Give what is in their environments."""
    return {
        "memory": {"MEMORY_FILE_PATH": str(files / "memory.json")},
        "git": {"PATH": os.environ["PATH"]},
        "outline": {
            "OUTLINE_API_URL": f"http://127.0.0.1:{free_port()}/api",
            "OUTLINE_API_KEY": "nobody-asks",
        },
    }


def _calls(files: Path, page: str) -> dict[str, Call]:
    thought = {"thought": "t", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1}
    return {
        "io": ("echo", {"message": "one"}, "echo: one"),
        "yardstick": ("test_simple_text", {}, "simple text"),
        "everything": ("echo", {"message": "two"}, "Echo: two"),
        "filesystem": ("list_directory", {"path": str(files)}, "seen.txt"),
        "memory": ("read_graph", {}, "entities"),
        "thinking": ("sequentialthinking", thought, "thoughtNumber"),
        "time": ("get_current_time", {"timezone": "Europe/Prague"}, "Europe/Prague"),
        "fetch": ("fetch", {"url": page}, "a page of the test"),
        "git": ("git_log", {"repo_path": str(files / "repository")}, "one commit"),
        "outline": ("search_documents", {"query": "notes"}, "API request failed"),
    }
