"""
The set-ups mcpgate takes the place of: their own files, imported and served.

``seeds/`` holds the files, with host names, tokens and versions of packages changed.  Programs
stand for packages that would have to be fetched: ``npx`` and ``uvx`` here run what is installed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from unittest import TestCase

from typing_extensions import override

from mcpgate.config.load import parse_config
from tests.functional import real
from tests.functional.gate_process import (
    AT_ONCE_S,
    GATE,
    MCPGATE,
    NO_LIMITS,
    SERVERS,
    GateProcess,
    free_port,
    wait_for,
)
from tests.functional.mcp_client import INITIALIZE, Client
from tests.functional.servers.fake_outline import FakeOutline

SEEDS = Path(__file__).parent / "seeds"
GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide" / "migrating.rst"

OUTLINE = """
[server:outline]
command = {command}
transport = http
env.MCP_TRANSPORT = streamable-http
env.MCP_HOST = 127.0.0.1
env.MCP_PORT = {{port}}
env.OUTLINE_API_URL = {wiki}
env.OUTLINE_API_KEY = {{key}}
memory = 512MiB
"""


class SeedGate(GateProcess):
    """
    A gate whose machine has ``npx`` and ``uvx``, and variables.

    :ivar variables: what the gate and its commands find in their environment.
    """

    def __init__(self, case: TestCase, text: str) -> None:
        self.variables: dict[str, str] = {}
        super().__init__(case, text)
        (self.directory / "bin").mkdir()

    def program(self, name: str, *words: str) -> None:
        """Have a program of this name run another, whatever package it is told."""
        script = self.directory / "bin" / name
        script.write_text("#!/bin/sh\nexec " + shlex.join(words) + "\n")
        script.chmod(0o755)

    @override
    def environment(self) -> dict[str, str]:
        given = super().environment()
        path = f"{self.directory / 'bin'}{os.pathsep}{given['PATH']}"
        return {**given, **self.variables, "PATH": path}

    def take(self, file: Path, *options: str) -> str:
        """Import a file into the configuration; give what was said."""
        ran = subprocess.run(
            [*MCPGATE, "import", str(file), "--into", str(self.ini), *options],
            capture_output=True,
            check=False,
            text=True,
            cwd=self.directory,
            env=self.environment(),
            timeout=60,
        )
        self.case.assertEqual(ran.returncode, 0, ran.stderr)
        checked = self.command("check", str(self.ini), config=False)
        self.case.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        return ran.stderr


class WikiClient(Client):
    """Sends the wiki's key in the field of the wiki."""

    @override
    def fields(self, **fields: str) -> dict[str, str]:
        given = super().fields(**fields)
        return {"X-Outline-API-Key": given.pop("Authorization").removeprefix("Bearer "), **given}


