"""Tests of ``mcpgate doctor``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mcpgate._version import __version__
from mcpgate.cli import doctor, make_parser
from mcpgate.cli.control_client import ControlClient
from mcpgate.cli.doctor import control, looks, owner_of
from mcpgate.config.model import Config, GateSection
from mcpgate.service.doctor.findings import Finding
from tests.cli.test_control_client import CommandCase, FakeConnection

GATE = """\
[gate]
listen = tcp:1:interface=127.0.0.1
state_dir = /nowhere/state
[auth:keys]
type = static
keys_file = /nowhere/keys
"""


class DoctorTests(CommandCase):
    """`mcpgate doctor`."""

    def doctor(self, text: str, *argv: str) -> int:
        """Run it on a configuration."""
        path = Path(self.mktemp())
        path.write_text(text)
        FakeConnection.answer = FileNotFoundError()
        arguments = make_parser().parse_args(["doctor", str(path), *argv])
        return int(arguments.run(arguments))

    def found(self, *findings: Finding) -> None:
        """Have this be found."""
        self.patch(doctor, "examine", lambda *_: findings)

    def test_lines(self) -> None:
        """One line for each look; only what fails makes it exit code 1."""
        good = Finding(check="clock", text="kept right")
        bad = Finding(check="port 1", level="warn", text="x\x1b", remedy="do it")
        self.found(good, bad)
        self.assertEqual(self.doctor(GATE), 0)
        self.assertEqual(
            self.out.getvalue(),
            "ok    gate: none is running\nok    clock: kept right\nWARN  port 1: x\\x1b -> do it\n",
        )
        self.found(Finding(check="engine", level="fail", text="silent"))
        self.assertEqual(self.doctor(GATE, "--quiet"), 1)
        self.assertTrue(self.out.getvalue().endswith("do it\nFAIL  engine: silent\n"))

    def test_json(self) -> None:
        """The same for programs."""
        self.found(Finding(check="clock", text="kept right"))
        self.doctor(GATE, "--format", "json", "--quiet")
        self.assertEqual(json.loads(self.out.getvalue()), [])
        self.doctor(GATE, "--format", "json")
        told = json.loads(self.out.getvalue()[3:])
        self.assertEqual(
            told[1], {"check": "clock", "level": "ok", "text": "kept right", "remedy": ""}
        )

    def test_bad_file(self) -> None:
        """A configuration that is refused is all there is to tell."""
        self.assertEqual(self.doctor("nonsense\n"), 2)
        self.assertIn("FAIL  configuration: ", self.out.getvalue())

    def ask(self, answer: object) -> tuple[list[Finding], int | None]:
        """Look for a gate."""
        if isinstance(answer, Exception):
            FakeConnection.answer = answer
        else:
            FakeConnection.answer = (200, json.dumps(answer).encode())
        self.state_dir = Path(self.mktemp())
        return control(
            Config(gate=GateSection(state_dir=self.state_dir)), ControlClient(Path("/x"))
        )

    def test_gate(self) -> None:
        """A gate that runs is told of, one of another version, one that is silent, and none."""
        (told,), pid = self.ask({"pid": 7, "version": __version__})
        self.assertEqual((told.level, pid), ("ok", 7))
        (told,), pid = self.ask({"pid": 7, "version": "0.0"})
        self.assertEqual((told.level, pid), ("warn", 7))
        (told,), pid = self.ask(TimeoutError())
        self.assertEqual((told.level, pid), ("fail", None))
        (told,), pid = self.ask(FileNotFoundError())
        self.assertEqual((told.text, pid), ("none is running", None))

    def test_documents(self) -> None:
        """A running gate's documents are told of: there, old, missing; a silent gate as well."""
        servers = [
            {"name": "a", "document": {"state": "fetched", "fetched_at": 1.0, "error": ""}},
            {"name": "b", "document": {"state": "copy", "fetched_at": 1.0, "error": "HTTP 404"}},
            {"name": "c", "document": {"state": "missing", "fetched_at": 0.0, "error": ""}},
            {"name": "d", "document": None},
        ]
        FakeConnection.answer = (200, json.dumps({"servers": servers}).encode())
        found = doctor.documents(ControlClient(Path("/x")))
        self.assertEqual([one.level for one in found], ["ok", "warn", "fail"])
        FakeConnection.answer = TimeoutError()
        (told,) = doctor.documents(ControlClient(Path("/x")))
        self.assertEqual(told.level, "fail")

    def test_gate_without_socket(self) -> None:
        """One that holds the state directory and has no socket fails."""
        from mcpgate.service.offline import OfflineError

        def held(path: Path) -> object:
            raise OfflineError("a gate holds it")

        self.patch(doctor, "holding", held)
        (told,), _ = self.ask(FileNotFoundError())
        self.assertEqual((told.level, told.text), ("fail", "a gate holds it"))

    def test_looks(self) -> None:
        """Listeners are only asked while a gate runs; every look here can be had."""
        config = Config(gate=GateSection(state_dir=Path("/nowhere")))
        names = set(looks(config, None))
        self.assertEqual(set(looks(config, os.getpid())) - names, {"answer at 8443"})
        self.assertEqual(owner_of(os.getpid()), os.geteuid())
        self.assertIsNone(owner_of(None))
        self.assertIsNone(owner_of(1 << 30))
        for name in names:
            for one in looks(config, None)[name]():
                self.assertIn(one.level, ("ok", "warn", "fail"), name)
