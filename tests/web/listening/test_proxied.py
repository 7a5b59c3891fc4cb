"""Tests for `mcpgate.web.listening.proxied`."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.proxied import ProxiedConnection, ProxiedFactory, read_header
from tests.web.memory_tls import CLIENT, RecorderFactory, Wire

V1 = b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
SOURCE = IPv4Address("TCP", "203.0.113.5", 4711)
TARGET = IPv4Address("TCP", "192.0.2.1", 443)


def version_2(command: int, family: int, body: bytes) -> bytes:
    """Make a binary header."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


V2 = version_2(0x21, 0x11, bytes([203, 0, 113, 5, 192, 0, 2, 1]) + struct.pack("!HH", 4711, 443))


class HeaderTests(SynchronousTestCase):
    """Reading headers."""

    def test_complete(self) -> None:
        """Both versions tell the client and what it connected to."""
        for data in (V1, V2, V1 + b"GET /", V2 + b"\x16\x03"):
            header = read_header(data)
            assert header is not None
            self.assertEqual((header.source, header.destination), (SOURCE, TARGET))

    def test_version_6(self) -> None:
        """IPv6 is understood in both versions."""
        body = bytes(15) + b"\1" + bytes(15) + b"\2" + struct.pack("!HH", 1, 2) + b"tlv"
        for data in (b"PROXY TCP6 ::1 ::2 1 2\r\n", version_2(0x21, 0x21, body)):
            header = read_header(data)
            assert header is not None
            self.assertEqual(header.source, IPv6Address("TCP", "::1", 1))
            self.assertEqual(header.size, len(data))

    def test_speaking_for_itself(self) -> None:
        """A balancer's own checks name nobody."""
        for data in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ::1 ::1 1 1\r\n",
            version_2(0x20, 0, b""),
            version_2(0x21, 0x31, bytes(216)),
        ):
            header = read_header(data)
            assert header is not None
            self.assertIsNone(header.source)
            self.assertEqual(header.size, len(data))

    def test_bit_by_bit(self) -> None:
        """A header in pieces is waited for."""
        for data in (V1, V2):
            for size in range(len(data)):
                self.assertIsNone(read_header(data[:size]))

    def test_malformed(self) -> None:
        """What is no header, or a broken one, is refused."""
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 1.2.3.4\r\n",
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 junk 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 70000 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
            b"PROXY TCP4 \xff 1.2.3.4 1 1\r\n",
            b"PROXY " + b"x" * 200,
            version_2(0x11, 0x11, bytes(12)),
            version_2(0x22, 0x11, bytes(12)),
            version_2(0x21, 0x11, bytes(11)),
            version_2(0x21, 0x21, bytes(35)),
            version_2(0x21, 0x11, bytes(5000)),
        ):
            self.assertRaises(ValueError, read_header, data)

    @given(st.sampled_from([b"PROXY ", SIGNATURE, b""]), st.binary(max_size=64))
    @settings(max_examples=100)
    def test_anything(self, begin: bytes, rest: bytes) -> None:
        """Whatever comes is read, waited for or refused."""
        try:
            read_header(begin + rest)
        except ValueError:
            pass


class ConnectionTests(SynchronousTestCase):
    """The protocol behind sees the client, not the balancer."""

    @override
    def setUp(self) -> None:
        self.clock = Clock()
        self.http = RecorderFactory()
        self.meters = Meters()
        self.factory = ProxiedFactory(
            self.http, wheel=DeadlineWheel(self.clock), meters=self.meters
        )
        self.wire = Wire()
        self.connection: ProxiedConnection = self.factory.buildProtocol(CLIENT)
        self.connection.makeConnection(self.wire)

    def test_client_is_seen(self) -> None:
        """Peer and host are those of the header, from the first moment on."""
        for piece in (V1[:3], V1[3:] + b"he", b"llo"):
            self.connection.dataReceived(piece)
        behind = self.http.built[0]
        self.assertEqual((behind.address, behind.peer, behind.host), (SOURCE, SOURCE, TARGET))
        self.assertEqual(behind.received, b"hello")
        self.assertEqual(self.wire.value(), b"hello")
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(behind.lost)

    def test_balancer_itself(self) -> None:
        """A header without addresses leaves the balancer's own."""
        self.connection.dataReceived(version_2(0x20, 0, b""))
        behind = self.http.built[0]
        self.assertEqual((behind.address, behind.peer), (CLIENT, CLIENT))
        self.assertEqual(behind.host, self.wire.getHost())

    def test_deadline(self) -> None:
        """A header that does not come ends the connection."""
        self.connection.dataReceived(V1[:10])
        self.clock.pump([1.0] * 11)
        self.assertTrue(self.wire.aborted)
        self.assertEqual(self.meters.events["proxy_header_refused"], 1)
        self.connection.dataReceived(V1[10:])
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.http.built, [])

    def test_no_deadline_after_the_header(self) -> None:
        """A complete header ends the deadline."""
        self.connection.dataReceived(V1)
        self.clock.pump([1.0] * 11)
        self.assertFalse(self.wire.aborted)

    def test_no_header(self) -> None:
        """Who speaks without a header is cut off."""
        self.connection.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(self.wire.aborted)

    def test_full_behind(self) -> None:
        """A refusal of the factory behind closes."""
        self.http.full = True
        self.connection.dataReceived(V1)
        self.assertTrue(self.wire.disconnecting)
