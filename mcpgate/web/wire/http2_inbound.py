"""
One HTTP/2 request of a client and its answer.

The connection (`mcpgate.web.wire.http2_connection`) owns frames, windows and deadlines; this owns
what belongs to one stream: its body, what waits to be sent, its entry in the access log.

Over 300 lines, because both directions of one stream share its state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import (
    GateError,
    Internal,
    Overloaded,
    RequestTimeout,
    TooLarge,
    UpgradeRefused,
)
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.http.writing import field_lines
from mcpgate.interfaces import IInbound
from mcpgate.model import KIB
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.web.refusal import refuse

if TYPE_CHECKING:
    from mcpgate.web.wire.http2_connection import HTTP2Connection

log = Logger()

Lines = list[tuple[bytes, bytes]]

# Of one stream; beyond, its source is paused.
HIGH_WATER: Final = 32 * KIB

# Written here, or not known to HTTP/2 (RFC 9113 8.2.2).
_OURS: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)


@implementer(IInbound)
class HTTP2Inbound:
    """
    See `IInbound`.

    :ivar queued: bytes that wait to be sent.
    :ivar ending: nothing will be added to them.
    :ivar trailers: sent after them.
    :ivar stuck_s: since when the client's window is closed for them; None when it is not.
    """

    __slots__ = (
        "_began_s",
        "_bytes_in",
        "_bytes_out",
        "_collected",
        "_consumer",
        "_done",
        "_ended",
        "_flow",
        "_gone",
        "_gone_callbacks",
        "_held",
        "_left",
        "_limit",
        "_link",
        "_mark_bytes",
        "_mark_s",
        "_out",
        "_paused",
        "_received",
        "_received_all",
        "_received_trailers",
        "_slowed",
        "_status",
        "ending",
        "extra_fields",
        "finished",
        "head",
        "notes",
        "peer",
        "queued",
        "request_id",
        "started",
        "stream_id",
        "stuck_s",
        "trailers",
    )

    def __init__(
        self, link: HTTP2Connection, stream_id: int, head: RequestHead, peer: Peer, request_id: str
    ) -> None:
        self.head = head
        self.peer = peer
        self.request_id = request_id
        self.notes: dict[str, object] = {}
        self.extra_fields: Lines = []
        self.started = False
        self.finished = False
        self.stream_id = stream_id
        self.queued = 0
        self.ending = False
        self.trailers: Lines = []
        self.stuck_s: float | None = None
        self._link = link
        self._began_s = self._mark_s = link.now()
        self._bytes_in = self._bytes_out = self._mark_bytes = 0
        self._status = 0
        self._left: int | None = None
        self._out: deque[bytes] = deque()
        self._flow: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._slowed = False
        self._gone = False
        self._gone_callbacks: list[Callable[[], None]] = []
        # The body: what came before somebody wanted it, and who wants it.
        self._received: deque[tuple[bytes, int]] = deque()
        self._received_all = not head.has_body
        self._received_trailers: Lines = []
        self._paused = False
        self._limit = 0
        self._held = 0
        self._collected: list[bytes] | None = None
        self._done: Callable[[bytes], None] | None = None
        self._consumer: Callable[[bytes], None] | None = None
        self._ended: Callable[[Lines], None] | None = None

    # --- The body, coming in

    @property
    def reading(self) -> bool:
        """The client is expected to send body bytes now."""
        return self._ended is not None and not self._paused and not self._received_all

    @property
    def received_all(self) -> bool:
        """The client has sent everything of the request."""
        return self._received_all

    def read_body(self, limit: int, done: Callable[[bytes], None]) -> None:
        """See `IInbound.read_body`."""
        if self.finished:
            return
        length = self.head.content_length
        if length is not None and length > limit:
            self.refuse(TooLarge())
            return
        if length and not self._hold(length):
            return
        self._collected = []
        self._done = done
        self._begin(self._collect, self._whole, limit)

    def stream_body(
        self,
        data: Callable[[bytes], None],
        ended: Callable[[Lines], None],
        limit: int,
    ) -> None:
        """See `IInbound.stream_body`."""
        if self.finished:
            return
        length = self.head.content_length
        if limit and length is not None and length > limit:
            self.refuse(TooLarge())
            return
        self._begin(data, ended, limit)

    def _begin(
        self, data: Callable[[bytes], None], ended: Callable[[Lines], None], limit: int
    ) -> None:
        self._consumer, self._ended, self._limit = data, ended, limit
        self._mark_s = self._link.now()
        self._pump()
        self._link.changed()

    def _collect(self, data: bytes) -> None:
        # Of a body of unknown length each piece is held when it comes.
        if self.head.content_length is None and not self._hold(len(data)):
            return
        if self._collected is not None:
            self._collected.append(data)

    def _whole(self, trailers: Lines) -> None:
        done, collected = self._done, self._collected or []
        self._let_go()
        if done is not None:
            done(b"".join(collected))

    def _hold(self, size: int) -> bool:
        if self._link.hold(size):
            self._held += size
            return True
        self.refuse(Overloaded(retry_after_s=5.0))
        return False

    def pause_body(self) -> None:
        """See `IInbound.pause_body`."""
        self._paused = True

    def resume_body(self) -> None:
        """See `IInbound.resume_body`."""
        if self._paused:
            self._paused = False
            self._mark_s, self._mark_bytes = self._link.now(), self._bytes_in
            self._pump()
            self._link.changed()

    def body_came(self, data: bytes, window: int) -> None:
        """Take a DATA frame; ``window`` is what it took of the flow control windows."""
        if self.finished:
            self._link.consumed(self.stream_id, window)
            return
        self._received.append((data, window))
        self._pump()

    def body_over(self, trailers: Lines) -> None:
        """Take note that the request is complete."""
        self._received_all = True
        self._received_trailers = trailers
        self._pump()

    def _pump(self) -> None:
        while self._received and self._consumer is not None and not self._paused:
            data, window = self._received.popleft()
            self._link.consumed(self.stream_id, window)
            self._bytes_in += len(data)
            if self._limit and self._bytes_in > self._limit:
                self.refuse(TooLarge())
            elif data:
                self._consumer(data)
        if self._received_all and not self._received and not self._paused:
            ended, self._ended, self._consumer = self._ended, None, None
            if ended is not None:
                ended(self._received_trailers)

    def _let_go(self) -> None:
        """Forget the body's consumers, and what was held for it."""
        for _, window in self._received:
            self._link.consumed(self.stream_id, window)
        self._received.clear()
        if self._held:
            self._link.hold(-self._held)
            self._held = 0
        self._collected = self._done = self._consumer = self._ended = None

    # --- The answer, going out

    def respond(self, status: int, fields: Lines, body: bytes) -> None:
        """See `IInbound.respond`."""
        if self.finished:
            return
        self._begin_answer(status, fields, len(body), empty=not body)
        if not self.ending:
            self._bytes_out = self.queued = len(body)
            self._out.append(body)
        self._complete()

    def start(self, status: int, fields: Lines, length: int | None) -> None:
        """See `IInbound.start`."""
        if self.finished:
            return
        self._begin_answer(status, fields, length, empty=False)
        self._left = length
        self._link.flush()

    def _begin_answer(self, status: int, fields: Lines, length: int | None, *, empty: bool) -> None:
        if self.started:
            raise RuntimeError("This request was already answered")
        headers = [(b":status", b"%d" % status)]
        given = fields + self.extra_fields if self.extra_fields else fields
        # Refuses line ends and NUL in what will be compressed here and split again elsewhere.
        field_lines(given)
        headers += [(lower, value) for name, value in given if (lower := name.lower()) not in _OURS]
        bodiless = status < 200 or status in (204, 304)
        if length is not None and not bodiless:
            headers.append((b"content-length", b"%d" % length))
        headers.append((b"date", self._link.date()))
        headers.append((b"x-request-id", self.request_id.encode("ascii")))
        self.started = True
        self._status = status
        ended = bodiless or empty or self.head.method == "HEAD"
        self._link.send_head(self, headers, ended=ended)
        # Whatever is written now is dropped.
        self.ending = ended

    def write(self, data: bytes) -> None:
        """See `IInbound.write`."""
        if self.finished or not data:
            return
        if not self.started:
            raise RuntimeError("The answer has not been started")
        if self.ending:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                log.error("More was written than announced, request {id}", id=self.request_id)
                self.abort()
                return
        if self.queued > self._link.queue_bytes:
            # The source does not heed the pause (R26).
            self._link.slow_reader(self)
            return
        self._queue(data)

    def _queue(self, data: bytes) -> None:
        self._bytes_out += len(data)
        self._out.append(data)
        self.queued += len(data)
        self._link.want_write(self)
        if self.queued and not self._slowed and self._flow is not None and self._congested():
            self._slowed = True
            self._flow[0]()

    def _congested(self) -> bool:
        return self.queued >= HIGH_WATER or (self.queued > 0 and self._link.congested)

    def finish(self, trailers: Lines | None = None) -> None:
        """See `IInbound.finish`."""
        if self.finished:
            return
        if not self.started:
            raise RuntimeError("The answer has not been started")
        if self._left and not self.ending:
            log.error("Less was written than announced, request {id}", id=self.request_id)
            self.abort()
            return
        if trailers and not self.ending:
            field_lines(trailers)
            self.trailers = [(name.lower(), value) for name, value in trailers]
        self._complete()

    def _complete(self) -> None:
        if self.ending:
            self._link.flush()
        else:
            self.ending = True
            self._link.want_write(self)
        self._over(True)

    def take(self, size: int) -> bytes:
        """Give up to ``size`` bytes of what waits.  Called by the connection."""
        pieces: list[bytes] = []
        while size and self._out:
            piece = self._out.popleft()
            if len(piece) > size:
                self._out.appendleft(piece[size:])
                piece = piece[:size]
            pieces.append(piece)
            size -= len(piece)
        data = b"".join(pieces)
        self.queued -= len(data)
        return data

    def relieve(self) -> None:
        """Let the source go on when nothing of it waits.  Called by the connection."""
        if self._slowed and not self.queued and not self.finished and self._flow is not None:
            self._slowed = False
            self._flow[1]()

    def abort(self) -> None:
        """See `IInbound.abort`."""
        if not self.finished:
            self._link.cancel(self)
            self.lost()

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IInbound.register_flow`."""
        if self.finished:
            return
        self._flow = (pause, resume)
        self._slowed = self._congested()
        if self._slowed:
            pause()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `IInbound.on_gone`."""
        if self._gone:
            callback()
        elif not self.finished:
            self._gone_callbacks.append(callback)

    def take_over(self, status: int, fields: Lines, protocol: IProtocol) -> None:
        """See `IInbound.take_over`: HTTP/2 has no upgrades, so this one is refused."""
        self.refuse(UpgradeRefused())

    # --- Ends

    def refuse(self, error: GateError) -> None:
        """Answer in the dispatcher's place (or cut the answer off), and tell who waits."""
        if self.finished:
            return
        refuse(self, error)
        self._tell_gone()

    def fail(self) -> None:
        """Answer for a bug of ours; its traceback is in the log already."""
        self.refuse(Internal())

    def lost(self) -> None:
        """Take note that the client has gone, or was cut off."""
        if not self.finished:
            self._over(False)
            self._tell_gone()

    def overdue(self, now: float) -> bool:
        """
        Look at the deadlines of this stream (R25, R26), and act on them.

        :return: whether something of it still has a deadline.
        """
        bounds = self._link.bounds
        if self.stuck_s is not None and now - self.stuck_s >= bounds.stalled_s:
            self._link.slow_reader(self)
            return False
        if self.reading:
            waited = now - self._mark_s
            slow = waited > bounds.body_grace_s and (
                self._bytes_in - self._mark_bytes + self._link.partial_bytes
                < (waited - bounds.body_grace_s) * bounds.body_rate
            )
            late = self._done is not None and now - self._mark_s > bounds.body_s
            if slow or late:
                self.refuse(RequestTimeout())
                return False
        return self.reading or self.stuck_s is not None

    def _tell_gone(self) -> None:
        self._gone = True
        callbacks, self._gone_callbacks = self._gone_callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.failure("Telling that a client has gone failed, {id}", id=self.request_id)

    def _over(self, complete: bool) -> None:
        self.finished = True
        self._flow = None
        self._let_go()
        if complete:
            self._gone_callbacks = []
        else:
            self._out.clear()
            self.queued = 0
        head = self.head
        self._link.answered(
            AccessEntry(
                peer=self.peer.address,
                method=head.method,
                path=head.path[:256].decode("latin-1"),
                status=self._status,
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                duration_s=self._link.now() - self._began_s,
                request_id=self.request_id,
                protocol="HTTP/2",
                complete=complete,
                notes=self.notes,
            )
        )
