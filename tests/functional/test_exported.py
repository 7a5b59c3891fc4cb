"""What ``mcpgate export`` writes, given to the programs that are to read it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from unittest import TestCase

from mcpgate.web.listening.certificates import self_signed
from tests.functional import real
from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    STDIO,
    GateProcess,
    free_port,
    wait_for,
)
from tests.functional.mcp_client import INITIALIZE
from tests.functional.real_clients import BY_NAME, KEY_FIELD, Task
from tests.functional.websocket import check_echo

# What Debian's own nginx.conf has around a site, with everything it writes below one directory.
NGINX = """
daemon off;
pid {place}/nginx.pid;
error_log stderr warn;
{user}
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    default_type application/octet-stream;
    sendfile on;
    gzip on;
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    include {place}/site.conf;
}}
"""
ELSEWHERE = "127.0.0.2"
Fields = Mapping[str, str]
NO_FIELDS: Fields = {}
JSON: Fields = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
}
CLIENTS = ("python_sdk_1", "python_sdk_2", "python_sdk_1_sse", "typescript_sdk_1")


class NginxTests(TestCase):
    """Debian's nginx with the exported site, in front of a gate."""

    def setUp(self) -> None:
        """Start both."""
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            real.missing("there is no nginx on this machine")
        self.front = free_port()
        text = GATE.replace(
            "[gate]",
            f"[gate]\npublic_url = https://127.0.0.1:{self.front}\ntrusted_proxies = 127.0.0.1",
            1,
        )
        text += (
            f"[auth]\nheader = {KEY_FIELD}\n[tls]\ncertificates = <dir>/live.pem <dir>/live.key\n"
        )
        self.gate = GateProcess(self, text + NO_LIMITS + STDIO + HTTP)
        place = self.gate.directory
        self_signed(str(place), (), datetime.now(UTC), stem="live")
        self.certificate = place / "live.pem"
        self.gate._context = ssl.create_default_context(cafile=str(self.certificate))
        self.key = self.gate.add_key("joe")
        self.gate.start()
        self.start_nginx(program)

    def start_nginx(self, program: str) -> None:
        """Write the site as an administrator does, and start nginx with it."""
        exported = self.gate.command("export", "nginx")
        self.assertEqual((exported.returncode, exported.stderr), (0, ""))
        place = self.gate.directory / "nginx"
        place.mkdir()
        (place / "site.conf").write_text(exported.stdout)
        user = "user root;" if os.geteuid() == 0 else ""
        (place / "nginx.conf").write_text(NGINX.format(place=place, user=user))
        log = place / "error.log"
        with log.open("wb") as errors:
            self.nginx = subprocess.Popen(
                [program, "-p", str(place), "-c", str(place / "nginx.conf")],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        self.addCleanup(self.end_nginx)
        wait_for(self.answers, "nginx answers")
        # It has nothing to say against the site.
        self.assertEqual(log.read_text(), "")

    def end_nginx(self) -> None:
        """End it, and what it started, by its id."""
        self.nginx.send_signal(signal.SIGTERM)
        try:
            self.nginx.wait(10)
        finally:
            self.nginx.kill()
            self.nginx.wait(10)

    def answers(self) -> bool:
        """Tell whether the gate is there, seen from before nginx."""
        self.assertIsNone(self.nginx.poll())
        with contextlib.suppress(OSError):
            return self.ask("GET", "/ready").status == 200
        return False

    def connection(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        """Open a connection to nginx."""
        return http.client.HTTPSConnection(
            "127.0.0.1",
            self.front,
            context=self.gate.context(),
            timeout=30,
            source_address=(source, 0),
        )

    def ask(
        self, method: str, path: str, body: bytes | None = None, fields: Fields = NO_FIELDS
    ) -> http.client.HTTPResponse:
        """Ask once; the answer is read, and waits in ``told``."""
        connection = self.connection()
        try:
            connection.request(method, path, body, {KEY_FIELD: self.key, **fields})
            answer = connection.getresponse()
            self.told = answer.read()
            return answer
        finally:
            connection.close()

    def test_clients(self) -> None:
        """Clients over Streamable HTTP of both eras, and over HTTP+SSE, list and call."""
        for name in CLIENTS:
            task = Task(
                url=f"https://127.0.0.1:{self.front}/io/mcp",
                certificate=self.certificate,
                key=self.key,
                calls=[("echo", {"message": f"{name} {number}"}) for number in range(2)],
                model="",
            )
            said = BY_NAME[name].run(task)
            self.assertEqual(list(said.results), [f"echo: {name} 0", f"echo: {name} 1"])
        lines = [line for line in self.gate.log_text().splitlines() if "POST /io/mcp" in line]
        self.assertTrue([line for line in lines if "era=2026-07-28" in line])
        self.assertTrue([line for line in lines if "era=" not in line])

    def test_nothing_waits_in_a_buffer(self) -> None:
        """What is told while a call is in work arrives then, not at the end."""
        self.ask(
            "POST", "/io/mcp", body({"id": 0, "method": "initialize", "params": INITIALIZE}), JSON
        )
        slow = {"name": "slow", "arguments": {"seconds": 2}, "_meta": {"progressToken": 1}}
        connection = self.connection()
        self.addCleanup(connection.close)
        connection.request(
            "POST",
            "/io/mcp",
            body({"id": 1, "method": "tools/call", "params": slow}),
            {KEY_FIELD: self.key, **JSON},
        )
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        at = []
        while line := answer.readline():
            if line.startswith(b"data:"):
                at.append((time.monotonic(), json.loads(line[5:])))
        self.assertEqual(at[-1][1]["id"], 1)
        progress = [when for when, told in at if told.get("method") == "notifications/progress"]
        self.assertEqual(len(progress), 5)
        self.assertGreater(at[-1][0] - progress[0], 1.0)

    def test_old_stream(self) -> None:
        """An HTTP+SSE channel opens at once, and says an address that works."""
        connection = self.connection()
        self.addCleanup(connection.close)
        connection.request("GET", "/io/sse", headers={KEY_FIELD: self.key})
        stream = connection.getresponse()
        self.assertEqual(stream.readline().strip(), b"event: endpoint")
        where = stream.readline().decode().removeprefix("data:").strip()
        asked = body({"id": 7, "method": "initialize", "params": INITIALIZE})
        self.assertEqual(self.ask("POST", where, asked, JSON).status, 202)
        while not (line := stream.readline()).startswith(b"data:"):
            self.assertNotEqual(line, b"")
        self.assertEqual(json.loads(line[5:])["id"], 7)

    def test_relayed(self) -> None:
        """WebSockets, uploads and long bodies pass, and the gate knows who the client is."""
        raw = socket.create_connection(("127.0.0.1", self.front), 10)
        line = self.gate.context().wrap_socket(raw, server_hostname="127.0.0.1")
        self.addCleanup(line.close)
        check_echo(self, line, self.key)
        sent = os.urandom(3_000_000)
        self.assertEqual(self.ask("POST", "/web/up", sent).status, 200)
        self.assertEqual(json.loads(self.told)["sha256"], hashlib.sha256(sent).hexdigest())
        # An upgrade to something else is not for servers.
        upgrade = {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": "AAA",
        }
        self.assertEqual(self.ask("GET", "/web/get", None, upgrade).status, 200)
        connection = self.connection(ELSEWHERE)
        connection.request("GET", "/web/get?from=elsewhere", headers={KEY_FIELD: self.key})
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
        start = f"{ELSEWHERE} - "
        wait_for(
            lambda: [one for one in self.gate.log_text().splitlines() if one.startswith(start)],
            "the access log",
        )


class UnitTests(TestCase):
    """``systemd-analyze`` on the exported unit."""

    def test_verify(self) -> None:
        """It has nothing to say against it."""
        program = shutil.which("systemd-analyze")
        if program is None:
            real.missing("there is no systemd-analyze on this machine")
        gate = GateProcess(self, GATE + STDIO)
        exported = gate.command("export", "systemd")
        self.assertEqual((exported.returncode, exported.stderr), (0, ""))
        unit = gate.directory / "mcpgate.service"
        for text, good in (
            (exported.stdout, True),
            (exported.stdout.replace("ProtectSystem=", "ProtectSytem="), False),
        ):
            unit.write_text(text)
            told = subprocess.run(
                [program, "verify", "--man=no", str(unit)],
                capture_output=True,
                check=False,
                text=True,
                timeout=60,
            )
            self.assertEqual(told.stdout + told.stderr == "", good, told.stderr)


def body(request: dict[str, object]) -> bytes:
    """Write a request."""
    return json.dumps({"jsonrpc": "2.0", **request}).encode()
