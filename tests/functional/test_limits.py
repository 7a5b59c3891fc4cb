"""What one key may use, and how a client is told that it was too much."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from unittest import TestCase

from tests.functional.gate_process import GATE, HTTP, STDIO, GateProcess, rest, wait_for
from tests.functional.mcp_client import Client


class LimitTests(TestCase):
    """A gate with the limits it has by default, or smaller ones."""

    def begin(self, text: str = STDIO + HTTP) -> tuple[GateProcess, str]:
        """Start a gate with one key."""
        gate = GateProcess(self, GATE + text)
        key = gate.add_key("joe")
        return gate.start(), key

    def test_burst(self) -> None:
        """Of sixty calls at once forty pass, and the session lives on."""
        gate, key = self.begin()
        client = Client(gate, "io", key, plain=True)
        client.initialize()
        client.call("echo", message="warm")
        rest(2.5)  # the bucket is full again
        began = time.monotonic()
        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(lambda _: client.call("echo", message="x"), range(60)))
        took_s = time.monotonic() - began
        self.assertEqual({answer.status for answer in answers}, {200})
        refused = [answer for answer in answers if "error" in answer.message]
        passed = len(answers) - len(refused)
        self.assertGreaterEqual(passed, 40)
        self.assertLessEqual(passed, 41 + 20 * took_s)
        for answer in refused:
            self.assertEqual(answer.error["code"], -31006)
            self.assertIsInstance(answer.message["id"], int)
            self.assertGreaterEqual(int(answer.fields["Retry-After"]), 1)
            self.assertGreater(answer.error["data"]["retryAfterMs"], 0)
        rest(1)
        self.assertEqual(client.call("echo", message="later").text, "echo: later")

    def test_neighbours(self) -> None:
        """A key that is over its limit takes nothing from another one."""
        gate = GateProcess(
            self, GATE + STDIO + "\n[limits]\nper_key = 1/s\nburst = 5\nstart_cost = 1\n"
        )
        keys = [gate.add_key(name) for name in ("ann", "ben")]
        gate.start()
        clients = [Client(gate, "io", key) for key in keys]
        for client in clients:
            client.initialize()
        rest(5)
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: clients[0].call("echo", message="x"), range(40)))
        errors = [answer.error for answer in answers if "error" in answer.message]
        self.assertEqual({error["code"] for error in errors}, {-31006})
        self.assertEqual(clients[1].call("echo", message="mine").text, "echo: mine")

    def test_concurrency(self) -> None:
        """More calls in work than a key may have are refused; others go on."""
        gate, key = self.begin(STDIO + "\n[limits]\nconcurrent_per_key = 2\n")
        client = Client(gate, "io", key)
        client.initialize()
        slow = [client.begin("slow", seconds=8) for _ in range(2)]
        gate.wait_for_calls(2)
        self.assertEqual(client.call("echo", message="x").error["code"], -31005)
        for call in slow:
            self.assertEqual(call.answer().text, "slow done")
        self.assertEqual(client.call("echo", message="x").text, "echo: x")

    def test_server_rate(self) -> None:
        """A server's own rate holds for all keys together."""
        gate, key = self.begin(STDIO + "rate = 1/s\nburst = 5\n")
        client = Client(gate, "io", key)
        client.initialize()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: client.call("echo", message="x"), range(40)))
        errors = [answer.error for answer in answers if "error" in answer.message]
        self.assertEqual({error["code"] for error in errors}, {-31006})
        self.assertEqual({answer.status for answer in answers}, {200})

    def test_relay_is_limited_too(self) -> None:
        """Other paths of a server are refused with 429 and Retry-After."""
        gate, key = self.begin(HTTP + "\n[limits]\nper_key = 1/s\nburst = 3\nstart_cost = 1\n")
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: gate.get("/web/get", X_API_Key=key), range(40)))
        refused = [answer for answer in answers if answer.status != 200]
        self.assertEqual({answer.status for answer in refused}, {429})
        self.assertGreaterEqual(int(refused[0].fields["Retry-After"]), 1)

    def test_wrong_keys(self) -> None:
        """An address that tries many keys is locked out; a good key still passes."""
        gate, key = self.begin(STDIO)
        client = Client(gate, "io", key)
        client.initialize()
        with ThreadPoolExecutor(4) as pool:
            tried = list(
                pool.map(lambda n: Client(gate, "io", f"wrong{n}").call("echo").status, range(40))
            )
        self.assertIn(401, tried)
        self.assertEqual(tried[-1], 429)
        self.assertEqual(client.call("echo", message="x").text, "echo: x")

    def test_streams(self) -> None:
        """A key may have so many streams open; a second one of a session replaces the first."""
        streams = GATE.replace("sweep = 1s", "sweep = 1s\nstreams_per_key = 2")
        gate = GateProcess(self, streams + STDIO)
        key = gate.add_key("joe")
        gate.start()
        clients = [Client(gate, "io", key) for _ in range(3)]
        for client in clients:
            client.initialize()
        with clients[0].listen() as first, clients[1].listen() as second:
            self.assertEqual((first.status, second.status), (200, 200))
            with clients[2].listen() as third:
                self.assertEqual(third.status, 503)

        def room() -> bool:
            with clients[2].listen() as third:
                return third.status == 200

        wait_for(room, "there is room again")

    def test_sessions_per_key(self) -> None:
        """The oldest idle session makes room for a new one."""
        few = GATE.replace("sweep = 1s", "sweep = 1s\nsessions_per_key = 2")
        gate = GateProcess(self, few + STDIO)
        key = gate.add_key("joe")
        gate.start()
        clients = [Client(gate, "io", key) for _ in range(3)]
        for client in clients:
            self.assertEqual(client.initialize().status, 200)
        self.assertEqual(clients[0].call("echo", message="x").status, 404)
        self.assertEqual(clients[1].call("echo", message="x").text, "echo: x")

    def test_connections(self) -> None:
        """Connections of one address beyond its share are refused; the others work on."""
        few = GATE.replace("sweep = 1s", "sweep = 1s\nmax_connections_per_address = 5")
        gate = GateProcess(self, few + STDIO)
        gate.start()
        rest(0.5)  # for the connections of whoever asked whether it is ready to be over
        kept = [gate.connection(plain=True) for _ in range(5)]
        for connection in kept:
            connection.connect()
        wait_for(lambda: self.ask_once(gate) == 503, "one too many is refused")
        for connection in kept:
            connection.request("GET", "/health")
            self.assertEqual(connection.getresponse().read()[:1], b"{")
            connection.close()
        wait_for(lambda: self.ask_once(gate) == 200, "there is room again")

    def ask_once(self, gate: GateProcess) -> int:
        """Ask on a connection of its own."""
        connection = gate.connection(plain=True)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        finally:
            connection.close()
