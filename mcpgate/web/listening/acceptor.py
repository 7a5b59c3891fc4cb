"""
Accepts from a listening socket that other processes accept from, too.

Twisted's own port takes up to a hundred waiting connections in one turn; here it is one at a time,
so that whoever has least to do takes the next.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from typing_extensions import override

log = Logger()

# With no descriptor left, trying again at once would be all this process does.
_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST_S: Final = 0.1


class Acceptor(FileDescriptor):
    """
    Makes connections of a factory.

    :param listening: bound and listening; owned by this from now on.
    """

    def __init__(self, reactor: Any, listening: socket.socket, factory: IProtocolFactory) -> None:
        super().__init__(reactor)
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._held = False
        listening.setblocking(False)

    @override
    def fileno(self) -> int:
        return self._socket.fileno()

    def start(self) -> None:
        """Begin to accept."""
        self._factory.doStart()
        self.startReading()

    def hold(self, held: bool) -> None:
        """Leave connections to wait in the kernel's queue, or take them again."""
        self._held = held
        if held:
            self.stopReading()
        else:
            self._again()

    def close(self) -> None:
        """Accept no more."""
        if self._socket.fileno() >= 0:
            self.stopReading()
            self._socket.close()
            self._factory.doStop()

    @override
    def doRead(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                log.warn("A connection can not be accepted: {why}", ev="accept", why=error.strerror)
                self.stopReading()
                self._reactor.callLater(_REST_S, self._again)
            # Else another process was faster, or the client has gone already.
            return
        with connection:
            connection.setblocking(False)
            try:
                # Takes a descriptor of its own.
                self._reactor.adoptStreamConnection(
                    connection.fileno(), self._socket.family, self._factory
                )
            except OSError:
                pass  # The client had gone before it was asked who it is.
            except Exception:
                # A border: whatever one connection does, the next is accepted.
                log.failure("A connection could not be made")

    def _again(self) -> None:
        if self._socket.fileno() >= 0 and not self._held:
            self.startReading()
