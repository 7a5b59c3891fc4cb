"""
One request under way to an HTTP server, from the caller's side.

It outlives a connection: while there is none yet, and when a harmless request is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from mcpgate.errors import GateError, Internal
from mcpgate.interfaces import IResponseReceiver, IUpstreamCall
from mcpgate.timing.wheel import Deadline

if TYPE_CHECKING:
    from mcpgate.upstream.connections import Connection
    from mcpgate.upstream.http import HTTPUpstream

# Requests without effects: asked again once when a reused connection turns out to be dead.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Below this, a chunk is joined with its framing into one write (one TLS record, one packet).
_JOIN_BYTES: Final = 16 * 1024


@implementer(IPushProducer)
class BodySource:
    """The source of a request body as a transport sees it."""

    __slots__ = ("pauseProducing", "resumeProducing")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.pauseProducing = pause
        self.resumeProducing = resume

    def stopProducing(self) -> None:
        """The connection's own end tells the receiver."""


@implementer(IUpstreamCall)
class Exchange:
    """
    One request and what is known of its answer.  See `IUpstreamCall`.

    :ivar sent: a byte may have reached the server.
    :ivar over: nothing more happens: answered, failed or given up.
    :ivar answered: the response head was passed on.
    """

    __slots__ = (
        "_flow",
        "_pending",
        "_unsent",
        "_upstream",
        "answered",
        "chunked",
        "connection",
        "deadline",
        "ended",
        "head",
        "method",
        "over",
        "paused",
        "pool",
        "progress_s",
        "receiver",
        "retried",
        "sent",
        "stream",
        "timeout_s",
        "upgrade",
    )

    def __init__(
        self,
        upstream: HTTPUpstream,
        method: str,
        head: bytes,
        receiver: IResponseReceiver,
        *,
        pool: Hashable,
        length: int | None,
        whole: bool,
        timeout_s: float,
        stream: bool,
        upgrade: bool,
    ) -> None:
        self._upstream = upstream
        self._pending: list[bytes] = []
        self._flow: BodySource | None = None
        self._unsent = 0 if whole else length
        self.chunked = not whole and length is None
        self.method = method
        self.head = head
        self.receiver = receiver
        self.pool = pool
        self.timeout_s = timeout_s
        self.stream = stream
        self.upgrade = upgrade
        self.connection: Connection | None = None
        self.deadline: Deadline | None = None
        self.progress_s = 0.0
        self.ended = whole
        self.over = False
        self.answered = False
        self.paused = False
        self.retried = False
        self.sent = False

    @property
    def repeatable(self) -> bool:
        """Tell whether it may be sent again although the server may have seen it."""
        return self.ended and self.method in SAFE_METHODS and not self.answered

    def opening(self) -> bytes:
        """Give what is to be written first: the head, and what of the body waits already."""
        if not self._pending:
            return self.head
        pending, self._pending = self._pending, []
        return b"".join((self.head, *pending))

    # --- IUpstreamCall ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See `IUpstreamCall.write`."""
        if self.over or self.ended or not data:
            return
        if self.chunked:
            pieces = [b"%x\r\n" % len(data), data, b"\r\n"]
            if len(data) <= _JOIN_BYTES:
                pieces = [b"".join(pieces)]
        else:
            assert self._unsent is not None
            if len(data) > self._unsent:
                self._upstream.fail(self, Internal())
                return
            self._unsent -= len(data)
            pieces = [data]
        self._send(pieces)

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IUpstreamCall.end`; trailers of a body with a declared length have no place."""
        if self.over or self.ended:
            return
        if self._unsent:
            self._upstream.fail(self, Internal())
            return
        self.ended = True
        if self.chunked:
            lines = [b"%b: %b\r\n" % line for line in trailers if _clean(line)]
            self._send([b"".join((b"0\r\n", *lines, b"\r\n"))])
        if self.connection is not None:
            self.connection.body_ended(self)

    def _send(self, pieces: list[bytes]) -> None:
        if self.connection is None:
            self._pending += pieces
        else:
            # Who takes a body in may be at nothing else until it is there.
            self.progress_s = self._upstream.heard_s = self._upstream.seconds()
            self.connection.send(pieces)

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IUpstreamCall.register_flow`."""
        if self.over or self.ended:
            return
        self._flow = BodySource(pause, resume)
        if self.connection is None:
            # What is written before there is a connection would wait in memory.
            pause()
        else:
            self.connection.produce(self._flow)

    def connected(self, connection: Connection) -> None:
        """Take the connection; called by it when the opening is written."""
        self.connection = connection
        if self.paused:
            connection.pause()
        if self._flow is not None and not self.ended:
            connection.produce(self._flow)
            self._flow.resumeProducing()

    def pause(self) -> None:
        """See `IUpstreamCall.pause`."""
        self.paused = True
        if self.connection is not None and not self.over:
            self.connection.pause()

    def resume(self) -> None:
        """See `IUpstreamCall.resume`."""
        self.paused = False
        self.progress_s = self._upstream.seconds()
        if self.connection is not None and not self.over:
            self.connection.resume()

    def abort(self) -> None:
        """See `IUpstreamCall.abort`."""
        if self.over:
            return
        self.finish()
        self._upstream.dropped(self)
        if self.connection is not None:
            self.connection.drop()

    # --- For the connection and the upstream --------------------------------------------------

    def finish(self) -> None:
        """Be over; say nothing."""
        self.over = True
        self._pending.clear()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def fail(self, error: GateError) -> None:
        """Be over with an error."""
        if not self.over:
            self.finish()
            self.receiver.response_failed(error, self.sent)


def _clean(line: tuple[bytes, bytes]) -> bool:
    """Tell whether a trailer can not be taken for two."""
    return not any(stop in part for part in line for stop in (b"\r", b"\n", b"\0"))
