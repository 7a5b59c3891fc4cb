"""Tests for `mcpgate.web.listening.tls`."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import x25519
from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface import provider
from zope.interface.verify import verifyObject

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.certificates import Certificate, CertificateError, load_certificate
from mcpgate.web.listening.handshake import TLSFactory
from mcpgate.web.listening.tls import HTTP1, CertificateStore, server_context
from tests.web.memory_tls import (
    MemoryClient,
    RecorderFactory,
    client_context,
    write_certificate,
)


def resumed(client: MemoryClient) -> bool:
    """Tell whether the session was resumed; pyOpenSSL has no call for it."""
    return bool(lib.SSL_session_reused(client.tls._ssl))


class StoreCase(SynchronousTestCase):
    """A store of two certificates behind a TLS factory."""

    @override
    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.first = write_certificate(self.directory, "first", "a.example.org")
        self.second = write_certificate(
            self.directory, "second", "b.example.org", "*.c.example.org"
        )
        self.meters = Meters()
        self.now = load_certificate(self.first).not_after - timedelta(days=100)
        self.serve()

    def serve(self, min_version: str = "1.2") -> None:
        """Put a store behind a factory."""
        self.store = CertificateStore(
            [self.first, self.second],
            now=lambda: self.now,
            meters=self.meters,
            min_version=min_version,
        )
        clock = Clock()
        self.http = RecorderFactory()
        self.factory = TLSFactory(
            self.store,
            {HTTP1: self.http},
            clock=clock,
            wheel=DeadlineWheel(clock),
            meters=self.meters,
        )

    def connect(self, name: bytes = b"", **options: object) -> MemoryClient:
        """Shake hands."""
        client = MemoryClient(self.factory, client_context(**options), name)
        client.shake()
        return client


class NamesTests(StoreCase):
    """Which certificate is shown to whom."""

    def test_interface(self) -> None:
        """The store is what Twisted's TLS asks for connections."""
        verifyObject(IOpenSSLServerConnectionCreator, self.store)

    def test_by_name(self) -> None:
        """Exact names and one label below a wildcard get their certificate, others the first."""
        for name, shown in (
            (b"", "a.example.org"),
            (b"a.example.org", "a.example.org"),
            (b"B.example.org", "b.example.org"),
            (b"x.c.example.org", "b.example.org"),
            (b"x.y.c.example.org", "a.example.org"),
            (b"c.example.org", "a.example.org"),
            (b"unknown.example.org", "a.example.org"),
            (b"\xff", "a.example.org"),
        ):
            self.assertEqual(self.connect(name).shown, shown, name)

    def test_names(self) -> None:
        """The store tells every name it can prove."""
        self.assertEqual(self.store.names, ("a.example.org", "b.example.org", "*.c.example.org"))
        self.assertEqual(self.store.first_expiry, load_certificate(self.first).not_after)


class PolicyTests(StoreCase):
    """What is agreed with clients."""

    def test_versions(self) -> None:
        """TLS 1.3 and 1.2 are spoken, 1.1 is refused."""
        self.assertEqual(self.connect().tls.get_protocol_version_name(), "TLSv1.3")
        older = self.connect(maximum=SSL.TLS1_2_VERSION)
        self.assertEqual(older.tls.get_protocol_version_name(), "TLSv1.2")
        self.assertRaises(SSL.Error, self.connect, maximum=SSL.TLS1_1_VERSION)

    def test_newest_only(self) -> None:
        """With ``min_version = 1.3`` nothing older is spoken, whatever certificate is asked for."""
        self.serve(min_version="1.3")
        for name in (b"", b"b.example.org"):
            self.assertEqual(self.connect(name).tls.get_protocol_version_name(), "TLSv1.3")
            self.assertRaises(SSL.Error, self.connect, name, maximum=SSL.TLS1_2_VERSION)

    def test_only_aead(self) -> None:
        """CBC suites and RSA key exchange are refused."""
        for ciphers in (
            b"ECDHE-ECDSA-AES128-SHA256",
            b"AES128-GCM-SHA256",
            b"ECDHE-ECDSA-AES256-SHA",
        ):
            self.assertRaises(
                SSL.Error,
                self.connect,
                maximum=SSL.TLS1_2_VERSION,
                ciphers=ciphers + b":@SECLEVEL=0",
            )

    def test_sessions_resume(self) -> None:
        """A client that comes back resumes its session, over both versions and another name."""
        for maximum in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for name in (b"a.example.org", b"b.example.org"):
                context = client_context(maximum=maximum)
                first = MemoryClient(self.factory, context, name)
                first.shake()
                first.say(b"x")
                self.assertFalse(resumed(first))
                again = MemoryClient(self.factory, context, name, first.tls.get_session())
                again.shake()
                self.assertTrue(resumed(again), (maximum, name))

    def test_alpn(self) -> None:
        """HTTP/1.1 is agreed on; a client that asks only for others is served without."""
        self.assertEqual(self.connect(alpn=[b"h2", HTTP1]).tls.get_alpn_proto_negotiated(), HTTP1)
        self.assertEqual(self.connect(alpn=[b"h2"]).tls.get_alpn_proto_negotiated(), b"")
        self.assertEqual(
            self.connect(b"b.example.org", alpn=[b"h2", HTTP1]).tls.get_alpn_proto_negotiated(),
            HTTP1,
        )

    def test_chain(self) -> None:
        """Every certificate of the file is sent, the server's own first."""
        with open(self.first.chain, "ab") as stream, open(self.second.chain, "rb") as other:
            stream.write(other.read())
        self.store.reload()
        chain = self.connect().tls.get_peer_cert_chain(as_cryptography=True)
        assert chain is not None
        self.assertEqual(tuple(chain), self.store.certificates[0].chain)
        self.assertEqual(len(chain), 2)

    def test_groups(self) -> None:
        """The post-quantum hybrid or X25519 is agreed on where the client offers them."""
        self.assertIn("X25519", str(self.connect().tls.get_group_name()).upper())

    def test_key_no_server_can_use(self) -> None:
        """A key that can not sign is refused in words."""
        good = load_certificate(self.first)
        odd = Certificate(
            files=good.files,
            chain=good.chain,
            key=x25519.X25519PrivateKey.generate(),
            names=good.names,
            not_after=good.not_after,
        )
        error = self.assertRaises(CertificateError, server_context, odd, (HTTP1,))
        self.assertIn("OpenSSL does not accept", str(error))


