"""Tests of looking at what is connected to."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import AdminSection, AuthSection, Config, GateSection, RemoteSource
from mcpgate.model import ServerSpec, Transport
from mcpgate.service.doctor import network
from mcpgate.service.doctor.findings import Finding


class FakeAnswer:
    """A connection that answers, or does not."""

    made: list[tuple[str, int, bool]] = []
    status = 200
    error: Exception | None = None

    def __init__(self, host: str, port: int, *, timeout: float, context: Any = None) -> None:
        self.made.append((host, port, context is not None))

    def request(self, method: str, target: str, *, headers: dict[str, str]) -> None:
        """Send."""
        if self.error is not None:
            raise self.error

    def getresponse(self) -> FakeAnswer:
        """Answer."""
        return self

    def read(self, limit: int) -> bytes:
        """Give the body."""
        return b'{"status": "unready"}\n'

    def close(self) -> None:
        """Close."""


class FakeSocket:
    """A connection, with TLS or without."""

    def __enter__(self) -> FakeSocket:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""

    def version(self) -> str:
        """Tell the version of TLS."""
        return "TLSv1.3"


class ListenerTests(SynchronousTestCase):
    """Our own ports."""

    def look(self, listen: str, held: str, pid: int | None = None, uid: int = 0) -> Finding:
        """Look at one port."""
        config = Config(gate=GateSection(listen=(listen, "unix:/run/x.sock")))
        (found,) = network.listeners(config, pid, uid, lambda _: held)
        return found

    def test_ports(self) -> None:
        """Free, held by the gate, held by another, not listened on, and kept for root."""
        self.assertEqual(self.look("tcp:8443", "").text, "free")
        self.assertEqual(self.look("tcp:8443", "twistd (pid 7)", 7).text, "the gate listens")
        told = self.look("tcp:8443", "nginx (pid 812)", 7)
        self.assertEqual((told.level, told.text), ("fail", "held by nginx (pid 812)"))
        self.assertEqual(self.look("tcp:8443", "", 7).level, "warn")
        told = self.look("tls:tcp:443", "", uid=1000)
        self.assertEqual(told.level, "warn")
        self.assertIn("CAP_NET_BIND_SERVICE", told.remedy)
        self.assertEqual(self.look("tls:tcp:443", "").level, "ok")

    def test_reached(self) -> None:
        """Every listener that speaks HTTP to anybody is asked whether the gate is ready."""
        self.patch(network, "HTTPConnection", FakeAnswer)
        self.patch(network, "HTTPSConnection", FakeAnswer)
        self.patch(FakeAnswer, "made", [])
        gate = GateSection(
            listen=(
                "tls:tcp:8443",
                "tcp:8080:interface=0.0.0.0",
                r"tcp6:8081:interface=\:\:",
                "redirect:tcp:8082",
                "haproxy:tcp:8083",
                "unix:/run/x.sock",
            )
        )
        looks = network.reached(Config(gate=gate, admin=AdminSection(listen=("tcp:9090",))))
        found = [one for look in looks.values() for one in look()]
        self.assertEqual([one.level for one in found], ["ok"] * 3)
        ports = {(host, port) for host, port, _ in FakeAnswer.made}
        self.assertEqual(ports, {("127.0.0.1", 8443), ("127.0.0.1", 8080), ("::1", 8081)})
        self.assertIn(("127.0.0.1", 8443, True), FakeAnswer.made)
        look = looks["answer at 8443"]
        self.patch(FakeAnswer, "status", 503)
        (told,) = look()
        self.assertEqual((told.level, told.text), ("warn", '503: {"status": "unready"}'))
        for error in (OSError("refused"), HTTPException("odd")):
            self.patch(FakeAnswer, "error", error)
            (told,) = look()
            self.assertEqual(told.level, "fail")


class RemoteTests(SynchronousTestCase):
    """What is elsewhere."""

    def setUp(self) -> None:
        """Have connections come about."""
        self.failing: Exception | None = None
        self.asked: list[tuple[str, int]] = []

        def connect(address: tuple[str, int], timeout: float) -> FakeSocket:
            self.asked.append(address)
            if self.failing is not None:
                raise self.failing
            return FakeSocket()

        class Context:
            def wrap_socket(self, plain: object, *, server_hostname: str) -> FakeSocket:
                return FakeSocket()

        self.patch(socket, "create_connection", connect)
        self.patch(ssl, "create_default_context", lambda cafile: Context())

    def test_remotes(self) -> None:
        """Servers with a URL and services of keys are connected to."""
        config = Config(
            auth=AuthSection(
                sources=(
                    RemoteSource(
                        name="api", url="https://keys.example/me", ca_file=Path("/ca.pem")
                    ),
                )
            ),
            servers=(
                ServerSpec(name="far", transport=Transport.HTTP, url="http://far.example/mcp"),
                ServerSpec(name="odd", transport=Transport.HTTP, url="http://{user}.example/"),
                ServerSpec(name="near", transport=Transport.STDIO, command=("x",)),
            ),
        )
        looks = network.remotes(config)
        found = [one for look in looks.values() for one in look()]
        self.assertEqual(
            [(one.check, one.text) for one in found],
            [
                ("server far", "far.example:80 answers, without TLS"),
                ("keys api", "keys.example:443 answers, TLSv1.3"),
            ],
        )

    def test_failures(self) -> None:
        """What keeps a connection from coming about is told."""
        self.failing = OSError("no route")
        told = network.connected("x", "https://far.example:8443/", None)
        self.assertEqual((told.level, told.text), ("fail", "far.example:8443: no route"))
        error = ssl.SSLCertVerificationError("x")
        error.verify_message = "self-signed certificate"
        self.failing = error
        told = network.connected("x", "https://far.example/", None)
        self.assertIn("not trusted: self-signed certificate", told.text)


class NameTests(SynchronousTestCase):
    """The names clients use."""

    def found(self, config: Config) -> dict[str, Finding]:
        """Look them up."""
        found = [one for look in network.names(config).values() for one in look()]
        return {one.check: one for one in found}

    def test_names(self) -> None:
        """The public name and those of servers are looked up, addresses are not."""

        def resolve(host: str, port: None, **options: Any) -> list[Any]:
            if host == "notes.example.org":
                raise socket.gaierror(-2, "Name or service not known")
            return [(2, 1, 6, "", ("192.0.2.1", 0)), (10, 1, 6, "", ("2001:db8::1", 0, 0, 0))]

        self.patch(socket, "getaddrinfo", resolve)
        spec = ServerSpec(name="notes", transport=Transport.HTTP, url="https://a.test/")
        gate = GateSection(public_url="https://mcp.example.org", server_hosts=("*.example.org",))
        found = self.found(Config(gate=gate, servers=(spec,)))
        self.assertEqual(set(found), {"name mcp.example.org", "name notes.example.org"})
        self.assertIn("192.0.2.1, 2001:db8::1", found["name mcp.example.org"].text)
        missing = found["name notes.example.org"]
        self.assertEqual(missing.level, "warn")
        self.assertIn("a DNS record", missing.remedy)
        self.assertEqual(self.found(Config(gate=GateSection(public_url="https://192.0.2.1"))), {})

    def test_bounded(self) -> None:
        """Of a flood of names the first are looked up."""
        specs = tuple(ServerSpec(name=f"s{n}", transport=Transport.STDIO) for n in range(99))
        gate = GateSection(server_hosts=("*.example.org",))
        self.assertEqual(len(network.names(Config(gate=gate, servers=specs))), 20)
