"""What nobody means well by, on the real TLS listener."""

from __future__ import annotations

import json
import ssl
from unittest import TestCase

from tests.functional.gate_process import GATE, HTTP, NO_LIMITS, STDIO, GateProcess, wait_for
from tests.functional.mcp_client import Client

BOUNDS = """
header_timeout = 4s
body_timeout = 4s
body_min_rate = 1KiB/s
slow_reader_timeout = 2s
idle_timeout = 6s
sse_keepalive = 1s
max_body = 64KiB
max_header = 4KiB
"""


class AttackTests(TestCase):
    """A gate with small bounds; whatever comes, it goes on serving others."""

    def setUp(self) -> None:
        """Start it."""
        text = GATE.replace("sweep = 1s\n", "sweep = 1s" + BOUNDS)
        self.gate = GateProcess(self, text + NO_LIMITS + STDIO + HTTP)
        self.key = self.gate.add_key("joe")
        self.gate.start()
        self.client = Client(self.gate, "io", self.key)
        self.client.initialize()
        self.addCleanup(self.assert_serves)

    def assert_serves(self) -> None:
        """Check that honest clients are served as before."""
        if self.gate.process is not None and self.gate.process.poll() is None:
            self.assertEqual(self.client.call("echo", message="x").text, "echo: x")

    def send(self, *pieces: bytes) -> bytes:
        """Send raw bytes and read until the gate closes the connection."""
        line = self.gate.socket()
        got = b""
        try:
            for piece in pieces:
                line.sendall(piece)
            while block := line.recv(65536):
                got += block
        except (ConnectionError, ssl.SSLError):
            pass
        return got

    def head(self, *fields: str, line: str = "POST /io/mcp HTTP/1.1") -> bytes:
        """Write a head of a caller who has a key."""
        common = (
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.key}",
            f"Mcp-Session-Id: {self.client.session}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
        )
        return "\r\n".join([line, *common, *fields, "", ""]).encode()

    def status(self, answer: bytes) -> int:
        """Give the status of the first answer."""
        return int(answer[9:12] or b"0")

    def test_slow_head(self) -> None:
        """A head that does not end is cut off in time."""
        answer = self.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        self.assertIn(self.status(answer), (0, 408))

    def test_slow_body(self) -> None:
        """A body that does not come is refused in time."""
        answer = self.send(self.head("Content-Length: 1000"), b"{")
        self.assertEqual(self.status(answer), 408)

    def test_slow_reader(self) -> None:
        """Who never reads a large answer is cut off."""
        line = self.gate.socket()
        line.sendall(self.head(line="GET /web/flood HTTP/1.1"))
        wait_for(lambda: self.gate.event("slow_reader"), "it is cut off")
        with self.assertRaises((ConnectionError, ssl.SSLError)):
            while line.recv(1 << 20):
                pass
            raise ConnectionResetError

    def test_idle_connection(self) -> None:
        """Who says nothing is not kept."""
        self.assertIn(self.status(self.send()), (0, 408))

    def test_oversized(self) -> None:
        """Lines, heads, bodies and declared lengths have bounds, each with its status."""
        long = "x" * 9000
        self.assertEqual(self.status(self.send(self.head(line=f"GET /{long} HTTP/1.1"))), 414)
        self.assertEqual(self.status(self.send(self.head(f"X-Long: {long}"))), 431)
        self.assertEqual(self.status(self.send(self.head("Content-Length: 100000"))), 413)
        chunks = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        answer = self.send(self.head("Transfer-Encoding: chunked"), chunks * 3)
        self.assertEqual(self.status(answer), 413)
        many = [f"X-{n}: y" for n in range(150)]
        self.assertEqual(self.status(self.send(self.head(*many))), 431)

    def test_smuggling(self) -> None:
        """Heads two readers could read differently are refused and the connection is closed."""
        body = b"0\r\n\r\nGET /web/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        length = f"Content-Length: {len(body)}"
        for fields in (
            (length, "Transfer-Encoding: chunked"),
            ("Content-Length: 4", "Content-Length: 5"),
            ("Content-Length: +4",),
            ("Content-Length: 0x4",),
            ("Content-Length: 4, 4",),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
            ("Transfer-Encoding: xchunked",),
            ("Transfer-Encoding : chunked",),
            ("Transfer-Encoding:\x0bchunked",),
            (length, "X: a\n\nGET / HTTP/1.1"),
            (length, " folded: yes"),
            ("Host: evil.example", length),
        ):
            answer = self.send(self.head(*fields) + body)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1, (fields, answer))
            self.assertIn(self.status(answer), (400, 501), fields)
            self.assertNotIn(b"smuggled", answer)

    def test_bad_chunks(self) -> None:
        """Chunk sizes are read strictly."""
        for chunk in (b"-1\r\n", b"0x5\r\nhello\r\n", b"fffffffffffffffff\r\n", b"5\nhello\n"):
            answer = self.send(self.head("Transfer-Encoding: chunked"), chunk)
            self.assertIn(self.status(answer), (400, 413), chunk)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)

    def test_bad_json(self) -> None:
        """Bodies that are no message get an error, never an internal one."""
        deep = b"[" * 20000 + b"]" * 20000
        for body in (b"", b"{", b"null", b"[]", b"\xff", deep, b'{"jsonrpc":"1.0"}', b"1e999"):
            answer = self.client.ask("POST", body)
            self.assertIn(answer.status, (200, 400), body[:20])
            self.assertNotEqual(answer.error["code"], -32603)
        number = b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}'
        self.assertIn(self.client.ask("POST", number).status, (200, 400))

    def test_hostile_fields(self) -> None:
        """Session ids and versions are data, whatever they hold."""
        for value in ("../../etc/passwd", "x" * 3000, "%00", "a b", "é"):
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
            kept, self.client.session = self.client.session, None
            answer = self.client.ask("POST", body, **{"Mcp-Session-Id": value})
            self.client.session = kept
            self.assertIn(answer.status, (400, 404), value)

    def test_plain_text_on_tls(self) -> None:
        """Plain HTTP on the TLS port is told nothing and does no harm."""
        from socket import create_connection

        with create_connection(("127.0.0.1", self.gate.port), 60) as line:
            line.sendall(b"GET / HTTP/1.1\r\n\r\n")
            line.settimeout(60)
            try:
                self.assertNotIn(b"200", line.recv(1000))
            except ConnectionError:
                pass
