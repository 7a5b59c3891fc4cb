"""Keys checked over real sockets by a small API on 127.0.0.1 that behaves and misbehaves."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor  # noqa: TID251 - functional tests use the real one
from twisted.internet.defer import Deferred
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from typing_extensions import override

from mcpgate.errors import AuthUnavailable, InvalidCredential
from mcpgate.gate.access import (
    Breaker,
    CachedAuthenticator,
    FailureBudget,
    KeyDigest,
    Revocations,
)
from mcpgate.gate.access.outbound import OutboundClient
from mcpgate.gate.access.remote import RemoteAuthenticator, RemoteCheck, make_remote
from mcpgate.model import Caller, Secret
from mcpgate.telemetry.meters import Meters
from tests.functional.gate_process import AT_ONCE_S

DIGEST = KeyDigest(b"\x07" * 32)
ADDRESS = "127.0.0.1"
BOMB = gzip.compress(b" " * 20_000_000)


class FakeAPI(Resource):
    """
    Something like Outline's ``POST /api/auth.info``; the key says how to behave.

    :ivar seen: of each request: path, key, ``Accept-Encoding`` and ``Cookie``.
    """

    isLeaf = True  # noqa: N815 - named by Twisted

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, list[bytes], list[bytes]]] = []
        self.hanging: list[Request] = []

    @override
    def render(self, request: Request) -> Any:
        key = (request.getHeader("authorization") or "").removeprefix("Bearer ")
        raw = request.requestHeaders.getRawHeaders
        self.seen.append(
            (
                request.path.decode(),
                key,
                list(raw(b"accept-encoding", [])),
                list(raw(b"cookie", [])),
            )
        )
        mode, _, user = key.partition("-")
        request.setHeader("content-type", "application/json")
        request.addCookie("session", f"of-{user}", path="/")
        good = json.dumps({"ok": True, "data": {"user": {"id": user}}}).encode()
        if mode == "good":
            return good
        if mode == "e500":
            request.setResponseCode(500)
            return good
        if mode == "hang":
            self.hanging.append(request)
            return NOT_DONE_YET
        if mode == "half":
            self.hanging.append(request)
            request.write(good[:10])
            return NOT_DONE_YET
        if mode == "big":
            return good + b" " * 10_000_000
        if mode == "endless":
            for _ in range(160):
                request.write(b" " * 65536)
            request.finish()
            return NOT_DONE_YET
        if mode == "bomb":
            request.setHeader("content-encoding", "gzip")
            return BOMB
        if mode == "redirect":
            request.redirect(b"/elsewhere")
            return good
        if mode == "badjson":
            return good[:-3]
        request.setResponseCode(401)
        return b'{"ok": false}'


class Channel(HTTPChannel):
    """Counts its connections."""

    @override
    def connectionMade(self) -> None:
        self.factory.connections += 1
        super().connectionMade()


class RemoteKeysTests(TestCase):
    """What really comes over the wire is understood, bounded and answered in time."""

    timeout = 300

    @override
    def setUp(self) -> None:
        """Start the API."""
        self.api = FakeAPI()
        self.port, self.site = self.listen(None)
        self.meters = Meters()

    def listen(self, context: Any) -> tuple[Any, Any]:
        """Listen on a free port, with TLS if there is a context."""
        site: Any = Site(self.api)
        site.connections = 0
        site.protocol = Channel
        net: Any = reactor
        port = (
            net.listenTCP(0, site, interface=ADDRESS)
            if context is None
            else net.listenSSL(0, site, context, interface=ADDRESS)
        )
        self.addCleanup(port.stopListening)
        return port, site

    def make(self, **rules: Any) -> tuple[RemoteAuthenticator, OutboundClient]:
        """Ask this API; loopback is allowed."""
        values: dict[str, Any] = {
            "url": f"http://{ADDRESS}:{self.port.getHost().port}/api/auth.info",
            "method": "POST",
            "headers": (("Authorization", "Bearer {key}"),),
            "body": "{}",
            "user_field": "data.user.id",
            "timeout_s": 30.0,
            "allow_private": True,
        }
        check = RemoteCheck(**{**values, **rules})
        remote, client = make_remote(reactor, "wiki", check, DIGEST, meters=self.meters)
        self.addCleanup(client.close)
        self.addCleanup(self.gone)
        return remote, client

    async def gone(self) -> None:
        """Wait until every connection is closed."""
        for request in self.api.hanging:
            channel: Any = request.channel
            if channel is not None and channel.transport is not None:
                channel.transport.abortConnection()
        # What a cut connection leaves is cleared in the reactor's next turns.
        await deferLater(reactor, 0.05)

    def ask(self, remote: Any, key: str) -> Deferred[Caller]:
        """Ask about a key."""
        asked: Deferred[Caller] = remote.authenticate(Secret(key))
        return asked

    async def test_good_and_bad(self) -> None:
        """A good key gives its user, a bad one is refused, over one connection."""
        remote, _ = self.make()
        for user in ("ann", "bob"):
            found = await self.ask(remote, f"good-{user}")
            self.assertEqual(found.principal.subject, user)
        await self.assertFailure(self.ask(remote, "wrong"), InvalidCredential)
        await self.ask(remote, "good-ann")
        self.assertEqual(self.site.connections, 1)

    async def test_no_cookies_no_coding(self) -> None:
        """No caller's cookie goes with the next one's question, and no coding is asked for."""
        remote, _ = self.make()
        await self.ask(remote, "good-ann")
        await self.ask(remote, "good-bob")
        for _, _, codings, cookies in self.api.seen:
            self.assertEqual((b",".join(codings).split(b",")[0], cookies), (b"identity", []))

    async def test_misbehaviour(self) -> None:
        """Whatever the API does wrong, the key is left open, in time and in little memory."""
        remote, _ = self.make()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for key in ("e500-a", "big-a", "endless-a", "bomb-a", "redirect-a", "badjson-a"):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await self.assertFailure(self.ask(remote, key), AuthUnavailable)
            _, peak = tracemalloc.get_traced_memory()
            # The API is in this process as well: what it has to write, 10 MB at most, counts.
            self.assertLess(peak - before, 2_000_000 if key == "bomb-a" else 50_000_000, key)
        await self.ask(remote, "good-ann")

    async def test_redirect_is_not_followed(self) -> None:
        """A key is not carried on to where the API points."""
        remote, _ = self.make()
        await self.assertFailure(self.ask(remote, "redirect-a"), AuthUnavailable)
        self.assertEqual([path for path, *_ in self.api.seen], ["/api/auth.info"])

    async def test_silence(self) -> None:
        """An API that says nothing, or stops in the middle, costs no more than the deadline."""
        remote, _ = self.make(timeout_s=0.2)
        clock: Any = reactor
        start = clock.seconds()
        for key in ("hang-a", "half-a"):
            await self.assertFailure(self.ask(remote, key), AuthUnavailable)
        self.assertLess(clock.seconds() - start, AT_ONCE_S)

    async def test_nobody_listens(self) -> None:
        """An API that is not there leaves the key open."""
        remote, _ = self.make()
        await self.port.stopListening()
        await self.assertFailure(self.ask(remote, "good-a"), AuthUnavailable)

    async def test_private_address(self) -> None:
        """Unless allowed, no key is sent to this machine."""
        remote, _ = self.make(allow_private=False)
        await self.assertFailure(self.ask(remote, "good-a"), AuthUnavailable)
        self.assertEqual(self.api.seen, [])

    async def test_closed_idle_connection(self) -> None:
        """A connection the API closed meanwhile is not taken for an outage."""
        remote, _ = self.make()
        self.site.timeOut = 0.05
        await self.ask(remote, "good-a")
        await deferLater(reactor, 0.2)
        await self.ask(remote, "good-b")

    async def test_tls(self) -> None:
        """A certificate of the named authority is trusted, for its own name; others are not."""
        directory = Path(self.make_directory())
        pem = self.certificate(directory / "server.pem", ADDRESS)
        other = self.certificate(directory / "other.pem", ADDRESS)
        port, _ = self.listen(DefaultOpenSSLContextFactory(str(pem), str(pem)))
        number = port.getHost().port
        url = f"https://{ADDRESS}:{number}/api/auth.info"
        trusting, _ = self.make(url=url, ca_file=pem)
        await self.ask(trusting, "good-a")
        self.assertEqual(len(self.api.seen), 1)
        for rules in (
            {"url": url},
            {"url": url, "ca_file": other},
            {"url": f"https://localhost:{number}/", "ca_file": pem},
        ):
            refusing, _ = self.make(**rules)
            await self.assertFailure(self.ask(refusing, "good-a"), AuthUnavailable)
        self.assertEqual(len(self.api.seen), 1)

    def make_directory(self) -> str:
        """Make a directory that goes with the test."""
        directory = Path(self.mktemp())
        directory.mkdir()
        return str(directory)

    def certificate(self, path: Path, address: str) -> Path:
        """Write a self-signed certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    async def test_whole_onion(self) -> None:
        """A good key passes while the API is away; a new one hears 503; then all is well again."""
        remote, _ = self.make()
        clock: Any = reactor
        breaker = Breaker(remote, clock, name="wiki", failures=2, open_s=0.2)
        budget = FailureBudget(breaker, clock, DIGEST, meters=self.meters)
        cache = CachedAuthenticator(budget, clock, DIGEST, Revocations(), issuer="wiki")
        together = [self.ask(cache, "good-ann") for _ in range(20)]
        for one in together:
            await one
        self.assertEqual(len(self.api.seen), 1)
        number = self.port.getHost().port
        await self.port.stopListening()
        for _ in range(3):
            await self.assertFailure(self.ask(cache, "e500-bob"), AuthUnavailable)
        await self.assertFailure(self.ask(cache, "good-bob"), AuthUnavailable)
        self.assertIsNotNone(cache.remembered(Secret("good-ann")))
        again: Any = reactor
        port = again.listenTCP(number, self.site, interface=ADDRESS)
        self.addCleanup(port.stopListening)
        await deferLater(reactor, 0.25)
        await self.ask(cache, "good-bob")
