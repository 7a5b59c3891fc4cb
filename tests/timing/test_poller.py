"""Sockets watched by an epoll of our own, with reactors that nobody runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTCP, IReactorUNIX
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface import implementer

from mcpgate.timing.poller import polled


class Talk(Protocol):
    """Writes down what happens."""

    transport: Any

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.end: Failure | None = None
        self.on_data: Callable[[bytes], None] = lambda data: None

    @override
    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        self.on_data(data)

    @override
    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.end = reason


@implementer(IHalfCloseableProtocol)
class HalfTalk(Talk):
    """Lives on when the other side says nothing more."""

    half = 0

    def readConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""
        self.half += 1

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""


class Noted(FileDescriptor):
    """A descriptor that writes down what it is told."""

    def __init__(self, reactor: Any, number: int) -> None:
        super().__init__(reactor)
        self.number = number
        self.told: list[str] = []
        self.answer: Any = None
        self.lost: Failure | None = None
        self.on_read: Callable[[], None] = lambda: None

    @override
    def fileno(self) -> int:
        return self.number

    @override
    def doRead(self) -> Any:
        self.told.append("read")
        self.on_read()
        return self.answer

    @override
    def doWrite(self) -> Any:
        self.told.append("write")
        return self.answer

    @override
    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        super().connectionLost(reason)


class PollerTests(SynchronousTestCase):
    """`polled`, below the reactor that most machines have."""

    def make_reactor(self) -> PosixReactorBase:
        """Make the reactor below."""
        return EPollReactor()

    @override
    def setUp(self) -> None:
        self.reactor: Any = self.make_reactor()
        self.addCleanup(self._close)
        self.sockets = polled(self.reactor)

    def _close(self) -> None:
        for one in self.reactor.removeAll():
            one.connectionLost(Failure(ConnectionDone()))
        for waker in tuple(self.reactor._internalReaders):
            self.reactor._internalReaders.discard(waker)
            self.reactor.removeReader(waker)
            waker.connectionLost(Failure(ConnectionDone()))

    def turn(self, times: int = 1) -> None:
        """Let the reactor have turns."""
        for _ in range(times):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Give two connected sockets."""
        one, other = socket.socketpair()
        for end in (one, other):
            end.setblocking(False)
            self.addCleanup(end.close)
        return one, other

    def connect(self, talk: Talk) -> socket.socket:
        """Make a connection of a protocol; give its other end."""
        one, other = self.pair()
        self.sockets.adoptStreamConnection(
            one.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: talk)
        )
        one.close()
        return other

    def noted(self) -> tuple[Noted, socket.socket]:
        """Make a descriptor; give its other end."""
        one, other = self.pair()
        return Noted(self.sockets, one.fileno()), other

    def test_reads_and_writes(self) -> None:
        """What comes is told, what is written goes out."""
        talk = Talk()
        other = self.connect(talk)
        self.turn()
        self.assertEqual(talk.heard, [])
        other.send(b"question")
        self.turn()
        self.assertEqual(talk.heard, [b"question"])
        talk.transport.write(b"answer")
        self.turn()
        self.assertEqual(other.recv(100), b"answer")
        self.assertEqual(self.sockets.getWriters(), [])

    def test_much(self) -> None:
        """What the kernel does not take at once goes out later, in order."""
        talk = Talk()
        other = self.connect(talk)
        sent = os.urandom(1 << 20)
        talk.transport.write(sent)
        got = b""
        while len(got) < len(sent):
            self.turn()
            got += other.recv(1 << 20)
        self.assertEqual(got, sent)

    def test_pause(self) -> None:
        """Nothing is read while nobody wants it."""
        talk = Talk()
        other = self.connect(talk)
        talk.transport.pauseProducing()
        other.send(b"later")
        self.turn(2)
        self.assertEqual(talk.heard, [])
        talk.transport.resumeProducing()
        self.turn()
        self.assertEqual(talk.heard, [b"later"])

    def test_end(self) -> None:
        """A closed connection is done; nothing of it is watched any more."""
        talk = Talk()
        other = self.connect(talk)
        other.send(b"last words")
        other.close()
        self.turn(2)
        self.assertEqual(talk.heard, [b"last words"])
        assert talk.end is not None
        self.assertIsInstance(talk.end.value, ConnectionDone)
        self.assertEqual(self.sockets.getReaders(), [])

    def test_half_end(self) -> None:
        """A closed half is told as such, once; the other half goes on."""
        talk = HalfTalk()
        other = self.connect(talk)
        other.shutdown(socket.SHUT_WR)
        self.turn(3)
        self.assertEqual((talk.half, talk.end), (1, None))
        talk.transport.write(b"answer")
        self.turn()
        self.assertEqual(other.recv(100), b"answer")

    def test_reset(self) -> None:
        """A connection that was cut off is lost."""
        talk = Talk()
        other = self.connect(talk)
        talk.transport.write(b"unread")
        self.turn()
        other.close()
        self.turn(2)
        assert talk.end is not None
        self.assertIsInstance(talk.end.value, ConnectionLost)

    def test_gone_while_writing(self) -> None:
        """The end of a descriptor that only writes is a loss; of one that reads it is an end."""
        for reads, kind in ((False, ConnectionLost), (True, ConnectionDone)):
            read, write = os.pipe()
            self.addCleanup(os.close, write)
            noted = Noted(self.sockets, write)
            if reads:
                self.sockets.addReader(noted)
            else:
                os.set_blocking(write, False)
                while True:
                    try:
                        os.write(write, b"x" * 4096)
                    except BlockingIOError:
                        break
                self.sockets.addWriter(noted)
            self.turn()
            self.assertEqual(noted.told, [])
            os.close(read)
            self.turn()
            assert noted.lost is not None
            self.assertIs(type(noted.lost.value), kind)

    def test_failure(self) -> None:
        """What a protocol raises is logged and ends its connection, and no other's."""

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        talk, neighbour = Talk(), Talk()
        talk.on_data = fail
        other, elsewhere = self.connect(talk), self.connect(neighbour)
        other.send(b"x")
        elsewhere.send(b"y")
        self.turn()
        assert talk.end is not None
        self.assertIsInstance(talk.end.value, ZeroDivisionError)
        self.assertEqual((neighbour.heard, neighbour.end), ([b"y"], None))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reads_before_it_writes(self) -> None:
        """Both in one turn; what reading ended is not written to."""
        noted, other = self.noted()
        other.send(b"x")
        self.sockets.addReader(noted)
        self.sockets.addWriter(noted)
        self.turn()
        self.assertEqual(noted.told, ["read", "write"])
        noted.on_read = lambda: self.sockets.removeWriter(noted)
        self.turn()
        self.assertEqual(noted.told, ["read", "write", "read"])

    def test_number_of_another(self) -> None:
        """An event of a descriptor that is gone is not for whoever has its number now."""
        nodes = [self.noted() for _ in range(2)]
        for noted, other in nodes:
            self.sockets.addReader(noted)
            other.send(b"x")
        replaced: list[Noted] = []

        def replace(gone: Noted) -> None:
            if replaced:
                return
            self.sockets.removeReader(gone)
            fresh, _ = self.noted()
            os.dup2(fresh.number, gone.number)
            fresh.number = gone.number
            self.sockets.addReader(fresh)
            replaced.append(fresh)

        (one, _), (another, _) = nodes
        one.on_read = lambda: replace(another)
        another.on_read = lambda: replace(one)
        self.turn()
        self.assertEqual(len(one.told) + len(another.told), 1)
        self.assertEqual([fresh.told for fresh in replaced], [[]])
        self.turn(2)
        self.assertEqual([fresh.told for fresh in replaced], [[]])

    def test_bound_of_a_turn(self) -> None:
        """However many are ready, others have their turn in between; nobody is left out."""
        nodes = [self.noted() for _ in range(200)]
        for noted, other in nodes:
            other.send(b"x")
            self.sockets.addReader(noted)
        self.turn()
        self.assertEqual(sum(len(noted.told) for noted, _ in nodes), 128)
        self.turn()
        self.assertTrue(all(noted.told for noted, _ in nodes))

    def test_closed_without_a_word(self) -> None:
        """A descriptor that was closed before it was let go of leaves nothing behind."""
        noted, _ = self.noted()
        self.sockets.addReader(noted)
        os.close(os.dup(noted.number))
        number, noted.number = noted.number, -1
        self.sockets.removeReader(noted)
        self.assertEqual(self.sockets.getReaders(), [])
        again = Noted(self.sockets, number)
        self.sockets.addReader(again)
        self.assertEqual(self.sockets.getReaders(), [again])

    def test_unknown(self) -> None:
        """To let go of what is not watched does nothing, also where another has its number."""
        noted, _ = self.noted()
        self.sockets.removeReader(noted)
        self.sockets.addReader(noted)
        self.sockets.removeReader(Noted(self.sockets, noted.number))
        self.sockets.removeWriter(noted)
        self.assertEqual(self.sockets.getReaders(), [noted])

    def test_reactor_knows_of_it_while_needed(self) -> None:
        """The reactor watches one reader, and none when there is nothing to watch."""
        before = self.reactor.getReaders()
        nodes = [self.noted()[0] for _ in range(3)]
        for noted in nodes:
            self.sockets.addReader(noted)
        self.assertEqual(len(self.reactor.getReaders()), len(before) + 1)
        self.assertCountEqual(self.sockets.removeAll(), nodes)
        self.assertEqual(self.reactor.getReaders(), before)

    def test_end_of_the_reactor(self) -> None:
        """When the reactor ends, every connection does."""
        talks = [Talk(), Talk()]
        for talk in talks:
            self.connect(talk)
        (poller,) = self.reactor.removeAll()
        poller.connectionLost(Failure(ConnectionLost()))
        for talk in talks:
            assert talk.end is not None
            self.assertIsInstance(talk.end.value, ConnectionLost)

    def test_all_else_is_the_reactors(self) -> None:
        """Time, threads and names are the reactor's own."""
        called: list[int] = []
        self.sockets.callLater(0, called.append, 1)
        self.turn()
        self.assertEqual(called, [1])
        self.assertTrue(IReactorTCP.providedBy(self.sockets))
        self.assertTrue(IReactorUNIX.providedBy(self.sockets))


class SelectPollerTests(PollerTests):
    """The same below a reactor that knows no epoll itself."""

    @override
    def make_reactor(self) -> PosixReactorBase:
        return SelectReactor()


class PolledTests(SynchronousTestCase):
    """Where it is of no use."""

    def test_other_reactors(self) -> None:
        """A reactor that is none of descriptors is left as it is."""
        reactor = MemoryReactorClock()
        self.assertIs(polled(reactor), reactor)
