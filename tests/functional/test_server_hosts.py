"""A host for each server, as an nginx with a site for each had it."""

from __future__ import annotations

import socket
import ssl
from unittest import TestCase

from typing_extensions import override

from tests.functional import real
from tests.functional.gate_process import GATE, HTTP, NO_LIMITS, STDIO, GateProcess, wait_for
from tests.functional.mcp_client import INITIALIZE, Client

HOSTS = """
[server:time]
command = {python} -m mcp_server_time
[group:some]
servers = io time
"""


class HostClient(Client):
    """Asks a host by its name, wherever that leads."""

    def __init__(self, gate: GateProcess, host: str, key: str, path: str = "/mcp") -> None:
        super().__init__(gate, "-", key)
        self.path = path
        self.host = host

    @override
    def fields(self, **fields: str) -> dict[str, str]:
        return super().fields(Host=self.host, **fields)


class ServerHostsTests(TestCase):
    """A gate for ``mcp-*.example.org``."""

    def setUp(self) -> None:
        """Start it."""
        hosts = "[gate]\npublic_url = https://example.org\nserver_hosts = mcp-*.example.org\n"
        text = GATE.replace("[gate]\n", hosts, 1) + NO_LIMITS + STDIO + HTTP
        self.gate = GateProcess(self, text + HOSTS.format(python=real.python("servers")))
        self.key = self.gate.add_key("ann")
        self.gate.start()

    def client(self, host: str, path: str = "/mcp") -> HostClient:
        """Make a client of a host."""
        return HostClient(self.gate, host, self.key, path)

    def test_endpoints(self) -> None:
        """Each server and group is at /mcp of its host, with sessions, and for everybody's key."""
        time = self.client("mcp-time.example.org")
        self.assertEqual(time.initialize().status, 200)
        self.assertIsNotNone(time.session)
        self.assertIn("Tokyo", time.call("get_current_time", timezone="Asia/Tokyo").text)
        together = self.client("mcp-some.example.org:8443")
        together.initialize()
        self.assertEqual(together.call("io__echo", message="x").text, "echo: x")
        nobody = self.client("mcp-io.example.org")
        nobody.key = "mg_00000000_none"
        self.assertEqual(nobody.initialize().status, 401)

    def test_sse(self) -> None:
        """The stream of HTTP+SSE names the messages' address as the client sees it."""
        client = self.client("mcp-io.example.org", "/sse")
        with client.listen(Accept="text/event-stream") as stream:
            self.assertEqual(stream.status, 200)
            self.assertEqual(stream.readline().strip(), b"event: endpoint")
            address = stream.readline().decode().strip().removeprefix("data: ")
            self.assertTrue(address.startswith("/messages?session_id="), address)
            client.path = address
            asked = client.request("initialize", INITIALIZE)
            self.assertEqual(asked.status, 202)
            while not (line := stream.readline()).startswith(b"data:"):
                self.assertNotEqual(line, b"")
            self.assertIn(b"serverInfo", line)

    def test_other_paths(self) -> None:
        """Other paths are the server's; well-known ones, and those of the gate's own name, ours."""
        web = self.client("mcp-web.example.org", "/health")
        answer = web.ask("GET")
        self.assertNotIn(b'"ok"', answer.body)  # it is the server's word, not that of the gate
        well_known = self.client("mcp-io.example.org", "/.well-known/oauth-protected-resource")
        self.assertEqual(well_known.ask("GET").status, 404)
        self.assertEqual(self.client("mcp-io.example.org", "/x").ask("GET").status, 404)
        for host in ("example.org", "mcp-other.example.org"):
            self.assertEqual(self.client(host, "/health").ask("GET").status, 200, host)
            self.assertEqual(self.client(host, "/time/mcp").initialize().status, 200, host)
        self.assertEqual(self.client("time.example.org", "/health").ask("GET").status, 421)

    def test_certificate(self) -> None:
        """The gate's own certificate holds the names."""
        raw = socket.create_connection(("127.0.0.1", self.gate.port), 10)
        wrapped = self.gate.context().wrap_socket(raw, server_hostname="mcp-time.example.org")
        self.addCleanup(wrapped.close)
        self.assertIsNotNone(wrapped.version())

    def shakes_hands(self) -> bool:
        """Tell whether the certificate is good for the new server's host."""
        with socket.create_connection(("127.0.0.1", self.gate.port), 10) as raw:
            try:
                self.gate.context().wrap_socket(raw, server_hostname="mcp-new.example.org").close()
            except ssl.SSLCertVerificationError:
                return False
        return True

    def test_new_server(self) -> None:
        """A reload that brings a server makes the certificate anew; what is open stays open."""
        client = self.client("mcp-io.example.org")
        client.initialize()
        with client.listen() as stream:
            self.gate.write(self.gate.ini.read_text() + STDIO.replace(":io", ":new"))
            self.assertEqual(self.gate.command("config", "apply").returncode, 0)
            self.gate._context = None
            # Worker processes, any of which may answer, are told of it.
            wait_for(
                lambda: all(self.shakes_hands() for _ in range(10)),
                "a certificate with the new name",
            )
            self.assertEqual(client.call("tell", message="x").status, 200)
            self.assertFalse(stream.isclosed())
        pem = self.gate.certificate.read_bytes()
        self.assertEqual(self.gate.command("config", "apply").returncode, 0)
        self.assertEqual(self.gate.certificate.read_bytes(), pem)