class SwapTests(StoreCase):
    """Certificates replaced while running (R64)."""

    def replace(self, *names: str) -> None:
        """Put another pair in the first one's place."""
        write_certificate(self.directory, "first", *names)

    def test_new_handshakes_use_the_new_pair(self) -> None:
        """After a swap new connections see the new certificate, open ones go on."""
        client = self.connect()
        self.assertFalse(self.store.refresh())
        self.replace("new.example.org")
        self.assertTrue(self.store.refresh())
        self.assertEqual(self.connect().shown, "new.example.org")
        self.assertEqual(client.say(b"still here"), b"still here")
        self.assertEqual(self.meters.events["certificate_reloaded"], 1)

    def test_bad_pair_keeps_the_old(self) -> None:
        """A key that does not belong to the certificate changes nothing and is told once."""
        os.replace(self.second.key, self.first.key)
        self.assertFalse(self.store.refresh())
        self.assertEqual(self.connect().shown, "a.example.org")
        self.assertFalse(self.store.refresh())
        self.assertEqual(self.meters.events["certificate_reload_failed"], 1)
        os.unlink(self.first.key)
        self.assertFalse(self.store.refresh())
        self.assertEqual(self.meters.events["certificate_reload_failed"], 2)

    def test_touched_file_is_no_change(self) -> None:
        """The same certificate read again is not announced."""
        os.utime(self.first.chain, (1, 1))
        self.assertFalse(self.store.refresh())
        self.assertEqual(self.meters.events["certificate_reloaded"], 0)

    def test_tickets_outlive_a_look(self) -> None:
        """Sessions are resumed after the same certificate was read again."""
        context = client_context()
        first = MemoryClient(self.factory, context, b"")
        first.shake()
        first.say(b"x")
        os.utime(self.first.chain, (1, 1))
        self.assertFalse(self.store.refresh())
        again = MemoryClient(self.factory, context, b"", first.tls.get_session())
        again.shake()
        self.assertTrue(resumed(again))

    def test_made_certificates_are_asked_again(self) -> None:
        """A source that is called is asked at most once a minute."""
        asked = []

        def source() -> Certificate:
            asked.append(self.now)
            return load_certificate(self.second)

        store = CertificateStore([source], now=lambda: self.now, meters=self.meters)
        self.assertFalse(store.refresh())
        self.now += timedelta(seconds=61)
        self.assertFalse(store.refresh())
        self.assertEqual(len(asked), 2)

    def test_nothing_configured(self) -> None:
        """A store needs a certificate."""
        self.assertRaises(
            CertificateError, CertificateStore, [], now=lambda: self.now, meters=self.meters
        )


class ExpiryTests(StoreCase):
    """Warnings before the end."""

    def test_each_threshold_once(self) -> None:
        """30, 7 and 1 days before the end and after it, one line each."""
        store = CertificateStore([self.first], now=lambda: self.now, meters=self.meters)
        end: datetime = store.first_expiry
        lines: list[LogLevel] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if "{chain}" in str(event["log_format"]):
                lines.append(event["log_level"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        counts = []
        for days in (40, 29, 28, 7, 6, 0.5, -1, -2):
            self.now = end - timedelta(days=days)
            store.refresh()
            counts.append(len(lines))
        self.assertEqual(counts, [0, 1, 1, 2, 2, 3, 4, 4])
        self.assertIs(lines[-1], LogLevel.error)
