"""
One HTTP/1 request of a client and its answer.

The connection (`mcpgate.web.wire.connection`) owns bytes, deadlines and order; this owns what
belongs to the one request: its body on the way in, its answer on the way out, its entry in the
access log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import GateError, Internal, Overloaded, TooLarge
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.http.strictness import connection_tokens
from mcpgate.http.writing import KeptFields, chunk, field_lines, last_chunk, status_line
from mcpgate.interfaces import IInbound
from mcpgate.model import KIB
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.web.refusal import refuse

if TYPE_CHECKING:
    from mcpgate.web.wire.connection import HTTP1Connection

log = Logger()

Lines = list[tuple[bytes, bytes]]

# Up to this announced length a head waits for the first bytes of its body: one write, not two.
_TOGETHER: Final = 16 * KIB

# Written here and nowhere else.
_OURS: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"x-request-id",
    }
)


def _bodiless(status: int) -> bool:
    """Tell whether the status itself forbids a body (RFC 9112 6.3)."""
    return status < 200 or status in (204, 304)


def wants_more(head: RequestHead) -> bool:
    """Tell whether the client means to send another request on this connection."""
    if b"connection" not in head.fields:
        return head.version != (1, 0)
    tokens = connection_tokens(head.fields)
    if b"close" in tokens:
        return False
    return head.version != (1, 0) or b"keep-alive" in tokens


@implementer(IInbound)
class HTTP1Inbound:
    """
    See `IInbound`.

    :param began_s: reading of the connection's clock when the head was complete.
    :ivar flow: how to pause and resume the source of the answer, if it said.
    :ivar is_event_stream: the answer has begun and is one.
    :ivar channel: the listener at which a worker took it; -1 where it came to this process.
    :ivar protocol: for the access log, where the client does not speak what is spoken here.
    :ivar reading: somebody takes the body.
    """

    __slots__ = (
        "_began_s",
        "_bytes_in",
        "_bytes_out",
        "_chunked",
        "_collected",
        "_data",
        "_done",
        "_ended",
        "_gone",
        "_gone_callbacks",
        "_held",
        "_keep",
        "_left",
        "_limit",
        "_link",
        "_paused",
        "_status",
        "_unsent",
        "channel",
        "extra_fields",
        "finished",
        "flow",
        "head",
        "is_event_stream",
        "notes",
        "peer",
        "protocol",
        "reading",
        "request_id",
        "started",
    )

    def __init__(
        self,
        link: HTTP1Connection,
        head: RequestHead,
        peer: Peer,
        request_id: str,
        began_s: float,
    ) -> None:
        self.head = head
        self.peer = peer
        self.request_id = request_id
        self.notes: dict[str, object] = {}
        self.extra_fields: Lines = []
        self.is_event_stream = False
        self.started = False
        self.finished = False
        self.reading = False
        self.protocol = ""
        self.channel = -1
        self.flow: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._link = link
        self._began_s = began_s
        self._bytes_in = 0
        self._bytes_out = 0
        self._status = 0
        self._keep = False
        self._chunked = False
        self._left: int | None = None
        self._unsent = b""
        self._gone = False
        self._gone_callbacks: list[Callable[[], None]] | None = None
        self._paused = False
        self._limit = 0
        self._held = 0
        self._collected: list[bytes] | None = None
        self._done: Callable[[bytes], None] | None = None
        self._data: Callable[[bytes], None] | None = None
        self._ended: Callable[[Lines], None] | None = None

    # --- The body, coming in

    @property
    def collecting(self) -> bool:
        """The body is gathered here, so its whole time is bounded."""
        return self._done is not None

    @property
    def bytes_in(self) -> int:
        """Body bytes so far."""
        return self._bytes_in

    @property
    def waiting(self) -> bool:
        """The client is expected to send body bytes now."""
        return self.reading and not self._paused

    def read_body(self, limit: int, done: Callable[[bytes], None]) -> None:
        """See `IInbound.read_body`."""
        if self.finished:
            return
        length = self.head.content_length
        if not length and not self.head.chunked:
            done(b"")
            return
        if length is not None and length > limit:
            self.refuse(TooLarge())
            return
        self._done = done
        self._limit = limit
        self._collected = []
        link = self._link
        if length is not None and link.parser.buffered < length and not self._hold(length):
            return
        self.reading = True
        link.body_wanted(self)

    def stream_body(
        self,
        data: Callable[[bytes], None],
        ended: Callable[[Lines], None],
        limit: int,
    ) -> None:
        """See `IInbound.stream_body`."""
        if self.finished:
            return
        if not self.head.has_body:
            ended([])
            return
        length = self.head.content_length
        if limit and length is not None and length > limit:
            self.refuse(TooLarge())
            return
        self._data = data
        self._ended = ended
        self._limit = limit
        self.reading = True
        self._link.body_wanted(self)

    def pause_body(self) -> None:
        """See `IInbound.pause_body`."""
        if not self._paused and not self.finished:
            self._paused = True
            self._link.body_paused()

    def resume_body(self) -> None:
        """See `IInbound.resume_body`."""
        if self._paused and not self.finished:
            self._paused = False
            self._link.body_resumed(self)

    def pump(self) -> None:
        """Take what the parser has of the body.  Called by the connection."""
        parser = self._link.parser
        while self._may_take():
            try:
                piece = parser.body()
            except GateError as error:
                self.refuse(error)
                return
            if piece:
                self._take(piece)
                # The consumer may have paused, answered or cut off meanwhile.
                if not self._may_take():
                    return
            if parser.complete:
                self._body_over(parser.trailers)
                return
            if not piece:
                return

    def _may_take(self) -> bool:
        return self.reading and not self._paused and not self.finished

    def _take(self, piece: bytes) -> None:
        self._bytes_in += len(piece)
        if self._limit and self._bytes_in > self._limit:
            self.refuse(TooLarge())
        elif self._data is not None:
            self._data(piece)
        elif self._collected is not None:
            # A whole body in one piece never waits here.
            whole = self._link.parser.complete and not self._collected
            missing = 0 if whole else self._bytes_in - self._held
            if missing <= 0 or self._hold(missing):
                self._collected.append(piece)

    def _hold(self, size: int) -> bool:
        if self._link.hold(size):
            self._held += size
            return True
        self.refuse(Overloaded(retry_after_s=5.0))
        return False

    def _let_go(self) -> None:
        """Forget the body's consumers, and what was held for it."""
        self.reading = False
        if self._held:
            self._link.hold(-self._held)
            self._held = 0
        self._collected = self._done = self._data = self._ended = None

    def _body_over(self, trailers: Lines) -> None:
        done, ended, collected = self._done, self._ended, self._collected or []
        self._let_go()
        self._link.body_over()
        if done is not None:
            done(collected[0] if len(collected) == 1 else b"".join(collected))
        elif ended is not None:
            ended(trailers)

    # --- The answer, going out

    def respond(self, status: int, fields: Lines, body: bytes) -> None:
        """See `IInbound.respond`."""
        if self.finished:
            return
        framing = b"" if _bodiless(status) else b"content-length: %d\r\n" % len(body)
        head = self._answer_head(status, fields, framing)
        if self.head.method != "HEAD" and framing:
            self._bytes_out = len(body)
            head += body
        self._link.write_whole(head)
        self._over(True)

    def start(self, status: int, fields: Lines, length: int | None) -> None:
        """See `IInbound.start`."""
        if self.finished:
            return
        framing = b""
        self.is_event_stream = any(
            value.startswith(b"text/event-stream") and name.lower() == b"content-type"
            for name, value in fields
        )
        if _bodiless(status):
            self._left = 0
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
            self._left = length
        elif self.head.version == (1, 1):
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = self.head.method != "HEAD"
        else:
            # Only the connection's end can end this body.
            self._link.last = True
        head = self._answer_head(status, fields, framing)
        if self._left and self._left <= _TOGETHER and self.head.method != "HEAD":
            self._unsent = head
        else:
            self._link.write(head)

    def write(self, data: bytes) -> None:
        """See `IInbound.write`."""
        if self.finished or not data:
            return
        if not self.started:
            raise RuntimeError("The answer has not been started")
        if self.head.method == "HEAD":
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                log.error("More was written than announced, request {id}", id=self.request_id)
                self.abort()
                return
        self._bytes_out += len(data)
        if self._unsent:
            data = self._unsent + data
            self._unsent = b""
            self._link.write_whole(data)
        else:
            self._link.write_streamed(chunk(data) if self._chunked else data)

    def finish(self, trailers: Lines | None = None) -> None:
        """See `IInbound.finish`."""
        if self.finished:
            return
        if not self.started:
            raise RuntimeError("The answer has not been started")
        if self._left and self.head.method != "HEAD":
            log.error("Less was written than announced, request {id}", id=self.request_id)
            self.abort()
            return
        if self._chunked:
            self._link.write(last_chunk(trailers))
        self._over(True)

    def abort(self) -> None:
        """See `IInbound.abort`."""
        if not self.finished:
            self._link.cut()

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IInbound.register_flow`."""
        if self.finished:
            return
        self.flow = (pause, resume)
        if self._link.congested:
            pause()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `IInbound.on_gone`."""
        if self._gone:
            callback()
        elif not self.finished:
            if self._gone_callbacks is None:
                self._gone_callbacks = [callback]
            else:
                self._gone_callbacks.append(callback)

    def take_over(self, status: int, fields: Lines, protocol: IProtocol) -> None:
        """See `IInbound.take_over`."""
        if self.finished:
            return
        given = {name.lower() for name, _ in fields}
        hop = [(b"connection", b"Upgrade")]
        if b"upgrade" not in given and self.head.upgrade:
            hop.append((b"upgrade", self.head.upgrade))
        head = self._answer_head(status, fields, field_lines(hop), upgrade=True)
        self._let_go()
        self._link.write(head)
        self._link.hand_over(self, protocol)

    def _answer_head(
        self, status: int, fields: Lines, framing: bytes, *, upgrade: bool = False
    ) -> bytes:
        if self.started:
            raise RuntimeError("This request was already answered")
        ours = _OURS
        if self.extra_fields:
            fields = fields + self.extra_fields
        lines = fields.wire if type(fields) is KeptFields else None
        if lines is None:
            lines = field_lines([field for field in fields if field[0].lower() not in ours])
            if type(fields) is KeptFields:
                fields.wire = lines
        link = self._link
        self._keep = keep = not upgrade and link.may_keep(self)
        self.started = True
        self._status = status
        if upgrade:
            tail = b"\r\n"
        elif not keep:
            tail = b"connection: close\r\n\r\n"
        elif self.head.version == (1, 0):
            tail = b"connection: keep-alive\r\n\r\n"
        else:
            tail = b"\r\n"
        return b"%b%b%bdate: %b\r\nx-request-id: %b\r\n%b" % (
            status_line(status),
            lines,
            framing,
            link.date(),
            self.request_id.encode("ascii"),
            tail,
        )

    # --- Ends

    def refuse(self, error: GateError) -> None:
        """Answer in the dispatcher's place (or cut the answer off), and tell who waits."""
        self._let_go()
        self._link.last = True
        # Answered, but not by the dispatcher: to it that is a client that went away.
        waiting, self._gone_callbacks = self._gone_callbacks, None
        refuse(self, error)
        self._gone_callbacks = waiting
        self._tell_gone()

    def fail(self) -> None:
        """Answer for a bug of ours; its traceback is in the log already."""
        self.refuse(Internal())

    def lost(self) -> None:
        """Take note that the client has gone.  Called by the connection, at most once."""
        if not self.finished:
            self._over(False)
            self._tell_gone()

    def handed_over_end(self, bytes_in: int) -> None:
        """Take note that the connection that was taken over has ended."""
        self._bytes_in = bytes_in
        self._over(True)

    def _tell_gone(self) -> None:
        self._gone = True
        callbacks, self._gone_callbacks = self._gone_callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                log.failure("Telling that a client has gone failed, {id}", id=self.request_id)

    def _over(self, complete: bool) -> None:
        self.finished = True
        self.flow = None
        self._let_go()
        if complete:
            self._gone_callbacks = None
        link = self._link
        head = self.head
        entry = AccessEntry(
            peer=self.peer.address,
            method=head.method,
            path=head.path[:256].decode("latin-1"),
            status=self._status,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            duration_s=link.now() - self._began_s,
            request_id=self.request_id,
            protocol=self.protocol or ("HTTP/1.1" if head.version[1] else "HTTP/1.0"),
            complete=complete,
            notes=self.notes,
        )
        link.answered(entry, keep=complete and self._keep)
