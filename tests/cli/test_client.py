"""Tests of mcpgate.cli.client and mcpgate.cli.addresses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli.addresses import address
from mcpgate.cli.client import FORMS
from tests.cli.commands import run
from tests.config.writing import BASE, read

URL = "https://mcp.example.org/notes/mcp"


class ClientTests(SynchronousTestCase):
    """``mcpgate client``."""

    def setUp(self) -> None:
        """Write a configuration."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.gate = self.directory / "gate.ini"
        self.gate.write_text(BASE.replace("[gate]", "[gate]\npublic_url = https://mcp.example.org"))
        self.gate.chmod(0o644)

    def client(self, *words: str) -> tuple[int, str, str]:
        """Run the command."""
        return run("client", "--config", str(self.gate), *words)

    def told(self, *words: str) -> Any:
        """Give the JSON it prints."""
        code, out, _ = self.client(*words)
        self.assertEqual(code, 0)
        return json.loads(out)

    def test_every_form(self) -> None:
        """Every client is told the URL, and a key only where one was given."""
        for name in FORMS:
            code, out, _ = self.client(name)
            self.assertEqual(code, 0, name)
            self.assertIn(URL, out)
            self.assertNotIn("s3cret", out)

    def test_own_host(self) -> None:
        """A server with a host of its own is told by it, unless another address is asked for."""
        text = self.gate.read_text()
        self.gate.write_text(
            text.replace("[gate]", "[gate]\nserver_hosts = mcp-*.example.org *.example.net")
        )
        self.assertIn(" https://mcp-notes.example.org/mcp ", self.client("claude")[1])
        self.assertIn(" https://x/notes/mcp ", self.client("claude", "--url", "https://x/")[1])

    def test_commands(self) -> None:
        """Clients that are set up by commands get commands."""
        self.assertEqual(
            self.client("claude")[1],
            f"claude mcp add --transport http notes {URL} "
            '--header "Authorization: Bearer $MCPGATE_KEY"\n',
        )
        self.assertEqual(
            self.client("gemini", "--key", "s3cret", "--header", "X-API-Key")[1],
            f"gemini mcp add --scope user --transport http notes {URL} "
            "--header 'X-API-Key: s3cret'\n",
        )

    def test_odd_key(self) -> None:
        """A shell takes a key as it is, whatever stands in it."""
        for name in ("claude", "gemini", "curl"):
            _, out, _ = self.client(name, "--key", "a$b`c`")
            self.assertIn("'Authorization: Bearer a$b`c`'", out, name)

    def test_files(self) -> None:
        """Clients that have files get what stands in them."""
        self.assertEqual(
            self.told("claude-project"),
            {
                "mcpServers": {
                    "notes": {
                        "type": "http",
                        "url": URL,
                        "headers": {"Authorization": "Bearer ${MCPGATE_KEY}"},
                    }
                }
            },
        )
        self.assertEqual(self.told("vscode")["inputs"][0]["id"], "mcpgate-key")
        with_key = self.told("vscode", "--key", "k")
        self.assertNotIn("inputs", with_key)
        self.assertEqual(with_key["servers"]["notes"]["headers"], {"Authorization": "Bearer k"})
        desktop = self.told("claude-desktop", "--key", "k")["mcpServers"]["notes"]
        self.assertEqual(desktop["env"], {"MCPGATE_KEY": "k"})
        self.assertIn("X-API-Key:${MCPGATE_KEY}", desktop["args"])
        codex = tomllib.loads(self.client("codex")[1])
        self.assertEqual(
            codex["mcp_servers"]["notes"], {"url": URL, "bearer_token_env_var": "MCPGATE_KEY"}
        )
        other = tomllib.loads(self.client("codex", "--header", "X-Key")[1])
        self.assertEqual(
            other["mcp_servers"]["notes"]["env_http_headers"], {"X-Key": "MCPGATE_KEY"}
        )

    def test_key_file(self) -> None:
        """A key can come from a file; another address from the command line."""
        file = self.directory / "key"
        file.write_text("s3cret\n")
        told = self.told("cursor", "notes", "--key-file", str(file), "--url", "https://b.org/")
        self.assertEqual(
            told["mcpServers"]["notes"],
            {"url": "https://b.org/notes/mcp", "headers": {"Authorization": "Bearer s3cret"}},
        )

    def test_into(self) -> None:
        """What is in a client's file stays there; the servers are added."""
        file = self.directory / "mcp.json"
        code, out, _ = self.client("vscode", "--into", str(file))
        self.assertEqual(code, 0)
        self.assertIn("written", out)
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        file.write_text('{"servers": {"mine": {}}, "inputs": [{"id": "x"}], "odd": 1}')
        self.assertIn("mcp.json.1", self.client("vscode", "--into", str(file))[1])
        told = json.loads(file.read_text())
        self.assertEqual(list(told["servers"]), ["mine", "notes"])
        self.assertEqual([one["id"] for one in told["inputs"]], ["x", "mcpgate-key"])
        self.assertEqual(told["odd"], 1)
        before = file.read_text()
        self.client("vscode", "--into", str(file))
        self.assertEqual(json.loads(file.read_text()), json.loads(before))

    def test_not_into(self) -> None:
        """A file that is no JSON object is left as it is."""
        file = self.directory / "mcp.json"
        for text in ("[]", "{", '{"servers": 1}'):
            file.write_text(text)
            code, _, err = self.client("vscode", "--into", str(file))
            self.assertEqual(code, 1)
            self.assertIn("nothing was changed", err)
            self.assertEqual(file.read_text(), text)
        code, _, err = self.client("claude", "--into", str(file))
        self.assertEqual(code, 2)
        self.assertIn("no JSON file", err)

    def test_refused(self) -> None:
        """Unknown servers, missing files and bad configurations are told."""
        code, _, err = self.client("curl", "note")
        self.assertEqual(code, 1)
        self.assertIn("there is no server note", err)
        self.assertEqual(self.client("curl", "--key-file", "/nope")[0], 2)
        self.gate.write_text(self.gate.read_text().partition("[server")[0])
        code, _, err = self.client("curl")
        self.assertEqual(code, 1)
        self.assertIn("there is no server yet", err)
        self.gate.write_text("nope")
        self.assertEqual(self.client("curl")[0], 2)


class AddressTests(SynchronousTestCase):
    """Where clients find the gate."""

    def test_address(self) -> None:
        """The public address, else TLS, else plain, on loopback where every address is bound."""

        def told(listen: str) -> str:
            text = BASE.replace("listen = tcp:8080:interface=127.0.0.1", listen)
            return address(read(text))

        self.assertEqual(told("public_url = https://a.org"), "https://a.org")
        self.assertEqual(told("listen = tcp:80:interface=10.0.0.1"), "http://10.0.0.1:80")
        self.assertEqual(
            told("listen =\n  tcp:80:interface=127.0.0.1\n  tls:tcp:443"), "https://127.0.0.1:443"
        )
        self.assertEqual(told("listen = tls:tcp6:443:interface=\\:\\:1"), "https://[::1]:443")
        self.assertEqual(told("listen = unix:/run/gate.sock"), "https://127.0.0.1")
