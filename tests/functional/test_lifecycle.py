"""Starting, refusing to start, stopping, and what the gate shows of itself."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from unittest import TestCase

from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    PATIENT_S,
    STDIO,
    TWISTD,
    GateProcess,
    children_of,
    free_port,
    rest,
    wait_for,
)
from tests.functional.mcp_client import INITIALIZE, Client, Waiting

ADMIN = "\n[admin]\nuser = admin\npassword = canary-of-the-admin\n"


class RefusalTests(TestCase):
    """A gate that can not start says why, at once."""

    def run_gate(self, gate: GateProcess) -> subprocess.CompletedProcess[str]:
        """Run ``twistd`` until it ends."""
        return subprocess.run(
            [*TWISTD, "-n", "--pidfile=", "mcpgate", "--config", str(gate.ini)],
            capture_output=True,
            check=False,
            text=True,
            cwd=gate.directory,
            env=gate.environment(),
            timeout=PATIENT_S,
        )

    def test_bad_config(self) -> None:
        """``twistd`` and ``mcpgate check`` say the same, with exit status 2."""
        gate = GateProcess(self, GATE.replace("sweep = 1s", "sweep = soon\nlistne = x") + STDIO)
        ran = self.run_gate(gate)
        checked = gate.command("check", str(gate.ini), config=False)
        self.assertEqual((ran.returncode, checked.returncode), (2, 2))
        self.assertEqual(ran.stderr, checked.stderr)
        self.assertIn("sweep", ran.stderr)
        self.assertNotIn("Traceback", ran.stderr + ran.stdout)

    def test_port_in_use(self) -> None:
        """The port is named, and who holds it; nothing is left behind."""
        gate = GateProcess(self, GATE + STDIO)
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", gate.port))
            holder.listen()
            ran = self.run_gate(gate)
        told = ran.stdout + ran.stderr
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn(str(gate.port), told)
        self.assertIn(str(os.getpid()), told)
        self.assertNotIn("Traceback", told)

    def test_two_gates(self) -> None:
        """Two gates on one state directory would take each other's servers."""
        gate = GateProcess(self, GATE + STDIO).start()
        ran = self.run_gate(gate)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("another gate", ran.stdout + ran.stderr)
        self.assertNotIn("Traceback", ran.stdout + ran.stderr)
        self.assertEqual(gate.get("/ready").status, 200)


class AdminListenerTests(TestCase):
    """Statistics on a listener of their own."""

    def test_apart(self) -> None:
        """They are on the listener for administrators, and nowhere else."""
        port = free_port()
        admin = ADMIN + f"listen = tcp:{port}:interface=127.0.0.1\n"
        gate = GateProcess(self, GATE + STDIO + admin).start()
        self.assertEqual(gate.get("/stats").status, 404)
        for path, status in (("/stats", 401), ("/health", 200)):
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENT_S)
            connection.request("GET", path)
            self.assertEqual(connection.getresponse().status, status)
            connection.close()


