"""
A real gate in a process of its own, and a blocking client to try it with.

The tests that use these block: what they test runs elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import TestCase

SERVERS = Path(__file__).parent / "servers"
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GateProcess:
    """
    ``twistd -n mcpgate`` with a configuration and a state directory of its own.

    :param text: the configuration; ``<port>``, ``<dir>``, ``<python>`` and ``<servers>`` are
        filled in.
    """

    def __init__(self, case: TestCase, text: str, *, prefix: str = "mcpgate-test-") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=prefix))
        case.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        case.addCleanup(self.kill)
        self.port = free_port()
        self.ini = self.directory / "gate.ini"
        self.write(text)
        self.log = self.directory / "gate.log"
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, text: str) -> None:
        """Write the configuration."""
        values = {
            "port": str(self.port),
            "dir": str(self.directory),
            "python": sys.executable,
            "servers": str(SERVERS),
        }
        for name, value in values.items():
            text = text.replace("<" + name + ">", value)
        self.ini.write_text(text)
        self.ini.chmod(0o600)

    def add_key(self, name: str) -> str:
        """Make a key in the keys file of the gate."""
        made = subprocess.run(
            [*MCPGATE, "keys", "add", name, "--config", str(self.ini), "--format", "json"],
            check=True,
            capture_output=True,
            env=self._environment(),
        )
        return str(json.loads(made.stdout)["key"])

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*TWISTD, "-n", "--pidfile=", "mcpgate", "--config", str(self.ini)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                env=self._environment(),
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the gate ended:\n{self.log_text()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/ready").status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the gate does not answer:\n{self.log_text()}")

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k.startswith(("COVERAGE", "PATH", "LANG"))}
        return {**kept, "HOME": str(self.directory), "PYTHONPATH": os.pathsep.join(sys.path)}

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """Ask it to end, and give its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def log_text(self) -> str:
        """Give what it logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def certificate(self) -> Path:
        """Where its self-signed certificate lies."""
        found = sorted(self.directory.glob("state/**/*.pem"))
        return next(p for p in found if b"BEGIN CERTIFICATE" in p.read_bytes())

    def connection(self, timeout_s: float = 30.0) -> http.client.HTTPSConnection:
        """Open a connection that trusts the gate's certificate."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, timeout=timeout_s
        )

    def get(self, path: str, **fields: str) -> http.client.HTTPResponse:
        """GET a page; its body is in ``.body``."""
        try:
            connection = self.connection()
        except StopIteration:
            raise OSError("no certificate yet") from None
        connection.request("GET", path, headers=fields)
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]  # for the tests
        connection.close()
        return response

    def client(self, path: str, key: str) -> Client:
        """Make a client of one MCP endpoint."""
        return Client(self, path, key)


class Answer:
    """What one POST brought: status, fields, and the JSON-RPC messages in it."""

    def __init__(self, status: int, fields: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, whether they came as JSON or as events."""
        if (self.fields.get("content-type") or "").startswith("text/event-stream"):
            blocks = self.body.decode().replace("\r\n", "\n").split("\n\n")
            lines = [line for block in blocks for line in block.split("\n")]
            return [
                json.loads(line[5:])
                for line in lines
                if line.startswith("data:") and line[5:].strip()
            ]
        if not self.body:
            return []
        read = json.loads(self.body)
        return read if isinstance(read, list) else [read]

    @property
    def message(self) -> dict[str, Any]:
        """The last message: the response."""
        return self.messages[-1]


class Client:
    """A small MCP client that keeps its session, or not, as the test likes."""

    def __init__(self, gate: GateProcess, path: str, key: str) -> None:
        self.gate = gate
        self.path = path
        self.key = key
        self.session: str | None = None
        self.next_id = 0
        self._lock = threading.Lock()

    def post(
        self,
        message: object,
        *,
        session: str | None = None,
        raw: bytes | None = None,
        **fields: str,
    ) -> Answer:
        """POST one message on a connection of its own."""
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **fields,
        }
        given = session if session is not None else self.session
        if given:
            headers["Mcp-Session-Id"] = given
        connection = self.gate.connection()
        try:
            body = raw if raw is not None else json.dumps(message).encode()
            connection.request("POST", self.path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def initialize(self, **params: object) -> Answer:
        """Shake hands and keep the session."""
        answer = self.request("initialize", {**INITIALIZE, **params})
        if answer.status == 200:
            self.session = answer.fields["Mcp-Session-Id"]
            self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def request(self, method: str, params: dict[str, Any] | None = None, **kept: Any) -> Answer:
        """Send one request."""
        with self._lock:
            self.next_id += 1
            number = self.next_id
        message = {"jsonrpc": "2.0", "id": number, "method": method, **kept}
        if params is not None:
            message["params"] = params
        return self.post(message)

    def call(self, tool: str, **arguments: object) -> Answer:
        """Call a tool."""
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    @contextlib.contextmanager
    def listen(self, **fields: str) -> Iterator[http.client.HTTPResponse]:
        """Open the GET stream."""
        connection = self.gate.connection()
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Accept": "text/event-stream",
            **({"Mcp-Session-Id": self.session} if self.session else {}),
            **fields,
        }
        connection.request("GET", self.path, headers=headers)
        try:
            yield connection.getresponse()
        finally:
            connection.close()


TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
MCPGATE = [sys.executable, "-c", "import sys; from mcpgate.cli import main; sys.exit(main())"]
