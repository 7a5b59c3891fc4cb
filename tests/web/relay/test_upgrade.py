"""Tests for `mcpgate.web.relay.upgrade`."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IProtocol, ISSLTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.relay.upgrade import Pipe
from tests.web.relayed import Wire


class HalfWire(Wire):
    """A transport whose halves close apart."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """See `IHalfCloseableDescriptor`."""
        self.half_closed = True


class PipeTests(SynchronousTestCase):
    """Two connections made one."""

    def setUp(self) -> None:
        """Join two wires."""
        self.clock = Clock()
        self.touched = 0
        self.overs = 0
        self.client, self.server = HalfWire(), HalfWire()

    def join(self) -> Pipe:
        """Join them."""

        def touched() -> None:
            self.touched += 1

        def over() -> None:
            self.overs += 1

        def opened(end: IProtocol) -> None:
            end.makeConnection(self.client)

        pipe = Pipe(DeadlineWheel(self.clock), open_client=opened, touched=touched, over=over)
        pipe.server.makeConnection(self.server)
        return pipe

    def lost(self, end: Any) -> None:
        """End a connection."""
        end.connectionLost(Failure(ConnectionDone()))

    def test_bytes(self) -> None:
        """What one side says the other hears, and each side is paused by the other."""
        pipe = self.join()
        pipe.client.dataReceived(b"up")
        pipe.server.dataReceived(b"down")
        self.assertEqual((self.server.value(), self.client.value()), (b"up", b"down"))
        self.assertEqual(self.touched, 2)
        self.assertIs(self.client.producer, self.server)
        self.assertIs(self.server.producer, self.client)

    def test_end(self) -> None:
        """When one side ends the other is ended in order; then it is over, once."""
        pipe = self.join()
        self.lost(pipe.server)
        self.assertTrue(self.client.disconnecting)
        self.assertFalse(self.client.aborted)
        self.assertIsNone(self.client.producer)
        pipe.client.dataReceived(b"late")
        self.assertEqual((self.server.value(), self.overs), (b"", 0))
        self.lost(pipe.client)
        self.assertEqual(self.overs, 1)
        pipe.abort()
        self.assertEqual(self.overs, 1)

    def test_lingering(self) -> None:
        """A side that does not read its last bytes is cut off in the end."""
        pipe = self.join()
        self.lost(pipe.client)
        self.clock.pump([1.0] * 32)
        self.assertTrue(self.server.aborted)
        self.lost(pipe.server)
        self.assertEqual(self.overs, 1)

    def test_half_close(self) -> None:
        """A side that said everything is still told the answer."""
        for wire in (self.client, self.server):
            directlyProvides(wire, IHalfCloseableDescriptor)
        pipe = self.join()
        pipe.client.readConnectionLost()
        pipe.server.writeConnectionLost()
        self.assertTrue(self.server.half_closed)
        self.assertFalse(self.server.disconnecting)
        pipe.server.dataReceived(b"answer")
        self.assertEqual(self.client.value(), b"answer")
        pipe.server.readConnectionLost()
        self.assertTrue(self.server.disconnecting and self.client.disconnecting)

    def test_no_half_close(self) -> None:
        """TLS knows no halves: it is closed whole."""
        directlyProvides(self.server, IHalfCloseableDescriptor, ISSLTransport)
        pipe = self.join()
        pipe.client.readConnectionLost()
        self.assertTrue(self.server.disconnecting)
        self.assertFalse(self.server.half_closed)

    def test_half_close_after_end(self) -> None:
        """A side that is gone is not told anything."""
        pipe = self.join()
        self.lost(pipe.server)
        pipe.client.readConnectionLost()
        self.assertFalse(self.server.half_closed)
