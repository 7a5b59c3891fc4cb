"""Tests for `mcpgate.web.listening.handshake`."""

from __future__ import annotations

from datetime import UTC, datetime

from OpenSSL import SSL
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.handshake import PLAIN_ANSWER, TLSFactory
from mcpgate.web.listening.tls import HTTP1, HTTP2, CertificateStore
from tests.web.memory_tls import (
    CLIENT,
    MemoryClient,
    RecorderFactory,
    Wire,
    client_context,
    write_certificate,
)


class HandshakeTests(SynchronousTestCase):
    """From accept to the protocol behind."""

    @override
    def setUp(self) -> None:
        files = write_certificate(self.mktemp(), "a", "a.example.org")
        self.clock = Clock()
        self.meters = Meters()
        self.first = RecorderFactory()
        self.second = RecorderFactory()
        store = CertificateStore(
            [files], now=lambda: datetime.now(UTC), meters=self.meters, http2=True
        )
        self.factory = TLSFactory(
            store,
            {HTTP1: self.first, HTTP2: self.second},
            clock=self.clock,
            wheel=DeadlineWheel(self.clock),
            meters=self.meters,
            max_handshakes=4,
            max_per_address=3,
        )

    def open(self) -> Wire:
        """Connect without a word."""
        wire = Wire()
        protocol = self.factory.buildProtocol(CLIENT)
        assert protocol is not None
        protocol.makeConnection(wire)
        wire.protocol = protocol  # type: ignore[attr-defined]  # kept for the test
        return wire

    def test_alpn_chooses(self) -> None:
        """HTTP/2 and HTTP/1.1 go to their factories; who names neither gets HTTP/1.1."""
        for alpn, factory in (
            ([HTTP2, HTTP1], self.second),
            ([HTTP1], self.first),
            ([b"acme-tls/1"], self.first),
        ):
            client = MemoryClient(self.factory, client_context(alpn=alpn))
            before = len(factory.built)
            client.shake()
            self.assertEqual(len(factory.built), before + 1)
            self.assertEqual(client.say(b"hello"), b"hello")
            self.assertEqual(factory.built[-1].peer, CLIENT)

    def test_built_after_the_handshake(self) -> None:
        """An unfinished handshake costs no HTTP state."""
        self.open()
        self.assertEqual(self.first.built, [])

    def test_half_hello_is_cut(self) -> None:
        """A handshake that does not end is cut after ten seconds."""
        wire = self.open()
        wire.protocol.dataReceived(b"\x16\x03\x01\x02\x00\x01")  # type: ignore[attr-defined]  # set above
        self.clock.advance(9.9)
        self.assertFalse(wire.aborted)
        self.clock.pump([0.5, 0.5])
        self.assertTrue(wire.aborted)
        self.assertEqual(self.meters.events["tls_handshake_late"], 1)

    def test_finished_handshake_is_not_cut(self) -> None:
        """The deadline ends with the handshake."""
        client = MemoryClient(self.factory, client_context())
        client.shake()
        self.clock.pump([1.0] * 15)
        self.assertFalse(client.wire.aborted)

    def test_half_a_record_behind_the_handshake(self) -> None:
        """Nothing is lost of what came with the end of the handshake."""
        client = MemoryClient(self.factory, client_context())
        while True:
            try:
                client.tls.do_handshake()
            except SSL.WantReadError:
                client.pump()
            else:
                break
        client.tls.send(b"hello")
        data = client.tls.bio_read(1 << 16)
        assert client.server is not None
        client.server.dataReceived(data[:-5])
        client.server.dataReceived(data[-5:])
        client.pump()
        self.assertEqual(client.tls.recv(100), b"hello")

    def test_plain_http_is_told(self) -> None:
        """Plain HTTP on the TLS port gets a short answer and the close."""
        wire = self.open()
        wire.protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")  # type: ignore[attr-defined]  # set above
        self.assertEqual(wire.value(), PLAIN_ANSWER)
        self.assertTrue(wire.disconnecting)
        wire.protocol.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]  # set above
        self.assertEqual(self.meters.events["tls_handshake_failed"], 1)
        self.assertEqual(self.clock.getDelayedCalls() and self.first.built, [])

    def test_noise_is_closed(self) -> None:
        """Bytes that are neither are closed without a word."""
        wire = self.open()
        wire.protocol.dataReceived(b"\x00\x01")  # type: ignore[attr-defined]  # set above
        self.assertEqual(wire.value(), b"")
        self.assertTrue(wire.disconnecting)

    def test_broken_hello_is_closed(self) -> None:
        """A TLS record that is no hello is closed."""
        wire = self.open()
        wire.protocol.dataReceived(b"\x16\x03\x01\x00\x05hello")  # type: ignore[attr-defined]  # set above
        self.assertTrue(wire.disconnecting)

    def test_caps(self) -> None:
        """One address may not hold many unfinished handshakes, and all together not more."""
        wires = [self.open() for _ in range(3)]
        self.assertIsNone(self.factory.buildProtocol(CLIENT))
        local = UNIXAddress(b"/x")
        self.assertIsNotNone(self.factory.buildProtocol(local))
        self.assertIsNone(self.factory.buildProtocol(local))
        self.assertEqual(self.meters.events["tls_handshakes_full"], 2)
        for wire in wires:
            wire.protocol.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]  # set above
        self.assertIsNotNone(self.factory.buildProtocol(CLIENT))

    def test_full_behind(self) -> None:
        """When the protocol behind is refused the connection is closed in order."""
        self.first.full = True
        client = MemoryClient(self.factory, client_context())
        client.shake()
        self.assertRaises(SSL.ZeroReturnError, client.tls.recv, 100)

    def test_loss_reaches_the_protocol(self) -> None:
        """The protocol behind hears of the connection's end."""
        client = MemoryClient(self.factory, client_context())
        client.shake()
        assert client.server is not None
        client.server.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(self.first.built[0].lost)

    def test_factories_start_and_stop_together(self) -> None:
        """Both factories hear of the start and the stop."""
        self.factory.doStart()
        self.assertEqual((self.first.running, self.second.running), (1, 1))
        self.factory.doStop()
        self.assertEqual((self.first.running, self.second.running), (0, 0))