class LifeTests(TestCase):
    """A running gate."""

    def setUp(self) -> None:
        """Start it."""
        patient = GATE.replace("drain_timeout = 2s", "drain_timeout = 60s")
        self.gate = GateProcess(self, patient + NO_LIMITS + STDIO + HTTP + ADMIN)
        self.key = self.gate.add_key("joe")
        self.gate.start()

    def basic(self, password: str) -> dict[str, str]:
        """Give the fields of an administrator."""
        return {"Authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}

    def test_pages(self) -> None:
        """Health and readiness are for everybody, statistics for administrators."""
        self.assertEqual(self.gate.get("/health").status, 200)
        self.assertEqual(self.gate.get("/ready").status, 200)
        for path in ("/stats", "/metrics"):
            self.assertEqual(self.gate.get(path).status, 401)
            self.assertEqual(self.gate.get(path, **self.basic("wrong")).status, 401)
            answer = self.gate.get(path, **self.basic("canary-of-the-admin"))
            self.assertEqual(answer.status, 200)

    def test_nothing_secret_is_told(self) -> None:
        """Keys, session ids, passwords and bodies appear nowhere outside."""
        places = []
        secrets = [self.key, "canary-of-the-admin", "canary-in-a-body"]
        for server in ("io", "web"):
            client = Client(self.gate, server, self.key)
            client.initialize()
            assert client.session is not None
            secrets.append(client.session)
            client.call("echo", message="canary-in-a-body")
            client.call("die")
            client.call("echo", message="canary-in-a-body")
            thief = Client(self.gate, server, "wrong-canary-in-a-key-0123456789")
            thief.session = client.session
            thief.call("echo", message="canary-in-a-body")
        secrets.append("wrong-canary")
        self.gate.get(f"/web/x?api_key={self.key}", X_API_Key=self.key)
        for path in ("/stats", "/stats?format=json", "/metrics"):
            answer = self.gate.get(path, **self.basic("canary-of-the-admin"))
            places.append(answer.body.decode())
        for arguments in (("ps",), ("sessions",), ("logs", "io"), ("ps", "--format", "json")):
            places.append(self.gate.command(*arguments).stdout)
        for pid in (self.gate.pid, *children_of(self.gate.pid)):
            places.append(Path(f"/proc/{pid}/cmdline").read_text())
        rest(1.2)
        places.append(self.gate.log_text())
        for place in places:
            for secret in secrets:
                self.assertNotIn(secret, place)
        self.assertIn("/io/mcp", self.gate.log_text())

    def test_impatient(self) -> None:
        """A second SIGTERM while calls end does no harm."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        waiting = client.begin("slow", seconds=1.2)
        self.gate.wait_for_calls(fields=self.basic("canary-of-the-admin"))
        for _ in range(3):
            os.kill(self.gate.pid, signal.SIGTERM)
            rest(0.1)
        self.assertEqual(waiting.answer().text, "slow done")
        self.gate.stop()

    def refuses(self) -> bool:
        """Tell whether it takes no new connection."""
        try:
            self.gate.get("/health")
        except OSError:
            return True
        return False

    def test_draining(self) -> None:
        """A gate that ends takes no new connections, and says so on those it has."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        waiting = client.begin("slow", seconds=5)
        self.gate.wait_for_calls(fields=self.basic("canary-of-the-admin"))
        os.kill(self.gate.pid, signal.SIGTERM)
        wait_for(self.refuses, "it takes no new connections")
        self.assertFalse(waiting.over)
        self.assertEqual(waiting.answer().text, "slow done")
        self.gate.stop()

    def test_calls_that_outlast_draining(self) -> None:
        """A call still in work when draining is over is refused in words, not cut off (R65)."""
        self.gate.stop()
        self.gate.write(GATE + NO_LIMITS + STDIO + HTTP + ADMIN)
        self.gate.start()
        for server in ("io", "web"):
            client = Client(self.gate, server, self.key)
            client.initialize()
            waiting = client.begin("slow", seconds=60)
            self.gate.wait_for_calls(fields=self.basic("canary-of-the-admin"))
            os.kill(self.gate.pid, signal.SIGTERM)
            self.assertIn(b"-31008", waiting.answer().body)
            self.gate.stop()
            self.gate.start()

    def test_stopped_in_the_middle_of_a_start(self) -> None:
        """A gate that is stopped while a server starts leaves nothing behind."""
        self.gate.stop()
        self.gate.write(GATE + NO_LIMITS + STDIO + "env.START_WHEN = <dir>/never\n")
        self.gate.start()
        client = Client(self.gate, "io", self.key)
        starting = Waiting(lambda: client.request("initialize", INITIALIZE))
        wait_for(lambda: children_of(self.gate.pid), "a start")
        self.gate.stop()
        with self.assertRaises((OSError, AssertionError)):
            self.assertEqual(starting.answer().status, 200)
