"""Tests of mcpgate.cli.importing."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli import edit
from tests.cli.commands import run
from tests.config.writing import BASE

SERVERS = '{"mcpServers": {"one": {"command": "x"}, "Two": {"command": "y", "odd": 1}}}'
SECTIONS = """\
[server:one]
command = x

# named two: names hold a-z, 0-9 and - only, each once
# odd: left out, the gate has no key for it
[server:two]
command = y
"""


class ImportTests(SynchronousTestCase):
    """``mcpgate import``."""

    def setUp(self) -> None:
        """Write a file of servers and a configuration."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.servers, self.gate = directory / "servers.json", directory / "gate.ini"
        self.servers.write_text(SERVERS)
        self.gate.write_text(BASE)
        self.gate.chmod(0o640)

    def test_printed(self) -> None:
        """The sections go to stdout, what could not be taken over to stderr."""
        code, out, err = run("import", str(self.servers))
        self.assertEqual((code, out), (0, SECTIONS))
        self.assertEqual(len(err.splitlines()), 2)
        self.assertIn("note: two: odd: left out", err)

    def test_chosen(self) -> None:
        """Only the servers that were named, one copy for everybody."""
        code, out, _ = run("import", str(self.servers), "--only", "one", "--shared")
        self.assertEqual((code, out), (0, "[server:one]\ncommand = x\nisolation = shared\n"))
        code, out, err = run("import", str(self.servers), "--only", "one,three")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("no server named three", err)

    def test_added(self) -> None:
        """Servers are added to a configuration; what it was before lies beside it."""
        code, out, _ = run("import", str(self.servers), "--into", str(self.gate))
        self.assertEqual(code, 0)
        self.assertIn("added one, two; what was there before is gate.ini.1", out)
        self.assertEqual(self.gate.read_text(), BASE + "\n" + SECTIONS)
        self.assertEqual(self.gate.stat().st_mode & 0o777, 0o640)
        self.assertEqual(self.gate.with_name("gate.ini.1").read_text(), BASE)
        self.assertEqual(len(list(self.gate.parent.iterdir())), 3)

    def test_dry_run(self) -> None:
        """A dry run shows what it would add and changes nothing."""
        code, out, err = run("import", str(self.servers), "--into", str(self.gate), "--dry-run")
        self.assertEqual((code, len(err.splitlines())), (0, 2))
        self.assertIn("+[server:one]\n", out)
        self.assertEqual(self.gate.read_text(), BASE)

    def test_would_break_it(self) -> None:
        """What would make a bad configuration is told with its line, and nothing is written."""
        run("import", str(self.servers), "--into", str(self.gate))
        before = self.gate.read_text()
        code, out, err = run("import", str(self.servers), "--into", str(self.gate))
        self.assertEqual((code, out), (2, ""))
        self.assertIn("the section stands twice", err)
        self.assertIn("nothing was changed", err)
        self.assertEqual(self.gate.read_text(), before)

    def test_backups(self) -> None:
        """Each change keeps a copy of its own; too many of them stop it."""
        self.gate.with_name("gate.ini.1").write_text("mine")
        run("import", str(self.servers), "--into", str(self.gate), "--only", "one")
        self.assertEqual(self.gate.with_name("gate.ini.1").read_text(), "mine")
        self.assertEqual(self.gate.with_name("gate.ini.2").read_text(), BASE)
        self.patch(edit, "_MOST_BACKUPS", 3)
        before = self.gate.read_text()
        code, _, err = run("import", str(self.servers), "--into", str(self.gate), "--only", "two")
        self.assertEqual(code, 1)
        self.assertIn("too many copies", err)
        self.assertEqual(self.gate.read_text(), before)

    def test_disk_full(self) -> None:
        """A file that can not be written whole is left as it was."""

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with patch.object(os, "fsync", full):
            code, _, err = run("import", str(self.servers), "--into", str(self.gate))
        self.assertEqual(code, 1)
        self.assertIn("No space left", err)
        self.assertEqual(self.gate.read_text(), BASE)
        self.assertEqual([p.name for p in self.gate.parent.iterdir() if p.name[0] == "."], [])

    def test_stdin(self) -> None:
        """A line from stdin, named on the command line."""
        stdin = io.TextIOWrapper(io.BytesIO(b"docker run -i --rm mcp/time"))
        with patch.object(sys, "stdin", stdin):
            code, out, _ = run("import", "-", "--name", "clock")
        self.assertEqual(code, 0)
        self.assertEqual(out, "[server:clock]\nimage = mcp/time\negress = internet\n")

    def test_no_good(self) -> None:
        """Files that are no good are told in one line."""
        missing = str(self.servers.with_name("no.json"))
        self.assertEqual(run("import", missing)[0], 2)
        self.servers.write_bytes(b"\xff")
        self.assertIn("not UTF-8", run("import", str(self.servers))[2])
        self.assertIn("not a regular file", run("import", str(self.servers.parent))[2])
        self.servers.write_text('{"mcpServers": {"a": {"x": 1}}}')
        code, _, err = run("import", str(self.servers))
        self.assertEqual(code, 1)
        self.assertIn("no server could be taken over", err)
        self.servers.write_text(SERVERS)
        code, _, err = run("import", str(self.servers), "--into", missing)
        self.assertEqual(code, 2)
        self.assertIn("can not be read", err)
