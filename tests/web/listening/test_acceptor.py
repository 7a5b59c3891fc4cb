"""Tests of mcpgate.web.listening.acceptor."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.web.listening.acceptor import Acceptor


class Reactor(MemoryReactorClock):
    """Notes which connections it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[int] = []
        self.trouble: Exception | None = None

    def adoptStreamConnection(self, descriptor: int, *_: Any) -> None:  # Twisted's
        """See `IReactorSocket`."""
        if self.trouble is not None:
            raise self.trouble
        self.adopted.append(descriptor)


class FullSocket:
    """A listening socket with nothing to be had."""

    family = socket.AF_INET

    def __init__(self, number: int) -> None:
        self._number = number

    def setblocking(self, _: bool) -> None:
        """See `socket.socket`."""

    def fileno(self) -> int:
        """See `socket.socket`."""
        return 5

    def accept(self) -> Any:
        """See `socket.socket`."""
        raise OSError(self._number, "no")

    def close(self) -> None:
        """See `socket.socket`."""


class AcceptorTests(SynchronousTestCase):
    """One of several that accept from a socket."""

    def setUp(self) -> None:
        """Listen."""
        self.reactor: Any = Reactor()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.acceptor = Acceptor(self.reactor, listening, Factory())
        self.addCleanup(self.acceptor.close)
        self.acceptor.start()

    def connect(self) -> None:
        """Have a client come."""
        self.addCleanup(socket.create_connection(("127.0.0.1", self.port)).close)

    def test_one_at_a_time(self) -> None:
        """A turn takes one connection, the others are left for whoever is faster."""
        for _ in range(2):
            self.connect()
        self.acceptor.doRead()
        self.assertEqual(len(self.reactor.adopted), 1)
        self.acceptor.doRead()
        self.acceptor.doRead()  # Nobody is there any more.
        self.assertEqual(len(self.reactor.adopted), 2)

    def test_trouble(self) -> None:
        """A connection that can not be made costs no other."""
        for trouble in (OSError("gone"), RuntimeError("a fault of ours")):
            self.connect()
            self.reactor.trouble = trouble
            self.acceptor.doRead()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.reactor.trouble = None
        self.connect()
        self.acceptor.doRead()
        self.assertEqual(len(self.reactor.adopted), 1)

    def test_out_of_files(self) -> None:
        """Out of descriptors it rests for a moment; a faster neighbour is no reason to."""
        full: Any = FullSocket(errno.EMFILE)
        acceptor = Acceptor(self.reactor, full, Factory())
        acceptor.start()
        acceptor.doRead()
        self.assertNotIn(acceptor, self.reactor.getReaders())
        self.reactor.advance(0.1)
        self.assertIn(acceptor, self.reactor.getReaders())
        late: Any = FullSocket(errno.EAGAIN)
        acceptor = Acceptor(self.reactor, late, Factory())
        acceptor.start()
        acceptor.doRead()
        self.assertIn(acceptor, self.reactor.getReaders())

    def test_held(self) -> None:
        """Held, it leaves clients waiting."""
        self.acceptor.hold(True)
        self.assertNotIn(self.acceptor, self.reactor.getReaders())
        self.acceptor.hold(False)
        self.assertIn(self.acceptor, self.reactor.getReaders())

    def test_closed(self) -> None:
        """Closed, it stays closed."""
        self.acceptor.close()
        self.acceptor.close()
        self.acceptor.hold(False)
        self.assertNotIn(self.acceptor, self.reactor.getReaders())
