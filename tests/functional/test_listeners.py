"""Listeners, TLS, guard and redirect with real sockets, real clients and real processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import sys
import textwrap
from datetime import UTC, datetime
from itertools import count

from cryptography import x509
from twisted.internet import reactor  # noqa: TID251 - real sockets need the real one
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase
from typing_extensions import override

from mcpgate.errors import GateError
from mcpgate.interfaces import IInbound
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.guard import Guard, own_names
from mcpgate.web.listening.certificates import certificate_names, self_signed
from mcpgate.web.listening.handshake import TLSFactory
from mcpgate.web.listening.listeners import CannotBind, Kind, Listeners, parse_listen
from mcpgate.web.listening.ports import port_holder
from mcpgate.web.listening.redirect import Redirect
from mcpgate.web.listening.tls import HTTP1, HTTP2, CertificateStore
from mcpgate.web.refusal import refuse
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.front import FrontFactory
from mcpgate.web.wire.http2 import HTTP2Factory
from tests.functional import real
from tests.web.memory_tls import write_certificate

CURL = shutil.which("curl")
NODE = shutil.which("node")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def utc() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)


class GateCase(TestCase):
    """A front door on ports of 127.0.0.1 whose dispatch tells what it saw."""

    handshake_s = 10.0

    @override
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        self.meters = Meters()
        self.wheel = DeadlineWheel(reactor, 0.1)
        self.addCleanup(self.wheel.stop)
        self.store = self.make_store()
        self.guard = Guard(trusted_proxies=[])
        self.listeners: Listeners | None = None
        # Blocking clients run here: the reactor they talk to must go on.
        self.pool = ThreadPool(0, 2, "clients")
        self.pool.start()
        self.addCleanup(self.pool.stop)

    def make_store(self) -> CertificateStore:
        """Make the certificates served."""
        return CertificateStore(
            [
                lambda: self_signed(self.directory, ["gate.example.org"], utc()),
                write_certificate(self.directory, "other", "other.example.org"),
            ],
            now=utc,
            meters=self.meters,
            http2=True,
        )

    def dispatch(self, inbound: IInbound) -> None:
        """Tell what was seen."""
        try:
            if self.guard.check(inbound):
                return
        except GateError as error:
            refuse(inbound, error)
            return

        def answer(body: bytes) -> None:
            told = {
                "peer": inbound.peer.address,
                "port": inbound.peer.port,
                "secure": inbound.peer.secure,
                "version": inbound.head.version[0],
                "path": inbound.head.path.decode(),
                "body": len(body),
            }
            inbound.respond(
                200, [(b"content-type", b"application/json")], json.dumps(told).encode()
            )

        inbound.read_body(1 << 22, answer)

    def listen(self, *texts: str) -> Deferred[None]:
        """Bind listeners."""
        ids = count()
        common = {
            "clock": reactor,
            "wheel": self.wheel,
            "bounds": Bounds(),
            "make_request_id": lambda: f"id-{next(ids)}",
            "record": lambda entry: None,
            "meters": self.meters,
        }
        redirect = Redirect(guard=self.guard, https_port=lambda: self.port(Kind.TLS))
        self.http: list[FrontFactory | HTTP2Factory] = [
            FrontFactory(dispatch=self.dispatch, secure=False, **common),  # type: ignore[arg-type]  # as named
            FrontFactory(dispatch=self.dispatch, secure=True, **common),  # type: ignore[arg-type]  # as named
            HTTP2Factory(dispatch=self.dispatch, **common),  # type: ignore[arg-type]  # as named
            FrontFactory(dispatch=redirect, secure=False, **common),  # type: ignore[arg-type]  # as named
        ]
        tls = TLSFactory(
            self.store,
            {HTTP1: self.http[1], HTTP2: self.http[2]},
            clock=reactor,
            wheel=self.wheel,
            meters=self.meters,
            handshake_s=self.handshake_s,
        )
        self.listeners = Listeners(
            reactor,
            [parse_listen(text) for text in texts],
            {Kind.PLAIN: self.http[0], Kind.TLS: tls, Kind.REDIRECT: self.http[3]},
            wheel=self.wheel,
            meters=self.meters,
        )
        self.addCleanup(self.close)
        return self.listeners.startService().addCallback(self.bound)

    def bound(self, _: None) -> None:
        """Tell the guard the gate's own names."""
        assert self.listeners is not None
        names, everything = own_names(
            self.store.names, (each.host for each in self.listeners.bound)
        )
        self.guard.own_hosts(names, any_address=everything)

    async def stop(self) -> None:
        """Close listeners and connections."""
        assert self.listeners is not None
        await self.listeners.stopService()
        for factory in self.http:
            waiting = factory.drain()
            factory.abort_all()
            await waiting.addTimeout(5, reactor)
        # TLS tells its protocol of the end before the socket's own.
        await deferLater(reactor, 0.05)

    def close(self) -> Deferred[None]:
        """Close everything after the test."""
        return Deferred.fromCoroutine(self.stop())

    def port(self, kind: Kind) -> int:
        """Give the port of a listener."""
        assert self.listeners is not None
        return next(each.port for each in self.listeners.bound if each.listen.kind is kind)

    async def curl(self, *arguments: str) -> str:
        """Run curl; fail unless it succeeds."""
        if CURL is None:
            real.missing("curl is not installed")
        ca = os.path.join(self.directory, "self-signed.pem")
        out, err, code = await getProcessOutputAndValue(
            CURL, ["-sS", "-m", "10", "--cacert", ca, *arguments], env={}
        )
        self.assertEqual((code, err), (0, b""))
        return str(out, "utf-8")

    def client(self, **options: object) -> ssl.SSLSocket:
        """Connect by Python's own ssl, blocking."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if "maximum" in options:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = options["maximum"]  # type: ignore[assignment]  # a version
        if "ciphers" in options:
            context.set_ciphers(str(options["ciphers"]))
        plain = socket.create_connection(("127.0.0.1", self.port(Kind.TLS)), 10)
        try:
            plain.sendall(options.get("before", b""))  # type: ignore[arg-type]  # bytes
            return context.wrap_socket(plain, server_hostname=str(options.get("name", "localhost")))
        except BaseException:
            plain.close()
            raise

    def in_thread(self, work: object, *arguments: object, **named: object) -> Deferred[object]:
        """Run blocking work beside the reactor."""
        return deferToThreadPool(reactor, self.pool, work, *arguments, **named)  # type: ignore[arg-type]  # callable


def ask(connection: socket.socket) -> dict[str, object]:
    """Send a request on an open connection and read its answer."""
    connection.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = b""
    while b"}" not in data:
        more = connection.recv(65536)
        if not more:
            raise AssertionError(f"closed after {data!r}")
        data += more
    found: dict[str, object] = json.loads(data.partition(b"\r\n\r\n")[2])
    return found


class ClientTests(GateCase):
    """Clients people use."""

    async def test_curl(self) -> None:
        """Curl trusts the self-signed certificate by name and by address, over HTTP/1.1 and 2."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        port = self.port(Kind.TLS)
        for flag, version in (("--http1.1", 1), ("--http2", 2)):
            for host in ("localhost", "127.0.0.1"):
                told = json.loads(await self.curl(flag, f"https://{host}:{port}/a/mcp"))
                self.assertEqual((told["version"], told["secure"]), (version, True))
        there = ["--resolve", f"gate.example.org:{port}:127.0.0.1"]
        await self.curl(*there, f"https://gate.example.org:{port}/")

    async def test_upload_over_http2(self) -> None:
        """A body larger than every window arrives whole."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        path = self.file_of(3_000_000)
        url = f"https://localhost:{self.port(Kind.TLS)}/upload"
        told = json.loads(await self.curl("--http2", "--data-binary", f"@{path}", url))
        self.assertEqual((told["body"], told["version"]), (3_000_000, 2))

    def file_of(self, size: int) -> str:
        """Write a file to upload."""
        path = os.path.join(self.directory, "upload")
        with open(path, "wb") as stream:
            stream.write(b"x" * size)
        return path

    async def test_node(self) -> None:
        """Node trusts the certificate by NODE_EXTRA_CA_CERTS."""
        if NODE is None:
            real.missing("node is not installed")
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        script = (
            # Its agent would keep the connection, and the process, until we close it.
            "require('https').get(process.argv[1],"
            " r => { console.log(r.statusCode); process.exit() })"
            ".on('error', e => { console.log(e.code); process.exit(1) })"
        )
        out, _, code = await getProcessOutputAndValue(
            NODE,
            ["-e", script, f"https://127.0.0.1:{self.port(Kind.TLS)}/"],
            env={"NODE_EXTRA_CA_CERTS": os.path.join(self.directory, "self-signed.pem")},
        )
        self.assertEqual((out.strip(), code), (b"200", 0))

    async def test_python(self) -> None:
        """Python's ssl trusts it as a CA file, under its strictest rules."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        context = ssl.create_default_context(cafile=os.path.join(self.directory, "self-signed.pem"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT

        def connect() -> str | None:
            address = ("127.0.0.1", self.port(Kind.TLS))
            with (
                socket.create_connection(address, 10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                return secure.version()

        self.assertEqual(await self.in_thread(connect), "TLSv1.3")

    async def test_foreign_host_and_origin(self) -> None:
        """A rebound name is refused 421, a foreign page 403, over the wire."""
        await self.listen("tcp:0:interface=127.0.0.1")
        url = f"http://127.0.0.1:{self.port(Kind.PLAIN)}/a/mcp"
        status = ["-o", "/dev/null", "-w", "%{http_code}"]
        for field, code in (
            ("Host: evil.example", "421"),
            ("Origin: https://evil.example", "403"),
            (f"Origin: {url[:-6]}", "200"),
        ):
            self.assertEqual(await self.curl(*status, "-H", field, url), code)

    async def test_redirect(self) -> None:
        """The plain port points to HTTPS, with the port HTTPS got."""
        await self.listen("tls:tcp:0:interface=127.0.0.1", "redirect:tcp:0:interface=127.0.0.1")
        url = f"http://localhost:{self.port(Kind.REDIRECT)}/a/mcp?x=y"
        told = await self.curl("-L", "-w", "%{url_effective}", url)
        self.assertIn(f"https://localhost:{self.port(Kind.TLS)}/a/mcp?x=y", told)
        told = await self.curl("-d", "{}", "-w", "%{http_code}", url)
        self.assertIn("Use this URL: https://localhost", told)
        self.assertTrue(told.endswith("308"))


class HandshakeTests(GateCase):
    """Handshakes that must fail, or end."""

    handshake_s = 0.5

    async def test_old_versions_and_ciphers(self) -> None:
        """TLS 1.1 and CBC are refused; 1.2 with GCM is spoken."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        for options in (
            {"maximum": ssl.TLSVersion.TLSv1_1, "ciphers": "ALL:@SECLEVEL=0"},
            {"maximum": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-ECDSA-AES128-SHA256"},
        ):
            await self.assertFailure(self.in_thread(self.client, **options), ssl.SSLError)
        good = await self.in_thread(self.client, maximum=ssl.TLSVersion.TLSv1_2)
        assert isinstance(good, ssl.SSLSocket)
        self.addCleanup(good.close)
        self.assertEqual(good.version(), "TLSv1.2")

    async def closed_after(self, data: bytes) -> tuple[float, bytes]:
        """Send bytes to the TLS port; give the seconds until it closed and what it said."""

        def wait() -> tuple[float, bytes]:
            begun = utc()
            with socket.create_connection(("127.0.0.1", self.port(Kind.TLS)), 60) as plain:
                plain.sendall(data)
                told = b""
                try:
                    while more := plain.recv(4096):
                        told += more
                except ConnectionResetError:
                    pass
            return (utc() - begun).total_seconds(), told

        found = await self.in_thread(wait)
        assert isinstance(found, tuple)
        return found

    async def test_half_hello(self) -> None:
        """Half a ClientHello and silence are cut at the deadline (R13)."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b""):
            seconds, told = await self.closed_after(data)
            self.assertGreater(seconds, 0.4)
            self.assertEqual(told, b"")

    async def test_plain_on_tls(self) -> None:
        """Plain HTTP on the TLS port is told so at once."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        _, told = await self.closed_after(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"400 Bad Request", told)
        self.assertIn(b"https://", told)


class SwapTests(GateCase):
    """Certificates replaced while connections are open (R64)."""

    @override
    def make_store(self) -> CertificateStore:
        self.files = write_certificate(self.directory, "a", "old.example.org")
        return CertificateStore([self.files], now=utc, meters=self.meters)

    async def shown(self) -> str:
        """Give the name of the certificate a new connection sees."""
        client = await self.in_thread(self.client)
        assert isinstance(client, ssl.SSLSocket)
        with client:
            der = client.getpeercert(True)
        assert der is not None
        return certificate_names(x509.load_der_x509_certificate(der))[0]

    async def test_swap(self) -> None:
        """Open connections go on, new ones see the new pair, a bad pair changes nothing."""
        await self.listen("tls:tcp:0:interface=127.0.0.1")
        kept = await self.in_thread(self.client)
        assert isinstance(kept, ssl.SSLSocket)
        self.addCleanup(kept.close)
        self.assertEqual("old.example.org", await self.shown())
        write_certificate(self.directory, "a", "new.example.org")
        self.assertTrue(self.store.refresh())
        self.assertEqual("new.example.org", await self.shown())
        write_certificate(self.directory, "b", "bad.example.org")
        os.replace(os.path.join(self.directory, "b.key"), self.files.key)
        self.assertFalse(self.store.refresh())
        self.assertEqual("new.example.org", await self.shown())
        told = await self.in_thread(ask, kept)
        assert isinstance(told, dict)
        self.assertEqual(told["secure"], True)


class ProxyTests(GateCase):
    """The PROXY protocol in front."""

    async def test_under_tls(self) -> None:
        """The header comes before the handshake, and the front sees the client."""
        await self.listen("tls:haproxy:tcp:0:interface=127.0.0.1")
        header = b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\n"
        client = await self.in_thread(self.client, before=header)
        assert isinstance(client, ssl.SSLSocket)
        self.addCleanup(client.close)
        told = await self.in_thread(ask, client)
        assert isinstance(told, dict)
        self.assertEqual((told["peer"], told["port"], told["secure"]), ("203.0.113.5", 4711, True))

    async def test_plain(self) -> None:
        """Under plain HTTP too, by curl."""
        await self.listen("haproxy:tcp:0:interface=127.0.0.1")
        url = f"http://127.0.0.1:{self.port(Kind.PLAIN)}/"
        told = json.loads(await self.curl("--haproxy-protocol", url))
        self.assertEqual((told["peer"], told["secure"]), ("127.0.0.1", False))


class BindTests(GateCase):
    """Binding."""

    async def test_taken_port(self) -> None:
        """A taken port names its holder: us."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            try:
                await self.listen(f"tcp:{port}:interface=127.0.0.1")
            except CannotBind as error:
                told = str(error)
            else:
                raise AssertionError("bound twice")
            self.assertIn(f"127.0.0.1 port {port}", told)
            self.assertIn("Address already in use", told)
            if port_holder(port):
                self.assertIn(f"(pid {os.getpid()}) listens there", told)

    async def test_unix_socket(self) -> None:
        """A unix socket is made with its mode, answers, and is gone afterwards."""
        path = os.path.join("/tmp", f"mcpgate-test-{os.getpid()}.sock")
        # A gate of the same number died here, as in a container that was started again.
        os.symlink(str(os.getpid()), f"{path}.lock")
        await self.listen(f"unix:{path}:mode=600")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        told = json.loads(await self.curl("--unix-socket", path, "http://localhost/"))
        self.assertEqual(told["peer"], "")
        assert self.listeners is not None
        await self.listeners.stopService()
        self.assertNotIn(os.path.basename(path), os.listdir("/tmp"))


CHILD = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.listeners import Kind, Listeners, parse_listen

class Hello(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")
        self.transport.loseConnection()

texts = sys.argv[1:]
service = Listeners(reactor, [parse_listen(text) for text in texts],
    {Kind.PLAIN: Factory.forProtocol(Hello)}, wheel=DeadlineWheel(reactor), meters=Meters())

def up(_):
    print(" ".join(each.url for each in service.bound), flush=True)

def down(failure):
    print("failed:", failure.getErrorMessage(), flush=True)
    reactor.stop()

reactor.callWhenRunning(lambda: service.startService().addCallbacks(up, down))
reactor.run()
"""


class Child(ProcessProtocol):
    """A process whose first line is waited for."""

    def __init__(self) -> None:
        self.line: Deferred[str] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._out = b""
        self._err = b""

    @override
    def outReceived(self, data: bytes) -> None:
        self._out += data
        if b"\n" in self._out and not self.line.called:
            self.line.callback(self._out.decode().partition("\n")[0])

    @override
    def errReceived(self, data: bytes) -> None:
        self._err += data

    @override
    def processEnded(self, reason: Failure) -> None:
        if not self.line.called:
            self.line.callback(f"ended: {self._err.decode()}")
        self.ended.callback(None)


class SystemdTests(TestCase):
    """Sockets handed over as systemd does."""

    async def started(self, listening: socket.socket, *texts: str) -> str:
        """Start a child with the socket as descriptor 3; give its first line."""
        child = Child()
        process = reactor.spawnProcess(
            child,
            sys.executable,
            [sys.executable, "-c", textwrap.dedent(CHILD), *texts],
            env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "PATH": os.environ["PATH"]},
            childFDs={0: "w", 1: "r", 2: "r", 3: listening.fileno()},
            path=ROOT,
        )

        async def end() -> None:
            if process.pid is not None:
                process.signalProcess("KILL")
            await child.ended

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return await child.line.addTimeout(20, reactor)

    async def test_handed_over(self) -> None:
        """An inherited socket is found by name, by number, of whatever family."""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for text in ("systemd:name=web", "systemd:index=0"):
                with socket.socket(family) as listening:
                    try:
                        listening.bind((address, 0))
                    except OSError:
                        real.missing(f"no {family.name} here")
                    listening.listen()
                    line = await self.started(listening, text)
                    port = listening.getsockname()[1]
                    host = f"[{address}]" if ":" in address else address
                    self.assertEqual(line, f"http://{host}:{port}")
                    with socket.create_connection((address, port), 10) as client:
                        self.assertEqual(client.recv(10), b"hello")

    async def test_not_handed_over(self) -> None:
        """A name systemd did not hand over fails with the remedy."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            line = await self.started(listening, "systemd:name=other")
        self.assertIn("FileDescriptorName=", line)
