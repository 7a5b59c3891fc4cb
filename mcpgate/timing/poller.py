"""
Sockets watched by an epoll of our own, which the reactor sees as one reader.

Twisted's reactor sets up a logging context around each event of each socket: for small requests
that is a tenth of all the work.  Here a turn goes through the sockets that are ready in one loop.
What happens to them is what the reactor would have done: exceptions are logged and end the
connection, a closed half is told as such, errors of the socket as a lost connection.
"""

from __future__ import annotations

import select
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IReactorFDSet,
    IReadDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

log = Logger()

# Events of one turn: what the reactor has to do besides has its turn after so many.
_AT_ONCE: Final = 128

_IN: Final = getattr(select, "EPOLLIN", 1)
_OUT: Final = getattr(select, "EPOLLOUT", 4)
_OVER: Final = getattr(select, "EPOLLHUP", 16) | getattr(select, "EPOLLERR", 8)

_DONE: Final = Failure(ConnectionDone())
_LOST: Final = Failure(ConnectionLost())


def polled(reactor: Any) -> Any:
    """
    Give what to make sockets with in the reactor's place; where that is no help, the reactor.

    It is the reactor in everything but the watching of descriptors.  Call it once for a reactor:
    each one has an epoll of its own.
    """
    if isinstance(reactor, PosixReactorBase) and hasattr(select, "epoll"):
        return PolledReactor(reactor)
    return reactor


@implementer(IReadDescriptor)
class _Poller:
    """All descriptors of one `PolledReactor`, as one reader of the reactor."""

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._selectables: dict[int, Any] = {}
        self._masks: dict[int, int] = {}
        # Descriptors let go of in this turn: an event left for one is not for whoever has its
        # number now.
        self._gone: set[int] = set()

    # --- What the reactor calls

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "sockets"

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`: the reactor ends."""
        for selectable in tuple(self._selectables.values()):
            self.forget(selectable, _IN | _OUT)
            try:
                selectable.connectionLost(reason)
            except Exception:
                log.failure("Ending a connection failed")

    def doRead(self) -> None:
        """Do one turn."""
        selectables = self._selectables
        gone = self._gone
        gone.clear()
        for fd, event in self._epoll.poll(0, _AT_ONCE):
            selectable = selectables.get(fd)
            if selectable is None or fd in gone:
                continue
            why: Any = None
            reading = False
            if event & _OVER and not event & _IN:
                # What it sent was read to its end.
                reading = bool(self._masks[fd] & _IN)
                why = CONNECTION_DONE if reading else CONNECTION_LOST
            else:
                try:
                    if event & _IN:
                        reading = True
                        why = selectable.doRead()
                    if event & _OUT and not why and self._writes(selectable, fd):
                        reading = False
                        why = selectable.doWrite()
                except BaseException as error:
                    log.failure("A connection failed")
                    why = error
            if why:
                self._disconnect(selectable, why, reading)

    def _writes(self, selectable: Any, fd: int) -> bool:
        """Tell whether it still wants to write, after it was read from."""
        return self._selectables.get(fd) is selectable and bool(self._masks[fd] & _OUT)

    def _disconnect(self, selectable: Any, why: Any, reading: bool) -> None:
        self.forget(selectable, _IN)
        if isinstance(why, ConnectionDone):
            reason = _DONE
            if reading and IHalfCloseableDescriptor.providedBy(selectable):
                selectable.readConnectionLost(reason)
                return
        else:
            reason = _LOST if type(why) is ConnectionLost else Failure(why)
        self.forget(selectable, _OUT)
        selectable.connectionLost(reason)

    # --- What transports call

    def watch(self, selectable: Any, event: int) -> None:
        """Have a descriptor watched for one event more."""
        fd = selectable.fileno()
        if self._selectables.get(fd) is selectable:
            mask = self._masks[fd]
            if not mask & event:
                self._epoll.modify(fd, mask | event)
                self._masks[fd] = mask | event
            return
        try:
            self._epoll.register(fd, event)
        except FileExistsError:
            # Somebody let go of a descriptor without a word, and it lives on elsewhere.
            self._epoll.modify(fd, event)
        self._selectables[fd] = selectable
        self._masks[fd] = event
        if len(self._selectables) == 1:
            self._reactor.addReader(self)

    def forget(self, selectable: Any, event: int) -> None:
        """Have a descriptor watched for one event less."""
        fd = selectable.fileno()
        if fd < 0:
            # Closed already; it should have come before.
            fd = next((fd for fd, one in self._selectables.items() if one is selectable), -1)
        if self._selectables.get(fd) is not selectable:
            return
        mask = self._masks[fd]
        left = mask & ~event
        if left == mask:
            return
        if left:
            self._epoll.modify(fd, left)
            self._masks[fd] = left
            return
        del self._selectables[fd], self._masks[fd]
        self._gone.add(fd)
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # The kernel forgot it when it was closed.
        if not self._selectables:
            self._reactor.removeReader(self)

    def watched(self, event: int) -> list[Any]:
        """Give what is watched for an event."""
        return [one for fd, one in self._selectables.items() if self._masks[fd] & event]


@implementer(IReactorFDSet)
class PolledReactor:
    """
    A reactor whose sockets are watched by an epoll of their own.  See `polled`.

    What is not about descriptors, time above all, is the reactor's own.
    """

    # They make transports that register themselves with the reactor they are given.
    listenTCP = PosixReactorBase.listenTCP
    connectTCP = PosixReactorBase.connectTCP
    listenUNIX = PosixReactorBase.listenUNIX
    connectUNIX = PosixReactorBase.connectUNIX
    adoptStreamPort = PosixReactorBase.adoptStreamPort
    adoptStreamConnection = PosixReactorBase.adoptStreamConnection
    spawnProcess = PosixReactorBase.spawnProcess

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._poller = _Poller(reactor)
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # --- IReactorFDSet

    def addReader(self, reader: Any) -> None:
        """See `IReactorFDSet`."""
        self._poller.watch(reader, _IN)

    def addWriter(self, writer: Any) -> None:
        """See `IReactorFDSet`."""
        self._poller.watch(writer, _OUT)

    def removeReader(self, reader: Any) -> None:
        """See `IReactorFDSet`."""
        self._poller.forget(reader, _IN)

    def removeWriter(self, writer: Any) -> None:
        """See `IReactorFDSet`."""
        self._poller.forget(writer, _OUT)

    def removeAll(self) -> list[Any]:
        """See `IReactorFDSet`."""
        removed = {*self.getReaders(), *self.getWriters()}
        for one in removed:
            self._poller.forget(one, _IN | _OUT)
        return list(removed)

    def getReaders(self) -> list[Any]:
        """See `IReactorFDSet`."""
        return self._poller.watched(_IN)

    def getWriters(self) -> list[Any]:
        """See `IReactorFDSet`."""
        return self._poller.watched(_OUT)
