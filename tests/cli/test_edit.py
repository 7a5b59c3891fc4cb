"""Tests of the commands that change ``gate.ini``: add, remove, enable, disable, list, show."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run
from tests.config.writing import BASE


class EditTests(SynchronousTestCase):
    """An administrator's session, command by command."""

    def setUp(self) -> None:
        """Write a configuration."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.gate = directory / "gate.ini"
        self.gate.write_text(BASE)
        self.gate.chmod(0o644)

    def mcpgate(self, command: str, *words: str) -> tuple[int, str, str]:
        """Run a command on the configuration."""
        return run(command, "--config", str(self.gate), *words)

    def added(self, *words: str) -> str:
        """Add a server; give what was added."""
        before = self.gate.read_text()
        code, _, err = self.mcpgate("add", *words)
        self.assertEqual((code, err), (0, ""))
        return self.gate.read_text().removeprefix(before).strip()

    def test_session(self) -> None:
        """Add, list, show, disable, enable, remove: at the end the file is as it was."""
        code, out, _ = self.mcpgate("add", "files", "--", "files", "--stdio")
        self.assertEqual(code, 0)
        self.assertIn("added files; what was there before is gate.ini.1", out)
        self.assertEqual(self.mcpgate("list", "--format", "names")[1], "notes\nfiles\n")
        code, out, _ = self.mcpgate("show", "files")
        self.assertEqual((code, out), (0, "[server:files]\ncommand = files --stdio\n"))
        self.assertEqual(self.mcpgate("disable", "files")[0], 0)
        self.assertEqual(self.mcpgate("list", "--format", "names")[1], "notes\n")
        self.assertIn("nothing to change", self.mcpgate("disable", "files")[1])
        self.assertEqual(self.mcpgate("enable", "files")[0], 0)
        self.assertEqual(self.mcpgate("remove", "files")[0], 0)
        self.assertEqual(self.gate.read_text(), BASE)
        self.assertTrue(self.gate.with_name("gate.ini.4").exists())

    def test_kinds(self) -> None:
        """Programs, packages, images, addresses and docker run lines can be added."""
        self.assertEqual(
            self.added("a", "-e", "TOKEN={key}", "--set", "memory=128MiB", "--", "a", "two words"),
            "[server:a]\ncommand = a 'two words'\nenv.TOKEN = {key}\nmemory = 128MiB",
        )
        self.assertEqual(
            self.added("b", "--npx", "@x/b@1", "--", "/srv"),
            "[server:b]\ncommand = npx -y @x/b@1 /srv",
        )
        self.assertEqual(self.added("c", "--uvx", "c==1"), "[server:c]\ncommand = uvx c==1")
        self.assertEqual(
            self.added("d", "--url", "https://d.example.org/mcp", "-H", "X-Key: {key}"),
            "[server:d]\nurl = https://d.example.org/mcp\nheader.X-Key = {key}",
        )
        self.assertEqual(self.added("e", "--image", "mcp/time:1"), "[server:e]\nimage = mcp/time:1")
        self.assertEqual(
            self.added("f", "--", "docker", "run", "-i", "--rm", "mcp/f"),
            "[server:f]\nimage = mcp/f\negress = internet",
        )
        self.assertEqual(
            self.added("g", "--openapi", "https://g.example.org/o", "--set", "openapi_refresh=0"),
            "[server:g]\nopenapi = https://g.example.org/o\nopenapi_refresh = 0",
        )
        names = [row["name"] for row in json.loads(self.mcpgate("list", "--format", "json")[1])]
        self.assertEqual(names, ["notes", *"abcdefg"])
        self.assertIn("http://127.0.0.1:8080/notes/mcp", self.mcpgate("list")[1])

    def test_own_host(self) -> None:
        """Servers are listed with their own hosts, on the port of the listener."""
        self.gate.write_text(BASE.replace("[gate]", "[gate]\nserver_hosts = *.example.org"))
        self.assertIn("http://notes.example.org:8080/mcp", self.mcpgate("list")[1])
        self.gate.write_text(
            BASE.replace(
                "[gate]",
                "[gate]\nserver_hosts = *.example.org\npublic_url = https://notes.example.org",
            )
        )
        self.assertIn("https://notes.example.org/notes/mcp", self.mcpgate("list")[1])

    def test_refused(self) -> None:
        """What can not be meant, or would make a bad file, changes nothing and says why."""
        for words, what in (
            (("x",), "say what to run"),
            (("x", "y"), "unrecognized arguments"),
            (("x", "--url", "https://x.example.org/", "--", "y"), "no further words"),
            (("x", "--openapi", "https://x.example.org/o", "--", "y"), "no further words"),
            (("x", "-e", "A", "--", "x"), "--env wants NAME=VALUE"),
            (("x", "-e", "A B=1", "--", "x"), "--env wants NAME=VALUE"),
            (("x", "-H", "A", "--", "x"), "--header wants NAME:VALUE"),
            (("x", "--set", "memory=5", "--", "x"), "a size needs a unit"),
            (("Big_Name", "--", "x"), "not a name"),
            (("notes", "--", "x"), "stands twice"),
            (("x", "--", "docker", "run", "-i"), "no image"),
        ):
            code, out, err = self.mcpgate("add", *words)
            self.assertEqual((code, out), (2, ""), words)
            self.assertIn(what, err)
        self.assertEqual(self.gate.read_text(), BASE)

    def test_dry_run(self) -> None:
        """A dry run shows the change and makes none."""
        code, out, _ = self.mcpgate("remove", "notes", "--dry-run")
        self.assertEqual(code, 0)
        self.assertIn("\n-[server:notes]\n", out)
        self.assertEqual(self.gate.read_text(), BASE)

    def test_unknown(self) -> None:
        """A name that is nobody's gives 1 and the name that may be meant."""
        for command in ("remove", "enable", "disable", "show"):
            code, out, err = self.mcpgate(command, "note")
            self.assertEqual((code, out), (1, ""))
            self.assertIn("there is no [server:note].", err)
            self.assertIn("notes", err)
        self.gate.write_text("nope")
        code, _, err = self.mcpgate("show", "note")
        self.assertEqual(code, 1)

    def test_unreadable(self) -> None:
        """A file that is missing or bad gives 2."""
        self.gate.write_text(BASE + "nope = 1\n")
        self.assertEqual(self.mcpgate("list")[0], 2)
        self.gate.unlink()
        for words in (("show", "notes"), ("remove", "notes"), ("list",), ("add", "a", "--", "b")):
            code, _, err = self.mcpgate(*words)
            self.assertEqual(code, 2)
            self.assertIn("can not be read", err)