class SeedTests(TestCase):
    """One test for each of the five, and the files they hand to clients."""

    def gate(self, text: str = GATE + NO_LIMITS) -> SeedGate:
        """Make a gate without servers."""
        return SeedGate(self, text)

    def names_of(self, client: Client) -> list[str]:
        """List the tools."""
        self.assertEqual(client.initialize().status, 200)
        return [tool["name"] for tool in client.request("tools/list").message["result"]["tools"]]

    def test_wiki_per_user(self) -> None:
        """S0: keys of the wiki, checked by the wiki, a server for each; the guide's own file."""
        wiki = FakeOutline()
        self.addCleanup(wiki.stop)
        page = GUIDE.read_text()
        begin = page.index("[auth]\n   header")
        auth = page[begin : page.index("[server:outline]", begin)].replace("\n   ", "\n")
        auth = auth.replace("https://app.getoutline.com/api", wiki.url)
        auth = auth.replace("type = remote", "type = remote\nallow_private = on")
        head = GATE.partition("[auth:keys]")[0]
        server = OUTLINE.format(command=real.script("outline", "mcp-outline"), wiki=wiki.url)
        gate = self.gate(head + NO_LIMITS + auth + server)
        gate.start()
        for user in ("ann", "bob"):
            client = WikiClient(gate, "outline", f"ol_api_{user}")
            self.assertIn("search_documents", self.names_of(client))
            said = client.call("search_documents", query="notes").text
            self.assertIn(f"Notes of {user}", said)
        stranger = WikiClient(gate, "outline", "no-key-at-all")
        self.assertEqual(stranger.initialize().status, 401)
        self.assertEqual(gate.get("/health").status, 200)

    def test_client_that_drops_its_session(self) -> None:
        """S1: initialize, then resources/list without the session's id: both succeed."""
        gate = self.gate()
        gate.program("uvx", str(real.python("mcp1")), str(SERVERS / "sdk1_server.py"))
        gate.write(GATE + NO_LIMITS + "[server:outline]\ncommand = uvx mcp-outline\n")
        key = gate.add_key("ann")
        gate.start()
        client = Client(gate, "outline", key)
        self.assertEqual(client.request("initialize", INITIALIZE).status, 200)
        answer = client.request("tools/list")
        self.assertEqual(answer.status, 200, answer.body)
        self.assertIn("result", client.request("resources/list").message)

    def test_stdio_aggregator(self) -> None:
        """S2: the array of servers, imported and included; every tool at one address, /sse too."""
        gate = self.gate()
        gate.program("npx", str(real.python("mcp1")), str(SERVERS / "sdk1_server.py"))
        self.assertEqual(gate.take(SEEDS / "s2-mcp-servers.json"), "")
        key = gate.add_key("ann")
        gate.start()
        self.assertIn("echo", self.names_of(Client(gate, "playwright", key)))
        together = Client(gate, "playwright", key)
        together.path = "/mcp"
        self.assertIn("playwright__echo", self.names_of(together))
        self.assertIn("one", together.call("playwright__echo", message="one").text)
        kept = gate.directory / "mcp-servers.json"
        kept.write_text((SEEDS / "s2-mcp-servers.json").read_text())
        included = GATE.replace("[gate]", f"[gate]\ninclude = {kept}", 1)
        gate.write(included + NO_LIMITS)
        self.assertEqual(gate.command("config", "apply").returncode, 0)
        changed = json.loads(kept.read_text())
        changed["servers"].append({"name": "second", "command": "npx", "args": ["x"], "env": {}})
        kept.write_text(json.dumps(changed))

        def there() -> bool:
            listed = together.request("tools/list").message["result"]["tools"]
            return any(tool["name"] == "second__echo" for tool in listed)

        wait_for(there, "the file is watched")

    def test_central_proxy(self) -> None:
        """S3: mcpProxy files, comments and all: each service at its own /sse and /mcp."""
        gate = self.gate()
        gate.variables["MCP_PROXY_TOKEN"] = "changeme-token"
        gate.program("uvx", str(real.python("servers")), "-m", "mcp_server_time")
        gate.program("npx", str(real.python("mcp1")), str(SERVERS / "sdk1_server.py"))
        port = free_port()
        beside = subprocess.Popen(
            [real.python("mcp1"), str(SERVERS / "sdk1_sse.py"), str(port)],
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(beside.wait, 10)
        self.addCleanup(beside.kill)
        text = (SEEDS / "s3-mixed.json").read_text()
        self.assertIn("http://mcp-postgres:8686/sse", text)
        adapted = gate.directory / "config.json"
        adapted.write_text(text.replace("mcp-postgres:8686", f"127.0.0.1:{port}"))
        self.assertIn("authTokens", gate.take(adapted))
        key = gate.add_key("ann")
        gate.start()
        wait_for(
            lambda: Client(gate, "postgres", key).initialize().status == 200, "postgres is up", 30
        )
        self.assertIn("echo", self.names_of(Client(gate, "postgres", key)))
        self.assertIn("get_current_time", self.names_of(Client(gate, "fetch", key)))
        self.assertIn("echo", self.names_of(Client(gate, "filesystem", key)))
        opened = gate.connection()
        self.addCleanup(opened.close)
        # A bare token, as some clients of that proxy send it, is a key like any other.
        opened.request(
            "GET", "/filesystem/sse", headers={"Authorization": key, "Accept": "text/event-stream"}
        )
        stream = opened.getresponse()
        self.addCleanup(stream.close)
        self.assertEqual(stream.status, 200)
        self.assertEqual(stream.readline().strip(), b"event: endpoint")
        self.assertIn(b"/filesystem/messages?", stream.readline())
        self.assertEqual(gate.get("/filesystem/sse").status, 401)
        for path in (f"/filesystem/{key}/sse", f"/{key}/filesystem/sse", f"/filesystem/sse/{key}"):
            self.assertIn(gate.get(path, Accept="text/event-stream").status, (401, 404), path)
        took = sorted(self.opening(gate, "/filesystem/sse", key) for _ in range(9))
        self.assertLess(took[4], AT_ONCE_S / 4)
        self.assertEqual(gate.get("/").status, 200)

    def opening(self, gate: SeedGate, path: str, key: str) -> float:
        """Open an event stream on a connection of its own; give the seconds to its first event."""
        began = time.monotonic()
        connection = gate.connection()
        try:
            fields = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
            connection.request("GET", path, headers=fields)
            stream = connection.getresponse()
            self.assertEqual(stream.readline().strip(), b"event: endpoint")
            return time.monotonic() - began
        finally:
            connection.close()

    def test_files_of_the_central_proxy(self) -> None:
        """S3: the production file, those of its bridges and of its clients are accepted."""
        for name, servers in (
            ("s3-central.jsonc", ["postgres", "timescaledb", "filesystem", "fetch"]),
            ("s3-filesystem-bridge.json", ["filesystem"]),
            ("s3-fetch-bridge.json", ["fetch"]),
        ):
            gate = self.gate()
            gate.take(SEEDS / name)
            config = parse_config(gate.ini.read_text(), gate.ini, gate.environment())
            self.assertEqual([spec.name for spec in config.servers], servers, name)

    def test_files_of_clients(self) -> None:
        """What the seeds hand to clients can be read as well; tokens in clear are not written."""
        gate = self.gate()
        for name, count in (
            ("s0-client.json", 1),
            ("s3-client.json", 3),
            ("s3-vscode-settings.json", 4),
            ("s4-client.json", 10),
        ):
            ran = gate.command("import", str(SEEDS / name), config=False)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            self.assertEqual(ran.stdout.count("[server:"), count, name)
        ran = gate.command(
            "import", str(SEEDS / "s3-client.json"), "--into", str(gate.ini), config=False
        )
        self.assertEqual(ran.returncode, 2)
        self.assertIn("Use https, or set insecure = yes", ran.stderr)

    def test_ten_bridges(self) -> None:
        """S4: ten PORT/CMD/ARGS files become images; the clients' file of curl lines, addresses."""
        gate = self.gate()
        for line in (SEEDS / "s4-secrets.txt").read_text().splitlines():
            name, sign, value = line.partition("=")
            if sign:
                gate.variables[name] = value
        files = sorted((SEEDS / "s4").glob("*.env"))
        for file in files:
            self.assertEqual(gate.take(file, "--shared"), "", file.name)
        config = parse_config(gate.ini.read_text(), gate.ini, gate.environment())
        found = {spec.name: spec for spec in config.servers}
        self.assertEqual(sorted(found), [file.stem for file in files])
        self.assertTrue(all(spec.runtime == "docker" for spec in found.values()))
        self.assertEqual(found["time"].container.image, "mcp/time")
        one, other = (
            dict(found[name].env)["GITHUB_PERSONAL_ACCESS_TOKEN"]
            for name in ("github-personal", "github-work")
        )
        self.assertNotEqual(str(one), "")
        self.assertIsNot(one, other)
        clients = self.gate()
        self.assertIn("its address was taken", clients.take(SEEDS / "s4-client.json"))
        config = parse_config(clients.ini.read_text(), clients.ini, {"HOME": "/"})
        self.assertEqual(len(config.servers), 10)
        self.assertEqual(config.servers[0].url, "https://mcp-time.example.org/mcp")
