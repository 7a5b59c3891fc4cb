"""Tests of ``mcpgate capacity``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcpgate.cli import capacity, make_parser
from mcpgate.cli.capacity import mean, measure
from mcpgate.cli.control_client import ControlClient
from mcpgate.model import MIB
from mcpgate.service.machine import MachineFiles
from mcpgate.service.sizing import Use
from tests.cli.test_control_client import CommandCase

GATE = """\
[gate]
listen = tcp:1:interface=127.0.0.1
state_dir = /nowhere
[auth:keys]
type = static
keys_file = /nowhere/keys
"""
SERVERS = """\
[server:notes]
command = /bin/true
transport = stdio
[server:time]
command = /bin/true
transport = stdio
"""


def copy(server: str, **more: Any) -> dict[str, Any]:
    """Make an instance as the gate tells of it."""
    base = {"server": server, "state": "running", "memory_bytes": 64 * MIB, "cpu_s": 6.0}
    return {**base, "uptime_s": 60.0, "processes": 3, **more}


class FakeGate(ControlClient):
    """A gate that answers what the test says."""

    def __init__(self, instances: list[dict[str, Any]]) -> None:
        super().__init__(Path("/nowhere"))
        self.instances = instances

    def get(self, target: str, timeout_s: float = 1.0) -> dict[str, Any]:
        """See `ControlClient.get`."""
        return {"pid": 7} if target == "/version" else {"instances": self.instances}


class CapacityTests(CommandCase):
    """`mcpgate capacity`."""

    def capacity(self, text: str, *argv: str, gate: FakeGate | None = None) -> int:
        """Run it."""
        if gate is not None:
            self.patch(capacity, "ControlClient", lambda _: gate)
        else:
            self.patch(capacity, "ControlClient", ControlClient)
        self.patch(MachineFiles, "memory", lambda _: (4096 * MIB, 3000 * MIB))
        self.patch(MachineFiles, "resident", lambda _, pid: 70 * MIB)
        self.patch(MachineFiles, "cpus", lambda _: 4.0)
        path = Path(self.mktemp())
        path.write_text(text)
        arguments = make_parser().parse_args(["capacity", str(path), *argv])
        return int(arguments.run(arguments))

    def answering(self, error: Exception) -> None:
        """Have the socket be like this."""
        from tests.cli.test_control_client import FakeConnection

        FakeConnection.answer = error

    def test_without_gate(self) -> None:
        """Without a gate limits are counted, and it is said that nothing was measured."""
        self.answering(FileNotFoundError())
        self.assertEqual(self.capacity(GATE + SERVERS), 0)
        text = self.out.getvalue()
        self.assertIn("Memory 4096M, other programs 1096M, gate (assumed) 100M", text)
        self.assertRegex(text, r"notes +256M +0.30 +11 +memory +processors 13 +a larger machine")
        self.assertRegex(text, r"each of them +512M +0.60 +5 +memory")
        self.assertIn("No gate runs here", text)
        self.assertRegex(text, r"4G +3646M +7 +-")

    def test_measured(self) -> None:
        """With a gate, what servers were seen to use is counted as well."""
        gate = FakeGate([copy("notes"), copy("notes", memory_bytes=32 * MIB), copy("time")])
        self.assertEqual(self.capacity(GATE + SERVERS, gate=gate), 0)
        text = self.out.getvalue()
        self.assertIn("gate 70M", text)
        self.assertRegex(text, r"notes +48M +0.10 +40 +processors")
        self.assertRegex(text, r"each of them +112M +0.20 +20 +processors +memory 28 .* 1\n")

    def test_nothing_runs(self) -> None:
        """A gate nobody uses gives nothing to measure."""
        self.capacity(GATE + SERVERS, gate=FakeGate([copy("time", state="stopped")]))
        self.assertIn("No server runs", self.out.getvalue())

    def test_json(self) -> None:
        """The same for programs."""
        self.capacity(GATE + SERVERS, "--format", "json", gate=FakeGate([copy("time")]))
        told = json.loads(self.out.getvalue())
        self.assertEqual(told["machine"]["gate_bytes"], 70 * MIB)
        self.assertEqual(
            [(row["name"], row["measured"] is None) for row in told["rows"]],
            [("notes", True), ("time", False), ("each of them", True)],
        )
        self.assertEqual(len(told["sizes"]), 5)

    def test_refused(self) -> None:
        """A bad file is told of; a gate that does not answer is only not measured."""
        self.assertEqual(self.capacity("nonsense"), 2)
        self.answering(TimeoutError())
        self.assertEqual(self.capacity(GATE), 0)
        self.assertIn("not measured", self.err.getvalue())
        self.assertIn("nothing to count", self.out.getvalue())

    def test_mean(self) -> None:
        """Processors count only where a copy ran for a while, processes where they are known."""
        young = copy("x", uptime_s=1.0, processes=None)
        self.assertEqual(mean([young]), Use(memory_bytes=64.0 * MIB, seen=1))
        pid, seen, used = measure(FakeGate([young, copy("x", memory_bytes=None)]))
        self.assertEqual((pid, seen["x"].seen, used), (7, 1, 64 * MIB))
