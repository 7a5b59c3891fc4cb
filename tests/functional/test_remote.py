"""Remote servers over real TLS."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor  # noqa: TID251  # functional tests run on the real one
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, KeyPair, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mcpgate.errors import BackendUnavailable, Draining
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream, UpstreamLimits
from mcpgate.upstream.remote import remote
from tests.functional.relay_bed import Line
from tests.upstream.receivers import RecordingReceiver

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def certificate(name: str) -> PrivateCertificate:
    """Make a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    from OpenSSL.crypto import FILETYPE_PEM, load_privatekey

    both: PrivateCertificate = PrivateCertificate.fromCertificateAndKeyPair(
        Certificate.loadPEM(made.public_bytes(pem)),
        KeyPair(load_privatekey(FILETYPE_PEM, private)),
    )
    return both


class RemoteTests(TestCase):
    """Requests to ``https`` URLs."""

    timeout = 300

    def setUp(self) -> None:
        """Listen with a certificate for localhost."""
        self.lines: list[Line] = []
        self.mine = certificate("localhost")
        clock: Any = reactor
        self.wheel = DeadlineWheel(clock, 0.05)

        def accept() -> Line:
            line = Line()
            self.lines.append(line)
            return line

        factory = Factory.forProtocol(accept)
        self.port = clock.listenSSL(0, factory, self.mine.options(), interface="127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(self.port.stopListening))

    def upstream(self, trust_root: PrivateCertificate) -> HTTPUpstream:
        """Speak to the server, trusting one certificate."""
        url = f"https://localhost:{self.port.getHost().port}/mcp"
        found = remote(reactor, url, trust_root=Certificate(trust_root.original))
        clock: Any = reactor
        made = HTTPUpstream(
            clock,
            found.make_endpoint,
            authority=found.authority,
            wheel=self.wheel,
            meters=Meters(),
        )

        async def close() -> None:
            made.close(Draining())
            for line in self.lines:
                await line.gone()
            await deferLater(clock, 0.05, lambda: None)
            self.wheel.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        return made

    async def asked(self, upstream: HTTPUpstream, body: bytes) -> RecordingReceiver:
        """Send a request; wait until it is over."""
        receiver = RecordingReceiver()
        over: Deferred[None] = Deferred()
        receiver.hooks["end"] = receiver.hooks["failed"] = lambda: over.callback(None)
        upstream.send(
            "POST", b"/mcp", [], body, receiver, pool="a", length=None, timeout_s=5, stream=False
        )
        for _ in range(200):
            if over.called:
                break
            for line in self.lines:
                if body in line.received:
                    line.received.clear()
                    line.send(OK)
            await deferLater(reactor, 0.01, lambda: None)
        await over
        return receiver

    async def test_verified(self) -> None:
        """A server with the right certificate is spoken to, over one connection."""
        upstream = self.upstream(self.mine)
        for body in (b"first-body", b"x" * 100000, b"third-body"):
            receiver = await self.asked(upstream, body)
            self.assertEqual((receiver.failure, receiver.body), (None, b"ok"))
        self.assertEqual(len(self.lines), 1)

    async def test_no_handshake(self) -> None:
        """A server that does not shake hands has the time of connecting, no more."""
        clock: Any = reactor
        silent = clock.listenTCP(0, Factory.forProtocol(Line), interface="127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(silent.stopListening))
        found = remote(reactor, f"https://localhost:{silent.getHost().port}/")
        upstream = HTTPUpstream(
            clock,
            found.make_endpoint,
            authority=found.authority,
            wheel=self.wheel,
            meters=Meters(),
            limits=UpstreamLimits(connect_s=0.2),
        )
        receiver = await self.asked(upstream, b"secret-body")
        self.assertIsInstance(receiver.failure, BackendUnavailable)
        self.assertFalse(receiver.sent)
        await deferLater(clock, 0.05, lambda: None)
        self.wheel.stop()

    async def test_stranger(self) -> None:
        """A server with somebody else's certificate gets no request."""
        receiver = await self.asked(self.upstream(certificate("localhost")), b"secret-body")
        self.assertIsNotNone(receiver.failure)
        self.assertFalse(any(b"secret" in line.received for line in self.lines))
        self.assertIsInstance(receiver.failure, BackendUnavailable)
        self.assertFalse(receiver.sent)
