"""
TLS on the socket itself: OpenSSL reads and writes it, as it does for nginx.

Twisted's own TLS passes every byte through two memory buffers, in some ten calls for a small
request.  It is left to shake hands, which it does well; then `take_over` has the connection go on
without it: one call to read a record, one to write one, and no buffers that stay.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.error import ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from typing_extensions import override

# The most a record holds (RFC 8446 5.1), which is the most that OpenSSL reads at once.
_RECORD: Final = 16384
# Full records read in one turn: more is likely to be there behind one.
_AT_ONCE: Final = 4
# Every byte is copied out before anything else is read.
_ROOM: Final = ffi.new("char[]", _RECORD)


class TLSSocket(Server):
    """
    A connection that was accepted, and whose TLS handshake is complete.

    To its protocol it is a TCP transport as any other: what is read is plain, so is what is
    written, and closing half of it says so to the client (RFC 8446 6.1).
    """

    # Made of a `Server` by `take_over`.  OpenSSL's handle; what pyOpenSSL has around it was for the
    # handshake, but that the context has to live as long.
    _ssl: Any
    _context: SSL.Context | None

    @override
    def doRead(self) -> Any:
        ssl = self._ssl
        lib.ERR_clear_error()
        got = lib.SSL_read(ssl, _ROOM, _RECORD)
        if got <= 0:
            return self._why(ssl, got)
        data = ffi.buffer(_ROOM, got)[:]
        why = None
        if got == _RECORD:
            pieces = [data]
            while got == _RECORD and len(pieces) < _AT_ONCE:
                got = lib.SSL_read(ssl, _ROOM, _RECORD)
                if got <= 0:
                    why = self._why(ssl, got)
                    break
                pieces.append(ffi.buffer(_ROOM, got)[:])
            data = b"".join(pieces)
        self.protocol.dataReceived(data)
        return why

    def _why(self, ssl: Any, result: int) -> Any:
        """Tell why a call came to nothing: None when it has to wait, else how the client left."""
        error = lib.SSL_get_error(ssl, result)
        if error in (lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_WANT_WRITE):
            return None
        lib.ERR_clear_error()
        if error == lib.SSL_ERROR_ZERO_RETURN:
            self._say_goodbye()
            return CONNECTION_DONE
        return CONNECTION_LOST

    @override
    def writeSomeData(self, data: bytes | memoryview) -> int | ConnectionLost:
        size = min(len(data), self.SEND_LIMIT)
        sent = 0
        lib.ERR_clear_error()
        with ffi.from_buffer(data) as start:
            while sent < size:
                # In part and from elsewhere next time: pyOpenSSL's contexts allow for that.
                done = lib.SSL_write(self._ssl, start + sent, size - sent)
                if done <= 0:
                    why = self._why(self._ssl, done)
                    return sent if why is None else CONNECTION_LOST
                sent += done
        return sent

    def send_now(self, data: bytes) -> int:
        """Send what the system takes of data at once, and tell how much that was; never raises."""
        # A loss is left to the reactor to find, so that nobody is told from here.
        if len(data) <= _RECORD:
            lib.ERR_clear_error()
            done: int = lib.SSL_write(self._ssl, data, len(data))
            return max(0, done)
        sent = self.writeSomeData(data)
        return sent if isinstance(sent, int) else 0

    # --- Ends ---------------------------------------------------------------------------------

    def _say_goodbye(self) -> None:
        """Send the alert that nothing more comes, if the system takes it."""
        lib.ERR_clear_error()
        lib.SSL_shutdown(self._ssl)
        lib.ERR_clear_error()

    @override
    def _closeWriteConnection(self) -> None:
        self._say_goodbye()
        super()._closeWriteConnection()

    @override
    def _postLoseConnection(self) -> Any:
        self._say_goodbye()
        return super()._postLoseConnection()

    @override
    def readConnectionLost(self, reason: Failure) -> None:
        # Who says goodbye under TLS has left, and does not wait for an answer.
        self.connectionLost(reason)

    @override
    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self._ssl = self._context = None


def take_over(transport: object, tls: SSL.Connection) -> TLSSocket | None:
    """
    Put a connection's TLS on its socket.

    :param transport: what the handshake went through.
    :param tls: of memory buffers; everything that came was read out of it, and everything it wrote
        was given to the transport.
    :return: None where that can not be, and all goes on as it was: it is not a TCP connection of
        our own, or its client is slow to take the last words of the handshake.
    """
    if type(transport) is not Server or not _flush(transport):
        return None
    if any(lib.BIO_get_mem_data(bio, ffi.new("char **")) for bio in (tls._into_ssl, tls._from_ssl)):
        return None
    if lib.SSL_set_fd(tls._ssl, transport.fileno()) != 1:
        lib.ERR_clear_error()
        return None
    # OpenSSL has let go of both.
    tls._into_ssl = tls._from_ssl = None
    # What reactor and port know of it stays as it is; Twisted's own startTLS goes about it so.
    transport.__class__ = TLSSocket
    assert isinstance(transport, TLSSocket)
    transport._ssl, transport._context = tls._ssl, tls.get_context()
    return transport


def _flush(transport: Server) -> bool:
    """Send what waits in a transport; it must not be taken for something to encrypt."""
    waiting = b"".join((transport.dataBuffer[transport.offset :], *transport._tempDataBuffer))
    try:
        sent = transport.socket.send(waiting) if waiting else 0
    except OSError:
        return False
    transport.dataBuffer, transport.offset = waiting[sent:], 0
    transport._tempDataBuffer, transport._tempDataLen = [], 0
    if sent < len(waiting):
        return False
    transport.stopWriting()
    return True
