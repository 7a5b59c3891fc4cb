"""Ten real servers at one address: each tool is seen and called; one that dies disturbs nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, NO_LIMITS, STDIO, GateProcess, free_port, wait_for
from tests.functional.mcp_client import Client

CLIENT = Path(__file__).parent / "clients" / "together.py"
# How long one server is killed again and again.
KILLING_S = 5.0

SERVERS = """
[server:yardstick]
command = {mcp2} <servers>/yardstick2.py modern stdio
memory = 512MiB
[server:everything]
command = {node} {everything}/server-everything/dist/index.js stdio
memory = 2GiB
[server:filesystem]
command = {node} {reference}/server-filesystem/dist/index.js {files}
memory = 2GiB
[server:memory]
command = {node} {reference}/server-memory/dist/index.js
env.MEMORY_FILE_PATH = {files}/memory.json
memory = 2GiB
[server:thinking]
command = {node} {reference}/server-sequential-thinking/dist/index.js
memory = 2GiB
[server:time]
command = {time} -m mcp_server_time
[server:fetch]
command = {fetch_git} -m mcp_server_fetch --ignore-robots-txt --allow-private-ips
memory = 512MiB
[server:git]
command = {fetch_git} -m mcp_server_git --repository {files}/repository
memory = 512MiB
env.PATH = {path}
[server:outline]
command = {outline}
env.OUTLINE_API_URL = http://127.0.0.1:{nobody}/api
env.OUTLINE_API_KEY = nobody-asks
memory = 512MiB
"""


# A tool, its arguments, and what its answer must hold.
Calls = dict[str, tuple[str, dict[str, Any], str]]


def calls(files: Path, page: str) -> Calls:
    """Give one call for each server; Outline's has nobody to ask, and says so."""
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


class Killer(threading.Thread):
    """
    Kills a server as often as it comes back, until it is told to stop.

    :ivar deaths: how often.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.deaths = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Ask the server for its process id, and end it by that."""
        self.client.initialize()
        while not self._over.is_set():
            told = self.client.call("pid").message
            if "result" in told:
                os.kill(int(told["result"]["content"][0]["text"]), signal.SIGKILL)
                self.deaths += 1
            else:  # it is left alone for a while: it died too often
                self._over.wait(0.05)

    def stop(self) -> None:
        """Kill it no more."""
        self._over.set()
        self.join(30)


class TenServersTests(TestCase):
    """A gate with ten servers, eight of them of other people."""

    def setUp(self) -> None:
        """Start it, with what the servers work on."""
        real.require("mcp1", "mcp2", "servers", "everything", "reference", "fetch-git", "outline")
        if shutil.which("git") is None:
            real.missing("there is no git on this machine")
        text = GATE.replace("[auth:keys]", "allowed_hosts = *\n[auth:keys]", 1)
        self.gate = GateProcess(self, text)
        files = self.gate.directory / "files"
        (files / "repository").mkdir(parents=True)
        (files / "seen.txt").write_text("seen\n")
        self.repository(files / "repository")
        servers = SERVERS.format(
            mcp2=real.python("mcp2"),
            node=real.node(),
            everything=real.package("everything") / "@modelcontextprotocol",
            reference=real.package("reference") / "@modelcontextprotocol",
            time=real.python("servers"),
            fetch_git=real.python("fetch-git"),
            outline=real.script("outline", "mcp-outline"),
            files=files,
            path=os.environ["PATH"],
            nobody=free_port(),
        )
        self.gate.write(text + NO_LIMITS + STDIO + servers)
        self.key = self.gate.add_key("ann")
        self.gate.start()
        self.calls = calls(files, self.serve_page())

    def repository(self, place: Path) -> None:
        """Make a repository with one commit."""
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        alone = {"PATH": os.environ["PATH"], "HOME": str(self.gate.directory)}
        for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "one commit"]):
            subprocess.run(["git", *words], cwd=place, env=alone, check=True, timeout=30)

    def serve_page(self) -> str:
        """Serve a page; give its address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}/page"

    def listed(self) -> set[str]:
        """Ask every server for its tools, each at its own address; give the names to see."""
        names = set()
        for server in self.calls:
            client = Client(self.gate, server, self.key)
            client.initialize()
            result = client.request("tools/list").message["result"]
            self.assertNotIn("nextCursor", result)
            names |= {f"{server}__{tool['name']}" for tool in result["tools"]}
        return names

    def see(self, part: str, path: str, mode: str, expected: set[str]) -> None:
        """Have a client of an official SDK list every tool, and call one of each server."""
        asked = {
            "url": f"http://127.0.0.1:{self.gate.plain_port}{path}",
            "key": self.key,
            "mode": mode,
            "calls": [
                (f"{server}__{tool}", arguments)
                for server, (tool, arguments, _) in self.calls.items()
            ],
        }
        ran = subprocess.run(
            [real.python(part), str(CLIENT)],
            input=json.dumps(asked),
            capture_output=True,
            check=False,
            text=True,
            timeout=90,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr[-2000:])
        told: dict[str, Any] = json.loads(ran.stdout)
        self.assertEqual(len(told["tools"]), len(expected))
        # Names that would be too long for hosts are cut, and end in a digest.
        seen = set(told["tools"])
        self.assertEqual(len(seen), len(expected))
        for whole in expected - seen:
            begins = {name for name in seen - expected if whole.startswith(name[:-9])}
            self.assertEqual(len(begins), 1, whole)
        self.assertEqual(len(told["answers"]), 10)
        for (server, (_, _, text)), answer in zip(self.calls.items(), told["answers"], strict=True):
            self.assertIn(text, answer["text"], (server, path, mode))
            self.assertFalse(answer["failed"], answer)

    def check(self, server: str, message: dict[str, Any]) -> None:
        """See that a call was answered well."""
        self.assertIn("result", message, server)
        result = message["result"]
        self.assertFalse(result.get("isError", False), result)
        self.assertIn(self.calls[server][2], json.dumps(result), server)

    def test_every_client(self) -> None:
        """Clients of both eras and of SSE see every tool of ten servers, and call one of each."""
        expected = self.listed()
        self.see("mcp1", "/mcp", "", expected)
        self.see("mcp1", "/sse", "", expected)
        self.see("mcp2", "/mcp", "legacy", expected)
        self.see("mcp2", "/mcp", "2026-07-28", expected)

    def test_one_is_killed(self) -> None:
        """While one server is killed again and again, no call to the nine others fails."""
        together = Client(self.gate, "io", self.key)
        together.path = "/mcp"
        together.initialize()
        others = {server: call for server, call in self.calls.items() if server != "io"}
        for server, (tool, arguments, _) in others.items():
            self.check(server, together.call(f"{server}__{tool}", **arguments).message)
        killer = Killer(Client(self.gate, "io", self.key))
        self.addCleanup(killer.stop)
        killer.start()
        slowest = 0.0
        end = time.monotonic() + KILLING_S
        while time.monotonic() < end:
            for server, (tool, arguments, _) in others.items():
                began = time.monotonic()
                self.check(server, together.call(f"{server}__{tool}", **arguments).message)
                slowest = max(slowest, time.monotonic() - began)
        killer.stop()
        self.assertGreater(killer.deaths, 2)
        self.assertLess(slowest, KILLING_S)
        wait_for(
            lambda: "echo: one" in json.dumps(together.call("io__echo", message="one").message),
            "the server is back",
            40,
        )
