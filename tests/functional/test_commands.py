"""``mcpgate`` against a running gate."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from unittest import TestCase

from tests.functional.gate_process import (
    GATE,
    HTTP,
    MCPGATE,
    NO_LIMITS,
    STDIO,
    GateProcess,
    children_of,
    wait_for,
)
from tests.functional.mcp_client import Client, events


class CommandTests(TestCase):
    """A running gate and one user."""

    def setUp(self) -> None:
        """Start it."""
        self.gate = GateProcess(self, GATE + NO_LIMITS + STDIO + HTTP)
        self.key = self.gate.add_key("joe")
        self.gate.start()
        self.client = Client(self.gate, "io", self.key)
        self.client.initialize()

    def test_ps(self) -> None:
        """What runs is listed, as a table, as names and as JSON."""
        (one,) = self.gate.told("ps")
        self.assertEqual((one["server"], one["state"]), ("io", "running"))
        self.assertIn("running", self.gate.command("ps").stdout)
        self.assertEqual(
            self.gate.command("ps", "--format", "names").stdout.strip(), f"io/{one['owner']}"
        )

    def test_logs(self) -> None:
        """What a server writes to stderr is shown, without control characters."""
        self.client.call("log", text="a line \x1b[31m of the server")
        shown = wait_for(lambda: self.gate.command("logs", "io").stdout, "a line")
        self.assertIn("of the server", shown)
        self.assertNotIn("\x1b", shown)

    def test_sessions(self) -> None:
        """Sessions are listed without their ids."""
        ran = self.gate.command("sessions")
        self.assertIn("io", ran.stdout)
        self.assertNotIn(str(self.client.session), ran.stdout)

    def test_start(self) -> None:
        """What was stopped is started by hand: for somebody known, or with a key."""
        self.gate.command("stop", "--idle")
        self.assertEqual(self.gate.told("ps"), [])
        (one,) = self.gate.told("ps", "--all")
        self.assertEqual((one["state"], one["exit_reason"]), ("stopped", "stopped"))
        ran = self.gate.command("start", "io", "--user", "joe")
        self.assertEqual((ran.returncode, ran.stdout), (0, f"io/{one['owner']}\n"), ran.stderr)
        self.assertEqual(self.gate.command("start", "web", "--user", "ann").returncode, 1)
        (one,) = self.gate.told("ps")
        self.assertEqual((one["state"], one["starts"]), ("running", 2))

    def test_follow(self) -> None:
        """New lines are shown as they are written, also after a restart."""
        shown = self.gate.directory / "shown"
        with shown.open("wb") as file:
            follower = subprocess.Popen(
                [*MCPGATE, "logs", "io", "-f", "--config", str(self.gate.ini)],
                stdout=file,
                env=self.gate.environment(),
            )
        self.addCleanup(follower.wait, 10)
        self.addCleanup(follower.terminate)
        self.client.call("log", text="first words")
        wait_for(lambda: "first words" in shown.read_text(), "the first words")
        self.gate.command("stop", "io", "--all")
        self.client.call("log", text="second words")
        wait_for(lambda: "second words" in shown.read_text(), "the second words")
        self.assertEqual(shown.read_text().count("first words"), 1)

    def test_stop(self) -> None:
        """A stopped server is back with the next call, the session the same."""
        pid = int(self.client.call("pid").text)
        ran = self.gate.command("stop", "io", "--all")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertNotIn(pid, children_of(self.gate.pid))
        self.assertNotEqual(int(self.client.call("pid").text), pid)
        self.assertEqual(self.gate.command("stop", "web", "--all").returncode, 1)

    def test_doctor(self) -> None:
        """Where all is well nothing fails; a port somebody else took, and a program lost, do."""
        ran = self.gate.command("doctor")
        self.assertEqual(ran.returncode, 0, ran.stdout)
        self.assertIn("the gate is ready", ran.stdout)
        self.gate.stop()
        with socket.create_server(("127.0.0.1", self.gate.port)):
            text = self.gate.ini.read_text()
            self.gate.ini.write_text(text + "[server:lost]\ncommand = no-such-program\n")
            ran = self.gate.command("doctor", "--quiet")
        self.assertEqual(ran.returncode, 1)
        failing = [line for line in ran.stdout.splitlines() if line.startswith("FAIL")]
        self.assertEqual(len(failing), 2, ran.stdout)
        self.assertIn(f"(pid {os.getpid()})", failing[0])
        self.assertIn("no-such-program", failing[1])

    def test_health(self) -> None:
        """A gate that answers is well, asked by the command or by what health checks run."""
        lean = [sys.executable, "-P", "-m", "mcpgate.cli.health", "--config", str(self.gate.ini)]

        def asked() -> tuple[int, int]:
            ran = subprocess.run(lean, capture_output=True, check=False, timeout=30)
            return self.gate.command("health").returncode, ran.returncode

        self.assertEqual(asked(), (0, 0))
        self.gate.stop()
        self.assertEqual(asked(), (3, 3))

    def test_remove(self) -> None:
        """A server that is taken out is seen to be gone, at once and at every listener."""
        ran = self.gate.command("remove", "web", "--test")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertIn("web is gone.", ran.stdout)
        self.assertEqual(Client(self.gate, "web", self.key).initialize().status, 404)
        self.assertEqual(self.client.call("echo", message="x").text, "echo: x")

    def test_no_gate(self) -> None:
        """Exit code 3 where none runs."""
        self.gate.stop()
        for command in (("ps",), ("sessions",), ("logs", "io"), ("stop", "io", "--all")):
            self.assertEqual(self.gate.command(*command).returncode, 3)

    def test_new_key(self) -> None:
        """A key that is added works within seconds."""
        other = Client(self.gate, "io", self.gate.add_key("ann"))
        wait_for(lambda: other.initialize().status == 200, "the key is known")
        names = {one["name"] for one in self.gate.told("keys", "list")}
        self.assertEqual(names, {"joe", "ann"})

    def test_revoked_key(self) -> None:
        """A revoked key is refused within seconds, and its streams are closed."""
        with self.client.listen() as stream:
            self.client.call("list_changed")
            self.assertIn("list_changed", next(events(stream))["method"])
            self.assertEqual(self.gate.command("keys", "revoke", "joe").returncode, 0)
            refused = wait_for(
                lambda: self.client.call("pid").status == 401 or None, "the key is refused", 6
            )
            self.assertTrue(refused)
            stream.read()
        answer = self.client.call("pid")
        self.assertIn("Bearer", answer.fields["WWW-Authenticate"])

    def test_revoked_key_at_once(self) -> None:
        """SIGHUP has keys read at once."""
        self.gate.command("keys", "revoke", "joe")
        os.kill(self.gate.pid, signal.SIGHUP)
        wait_for(lambda: self.client.call("pid").status == 401, "the key is refused")
