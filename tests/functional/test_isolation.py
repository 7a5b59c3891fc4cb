"""What belongs to one user is never seen by another."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import TestCase

from tests.functional.gate_process import (
    COVERED,
    GATE,
    HTTP,
    NO_LIMITS,
    STDIO,
    Answer,
    GateProcess,
    children_of,
)
from tests.functional.mcp_client import Client, events

LOAD = Path(__file__).parent / "load.py"
CALLS = 2000 if COVERED else 10_000


def comparable(answer: Answer) -> tuple[int, list[tuple[str, str]], str]:
    """Give everything of an answer but what differs each time: the date and the request's id."""
    fields = [
        (name.lower(), value)
        for name, value in answer.fields.items()
        if name.lower() not in ("date", "x-request-id")
    ]
    own = answer.fields["x-request-id"]
    return answer.status, fields, answer.body.decode().replace(own, "ID".ljust(len(own), "-"))


class IsolationTests(TestCase):
    """Two users, their sessions and their servers."""

    def begin(self, text: str = STDIO + HTTP, extra: str = "") -> GateProcess:
        """Start a gate with keys for two users."""
        gate = GateProcess(self, GATE + NO_LIMITS + text + extra)
        self.keys = [gate.add_key(name) for name in ("ann", "ben")]
        return gate.start()

    def test_own_instances(self) -> None:
        """Each user has a server of its own, started with its own key."""
        gate = self.begin()
        for server in ("io", "web"):
            clients = [Client(gate, server, key) for key in self.keys]
            for client, user in zip(clients, ("ann", "ben"), strict=True):
                client.initialize()
                self.assertEqual(client.call("env", of="X_KEY").text, client.key)
                self.assertEqual(client.call("env", of="X_USER").text, user)
            self.assertNotEqual(clients[0].call("pid").text, clients[1].call("pid").text)
            again = Client(gate, server, self.keys[0])
            again.initialize()
            self.assertEqual(again.call("pid").text, clients[0].call("pid").text)
            self.assertEqual(clients[0].call("env", of="HOME").text.count(self.keys[0]), 0)

    def test_nothing_of_the_gate(self) -> None:
        """A server sees nothing of the gate's own environment."""
        gate = self.begin()
        client = Client(gate, "io", self.keys[0])
        client.initialize()
        for name in ("PYTHONPATH", "COVERAGE_PROCESS_CONFIG"):
            self.assertEqual(client.call("env", of=name).text, "unset")

    def test_stolen_session(self) -> None:
        """A foreign session id is answered exactly as one that never was."""
        gate = self.begin()
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}).encode()
        for server in ("io", "web"):
            owner, thief = (Client(gate, server, key) for key in self.keys)
            owner.initialize()
            thief.initialize()
            assert owner.session is not None
            unknown = ("A" if owner.session[0] != "A" else "B") + owner.session[1:]
            for method, sent in (("POST", body), ("GET", None), ("DELETE", None)):
                answers = []
                for session in (owner.session, unknown):
                    thief.session = session
                    answers.append(comparable(thief.ask(method, sent)))
                self.assertEqual(answers[0], answers[1])
                self.assertEqual(answers[0][0], 404, answers[0])
            self.assertEqual(owner.call("echo", message="mine").text, "echo: mine")

    def test_session_of_another_server(self) -> None:
        """A session id is of no use at another server of the same user."""
        gate = self.begin()
        client = Client(gate, "io", self.keys[0])
        client.initialize()
        other = Client(gate, "web", self.keys[0])
        other.session = client.session
        self.assertEqual(other.call("echo", message="x").status, 404)

    def test_same_ids(self) -> None:
        """Fifty clients that all use id 1 never see another's answer."""
        gate = self.begin()
        keys = gate.directory / "load.keys"
        keys.write_text("\n".join(self.keys))
        for server in ("io", "web"):
            ran = subprocess.run(
                [sys.executable, str(LOAD), str(gate.plain_port), server, str(keys), str(CALLS)],
                capture_output=True,
                check=False,
                text=True,
                timeout=120,
            )
            self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
            self.assertEqual(json.loads(ran.stdout), {"answers": CALLS, "wrong": 0})

    def test_per_session(self) -> None:
        """With ``per-session`` two sessions of one key have two servers, which end with them."""
        gate = self.begin(extra="isolation = per-session\n")
        first, second = (Client(gate, "web", self.keys[0]) for _ in range(2))
        for client in (first, second):
            client.initialize()
        pids = [int(client.call("pid").text) for client in (first, second)]
        self.assertNotEqual(*pids)
        self.assertEqual(first.ask("DELETE").status, 200)
        self.assertEqual(int(second.call("pid").text), pids[1])
        self.assertEqual(first.call("pid").status, 404)

    def test_shared(self) -> None:
        """With ``shared`` all users have one server, and still sessions of their own."""
        io = STDIO.replace("env.X_KEY = {key}\n", "").replace("env.X_USER = {user}\n", "")
        gate = self.begin(io + "isolation = shared\n")
        clients = [Client(gate, "io", key) for key in self.keys]
        for client in clients:
            client.initialize()
        self.assertEqual(clients[0].call("pid").text, clients[1].call("pid").text)
        self.assertEqual(len(children_of(gate.pid)), 1)
        thief = Client(gate, "io", self.keys[1])
        thief.session = clients[0].session
        self.assertEqual(thief.call("echo", message="x").status, 404)

    def test_messages_of_the_server(self) -> None:
        """What a user's server says reaches the streams of that user only."""
        gate = self.begin()
        ann, ben = (Client(gate, "io", key) for key in self.keys)
        ann.initialize()
        ben.initialize()
        with ann.listen() as mine, ben.listen() as other:
            self.assertEqual(
                ann.call("log", text="for ann alone").messages[0]["params"]["data"], "for ann alone"
            )
            told = ben.call("log", text="for ben alone")
            self.assertNotIn(b"ann", told.body)
            ann.call("list_changed")
            self.assertEqual(next(events(mine))["method"], "notifications/tools/list_changed")
            gate.stop()
            self.assertNotIn(b"list_changed", other.read())

    def test_cold_start_of_twenty(self) -> None:
        """Twenty users who come at once are all served, four starts at a time."""
        gate = GateProcess(self, GATE + NO_LIMITS + STDIO)
        keys = gate.add_keys(20)
        gate.start()

        def serve(key: str) -> str:
            client = Client(gate, "io", key)
            client.initialize()
            return client.call("env", of="X_KEY").text

        with ThreadPoolExecutor(20) as pool:
            self.assertEqual(list(pool.map(serve, keys)), keys)
        self.assertEqual(len(children_of(gate.pid)), 20)
