"""Two worker processes in front of a real gate."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from functools import partial
from typing import Any
from unittest import TestCase

from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    STDIO,
    GateProcess,
    processes_below,
    wait_for,
)
from tests.functional.mcp_client import Client

WORKERS = GATE.replace("[gate]\n", "[gate]\nworkers = 2\n")


class WorkerTests(TestCase):
    """What clients notice of workers, and what they must not."""

    def setUp(self) -> None:
        """Start a gate with a server on stdio and one on HTTP."""
        self.gate = GateProcess(self, WORKERS + STDIO + HTTP + NO_LIMITS)
        self.key = self.gate.add_key("ann")
        self.gate.start()

    def workers(self) -> list[dict[str, Any]]:
        """Tell of the workers as ``/stats`` does."""
        shown = json.loads(self.gate.get("/stats").body)["workers"]
        return [dict(worker) for worker in shown]

    def workers_told(self) -> list[dict[str, Any]]:
        """Tell of the workers once two accept; empty before, and when the asking fails."""
        return self.workers() if self.replaced() else []

    def replaced(self, *pids: int) -> bool:
        """Tell whether two workers accept that are none of these."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            workers = self.workers()
            return [worker["accepts"] for worker in workers] == [True, True] and not any(
                worker["pid"] in pids for worker in workers
            )
        return False

    def kill_worker(self, index: int = 0) -> int:
        """Kill a worker by its id; give the id."""
        pid = int(wait_for(self.workers_told, "workers")[index]["pid"])
        self.assertIn(pid, processes_below(self.gate.directory))
        os.kill(pid, signal.SIGKILL)
        return pid

    def test_calls(self) -> None:
        """Both take connections; a session goes on over any of them."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        lines = [self.gate.connection() for _ in range(16)]
        for line in lines:
            line.request("GET", "/health")
            self.assertEqual(line.getresponse().read()[:1], b"{")
        wait_for(
            lambda: all(worker["connections"] for worker in self.workers()),
            "both workers have connections",
        )
        for number in range(20):
            # A connection of its own for each.
            self.assertEqual(client.call("echo", message=str(number)).text, f"echo: {number}")
        for line in lines:
            line.close()

    def test_refused_by_a_worker(self) -> None:
        """What the owner never sees is in its log and its figures all the same."""
        before = json.loads(self.gate.get("/stats").body)["events"].get("http_reject", 0)
        with self.gate.socket() as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            self.assertTrue(line.recv(100).startswith(b"HTTP/1.1 400"))
        wait_for(
            lambda: (
                json.loads(self.gate.get("/stats").body)["events"].get("http_reject", 0) > before
            ),
            "it is counted",
        )
        wait_for(lambda: '"- - ' in self.gate.log_text() or " 400 " in self.gate.log_text(), "log")

    def test_nobody_speaks_for_a_worker(self) -> None:
        """The field by which workers tell of a client is not taken from one."""
        answer = self.gate.get("/health", **{"X-Mcpgate-Worker": "0 1 1 x 192.0.2.1"})
        self.assertEqual(answer.status, 200)
        wait_for(lambda: "/health" in self.gate.log_text(), "the access log")
        self.assertNotIn("192.0.2.1", self.gate.log_text())

    def test_killed_under_load(self) -> None:
        """Workers killed at random lose the calls on their own connections, and nothing else."""
        stop = threading.Event()
        told: list[list[str]] = [[] for _ in range(6)]
        clients = [Client(self.gate, "io" if n % 2 else "web", self.key) for n in range(6)]
        for client in clients:
            client.initialize()
        sessions = [client.session for client in clients]

        def load(client: Client, results: list[str]) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                try:
                    answer = client.call("echo", message=str(count))
                    right = answer.status == 200 and answer.text == f"echo: {count}"
                    results.append("ok" if right else f"wrong: {answer.body!r}")
                except (OSError, http.client.HTTPException):
                    results.append("cut")

        threads = [
            threading.Thread(target=load, args=pair) for pair in zip(clients, told, strict=True)
        ]
        for thread in threads:
            thread.start()
        killed = 0
        try:
            # After so many calls of each client, which of the two.
            for calls, index in ((5, 1), (12, 0), (31, 0), (40, 1)):
                wait_for(partial(_all_made, told, calls), "load")
                pid = self.kill_worker(index)
                killed += 1
                wait_for(partial(self.replaced, pid), "two workers again")
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        results = [result for one in told for result in one]
        self.assertEqual({result for result in results if result not in ("ok", "cut")}, set())
        self.assertGreater(killed, 2)
        # Each client has one call under way when a worker is killed.
        self.assertLessEqual(results.count("cut"), killed * len(clients))
        self.assertGreater(results.count("ok"), 50)
        for client, session in zip(clients, sessions, strict=True):
            self.assertEqual(client.session, session)
            self.assertEqual(client.call("echo", message="end").text, "echo: end")
        self.assertIn("another takes its place", self.gate.log_text())

    def test_all_dead(self) -> None:
        """While no worker is there the owner takes connections."""
        pids = [int(worker["pid"]) for worker in self.workers()]
        client = Client(self.gate, "io", self.key)
        client.initialize()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.answered(client), "an answer")
        wait_for(partial(self.replaced, *pids), "two workers again")

    def answered(self, client: Client) -> bool:
        """Tell whether a call is answered."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return client.call("echo", message="x").text == "echo: x"
        return False

    def test_owner_killed(self) -> None:
        """Workers do not outlive the owner; the next gate has the sessions."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        self.gate.kill()
        wait_for(lambda: not processes_below(self.gate.directory), "the end of all")
        self.gate.start()
        self.assertEqual(client.call("echo", message="x").text, "echo: x")

    def test_orderly_end(self) -> None:
        """A call in work ends before its worker does."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        call = client.begin("slow", seconds=0.8)
        wait_for(lambda: json.loads(self.gate.get("/stats").body)["traffic"]["calls_in_work"], "it")
        assert self.gate.process is not None
        self.gate.process.send_signal(signal.SIGTERM)
        self.assertEqual(call.answer().status, 200)
        self.gate.process.wait(20)
        self.assertEqual(processes_below(self.gate.directory), {})


def _all_made(told: list[list[str]], calls: int) -> bool:
    return all(len(results) > calls for results in told)
