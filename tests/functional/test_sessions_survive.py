"""Clients keep their session id and go on working, whatever dies behind it."""

from __future__ import annotations

import os
import signal
import time
from http.client import HTTPException
from unittest import TestCase

from tests.functional.gate_process import (
    AT_ONCE_S,
    GATE,
    HTTP,
    NO_LIMITS,
    STDIO,
    GateProcess,
    children_of,
    processes_below,
    wait_for,
)
from tests.functional.mcp_client import Client

QUICK = "idle_stop = 1s\n"


class SurvivalTests(TestCase):
    """A gate with a stdio and an HTTP server."""

    def client(self, gate: GateProcess, server: str) -> Client:
        """Make a client that has shaken hands."""
        client = Client(gate, server, self.key)
        answer = client.initialize()
        self.assertEqual(answer.status, 200, answer.body)
        return client

    def begin(self, extra: str = "") -> GateProcess:
        """Start a gate with a key."""
        patient = GATE.replace("drain_timeout = 2s", "drain_timeout = 60s")
        gate = GateProcess(self, patient + NO_LIMITS + STDIO + extra + HTTP + extra)
        self.key = gate.add_key("joe")
        return gate.start()

    def assert_stopped(self, gate: GateProcess, pid: int) -> None:
        """Wait until a child has ended and was collected."""
        wait_for(lambda: pid not in children_of(gate.pid), "stopped")

    def is_kept(self, gate: GateProcess, text: bytes) -> bool:
        """Tell whether the store of sessions holds this."""
        return any(
            text in path.read_bytes()
            for path in (gate.directory / "state").glob("sessions.sqlite*")
        )

    def test_killed_gate(self) -> None:
        """After ``kill -9`` of the gate, clients call on with the ids they have."""
        gate = self.begin()
        clients = [self.client(gate, name) for name in ("io", "web")]
        clients[0].request("logging/setLevel", {"level": "error"})
        wait_for(lambda: self.is_kept(gate, b"error"), "it is written, behind the calls")
        waiting = [client.begin("slow", seconds=300) for client in clients]
        for client in clients:
            self.assertEqual(client.call("echo", message="before").text, "echo: before")
        gate.kill()
        for call in waiting:
            self.assertRaises((OSError, HTTPException), call.answer)
        wait_for(lambda: not processes_below(gate.directory), "no child is left")
        gate.start()
        for client in clients:
            self.assertEqual(client.call("echo", message="after").text, "echo: after")
        self.assertEqual(clients[0].call("level").text, "error")

    def test_killed_child(self) -> None:
        """A call in work when the server dies is told why; the next one works."""
        gate = self.begin()
        for name in ("io", "web"):
            client = self.client(gate, name)
            pid = int(client.call("pid").text)
            waiting = client.begin("slow", seconds=300)
            gate.wait_for_calls()
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            error = waiting.answer().error
            self.assertLess(time.monotonic() - began, AT_ONCE_S)
            self.assertEqual(error["code"], -31003, error)
            self.assertEqual(error["data"]["signal"], 9, error)
            self.assertEqual(client.call("echo", message="again").text, "echo: again")
            self.assertNotEqual(int(client.call("pid").text), pid)

    def test_last_words(self) -> None:
        """A server that ends by itself is quoted, with its exit code."""
        gate = self.begin()
        for name in ("io", "web"):
            client = self.client(gate, name)
            error = client.call("die").error
            self.assertEqual(error["code"], -31003)
            self.assertEqual(error["data"]["exitCode"], 3, error)
            self.assertIn("last words", str(error["data"]["stderr"]))
            self.assertEqual(client.call("echo", message="again").text, "echo: again")

    def test_forgotten_by_the_server(self) -> None:
        """A server that forgets its sessions is shaken hands with again, silently."""
        gate = self.begin()
        client = self.client(gate, "web")
        self.assertEqual(client.call("forget").text, "forgotten")
        self.assertEqual(client.call("echo", message="again").text, "echo: again")

    def test_idle_stop(self) -> None:
        """A server that was stopped for want of work is back with the next call."""
        gate = self.begin(QUICK)
        for name in ("io", "web"):
            client = self.client(gate, name)
            pid = int(client.call("pid").text)
            self.assert_stopped(gate, pid)
            self.assertNotEqual(int(client.call("pid").text), pid)

    def test_busy_is_not_idle(self) -> None:
        """A call in work keeps its server from being stopped."""
        gate = self.begin(QUICK)
        for name in ("io", "web"):
            client = self.client(gate, name)
            self.assertEqual(client.call("slow", seconds=3.5).text, "slow done")

    def test_nothing_is_left(self) -> None:
        """After SIGTERM there are no processes, no sockets and no files in the run folder."""
        gate = self.begin()
        clients = [self.client(gate, name) for name in ("io", "web")]
        with clients[0].listen() as stream:
            waiting = clients[0].begin("slow", seconds=1)
            gate.wait_for_calls()
            status = gate.stop()
            self.assertEqual(waiting.answer().text, "slow done")
            self.assertIn(b": open", stream.read())
        self.assertIn(status, (0, -signal.SIGTERM))
        self.assertEqual(processes_below(gate.directory), {})
        state = gate.directory / "state"
        self.assertEqual(list((state / "run").iterdir()), [])
        self.assertEqual([p for p in state.rglob("*") if p.is_socket()], [])
        self.assertEqual([p.name for p in state.rglob("*") if p.suffix in (".tmp", "-wal")], [])

    def test_no_zombies(self) -> None:
        """Children that end are collected."""
        gate = self.begin()
        client = self.client(gate, "io")
        for _ in range(3):
            client.call("die")
        client.call("echo", message="again")
        self.assertNotIn("Z", children_of(gate.pid).values())
