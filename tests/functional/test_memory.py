"""How much memory the gate needs while much passes through it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from unittest import TestCase

from tests.functional.gate_process import (
    COVERED,
    GATE,
    HTTP,
    NO_LIMITS,
    STDIO,
    GateProcess,
    rest,
    wait_for,
)
from tests.functional.mcp_client import Client

MIB = 1 << 20
SIZE = 100 * MIB
BLOCK = b"u" * (1 << 16)
# Measured: 61 to 63; what Twisted, OpenSSL and 280 modules of ours take.
IDLE_MIB = 67
BUSY_MIB = 78


class MemoryTests(TestCase):
    """A gate that has just started, and what it needs beyond."""

    def setUp(self) -> None:
        """Start it."""
        self.gate = GateProcess(self, GATE + NO_LIMITS + STDIO + HTTP)
        self.key = self.gate.add_key("joe")
        self.gate.start()
        self.idle = self.gate.memory()

    def assert_bounded(self) -> None:
        """Check the most it ever needed; under coverage, the most beyond idling."""
        most = self.gate.memory("VmHWM")
        self.assertLess(most - self.idle if COVERED else most, 24 if COVERED else BUSY_MIB)

    def blocks(self) -> Iterator[bytes]:
        """Give a large body, block by block."""
        for _ in range(SIZE // len(BLOCK)):
            yield BLOCK

    def test_large_bodies(self) -> None:
        """100 MiB up and 100 MiB down pass without being held."""
        if not COVERED:
            self.assertLess(self.idle, IDLE_MIB)
        connection = self.gate.connection(timeout_s=60)
        fields = {"X-API-Key": self.key, "Content-Length": str(SIZE)}
        connection.request("POST", "/web/up", body=self.blocks(), headers=fields)
        told = json.loads(connection.getresponse().read())
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        self.assertEqual((told["bytes"], told["sha256"]), (SIZE, digest.hexdigest()))
        connection.request("GET", f"/web/download/{SIZE}", headers={"X-API-Key": self.key})
        response = connection.getresponse()
        got = 0
        while block := response.read(1 << 16):
            got += len(block)
        self.assertEqual(got, SIZE)
        connection.close()
        self.assert_bounded()

    def test_slow_readers(self) -> None:
        """Clients that do not read make the server wait, not the gate hold everything."""
        connections = []
        for _ in range(10):
            connection = self.gate.connection()
            connection.request("GET", "/web/flood", headers={"X-API-Key": self.key})
            connections.append(connection.getresponse())
        rest(3)
        for response in connections:
            self.assertTrue(response.readline())
        rest(1)
        self.assertEqual(self.gate.get("/health").status, 200)
        for response in connections:
            response.close()
        self.assert_bounded()

    def test_large_answers_of_slow_readers(self) -> None:
        """Large answers of a stdio server are held once, and let go when the client leaves."""
        client = Client(self.gate, "io", self.key)
        client.initialize()
        self.assertEqual(len(client.call("big", size=2 * MIB).text), 2 * MIB)
        self.assertEqual(len(client.call("big", size=2 * MIB).text), 2 * MIB)
        self.assertEqual(client.call("echo", message="x").text, "echo: x")

    def test_many_sessions(self) -> None:
        """Sessions and connections that have ended give their memory back."""

        def use() -> None:
            for _ in range(25):
                client = Client(self.gate, "io", self.key)
                client.initialize()
                client.call("echo", message="x")
                client.ask("DELETE")

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted = wait_for(lambda: self.gate.told("sessions") == [], "no session is left")
        self.assertTrue(counted)
        self.assert_bounded()
