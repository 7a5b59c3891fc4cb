"""Tests of ``include``: servers of other programs' files, served as they are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.advice import advise
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError, Problem
from mcpgate.model import MIB, Isolation
from tests.config.writing import BASE

ENVIRON = {"HOME": "/home/gate", "TOKEN": "hunter2-canary"}
SERVERS = """\
// ours
{"mcpServers": {
  "search": {"command": "search", "args": ["--stdio"], "env": {"KEY": "${TOKEN}"}, "odd": 1,
             "mcpgate": {"isolation": "shared", "memory": "512MiB", "relay": false}},
  "off": {"command": "x", "disabled": true}
}}
"""


class IncludeTests(SynchronousTestCase):
    """A ``gate.ini`` that names a file of servers."""

    def setUp(self) -> None:
        """Write both files."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.gate, self.servers = directory / "gate.ini", directory / "mcp.json"
        self.write(SERVERS)

    def write(self, servers: str) -> None:
        """Write a file of servers, and the configuration that names it."""
        self.servers.write_text(servers)
        self.gate.write_text(BASE.replace("[gate]", "[gate]\ninclude = mcp.json"))
        for path in (self.servers, self.gate):
            path.chmod(0o644)

    def read(self) -> Config:
        """Read the configuration."""
        return read_config(self.gate, ENVIRON)

    def faults(self) -> tuple[Problem, ...]:
        """Give what is wrong with it."""
        with self.assertRaises(ConfigError) as caught:
            self.read()
        return tuple(caught.exception.problems)

    def test_served(self) -> None:
        """Its servers are served beside those of gate.ini, with keys of the gate's own."""
        config = self.read()
        self.assertEqual([spec.name for spec in config.servers], ["notes", "search"])
        search = config.servers[1]
        self.assertEqual(search.command, ("search", "--stdio"))
        self.assertEqual(search.env, (("KEY", "hunter2-canary"),))
        self.assertEqual(search.isolation, Isolation.SHARED)
        self.assertEqual(search.restraint.memory_bytes, 512 * MIB)
        self.assertIn("hunter2-canary", [secret.reveal() for secret in config.secrets])

    def test_notes(self) -> None:
        """What could not be taken over is a warning of mcpgate check."""
        warnings = advise(self.read(), {}, datetime.now(UTC), lambda name, path: name)
        self.assertIn("mcp.json: [server:search] odd: left out", warnings[0])

    def test_faults(self) -> None:
        """Faults name the included file, not a line of something nobody wrote."""
        self.write('{"mcpServers": {"a": {"command": "x", "mcpgate": {"memory": "5", "no": 1}}}}')
        self.assertEqual(
            [(one.file, one.line, one.section, one.key) for one in self.faults()],
            [(str(self.servers.absolute()), 0, "server:a", key) for key in ("memory", "no")],
        )

    def test_twice(self) -> None:
        """A server that stands in both files is a fault."""
        self.write('{"mcpServers": {"notes": {"command": "x"}}}')
        (fault,) = self.faults()
        self.assertEqual(
            (fault.section, fault.file), ("server:notes", str(self.servers.absolute()))
        )
        self.assertIn(f"stands in {self.gate} as well", fault.text)

    def test_unreadable(self) -> None:
        """A file that is missing, no file of servers, or anybody's to write, is a fault."""
        self.write("hello")
        (fault,) = self.faults()
        self.assertEqual((fault.key, fault.line), ("include", 2))
        self.assertIn("names no server", fault.remedy)
        self.write(SERVERS)
        self.servers.chmod(0o666)
        self.assertIn("others than its owner", self.faults()[0].text)
        self.servers.unlink()
        self.assertIn("can not be read", self.faults()[0].text)
