"""
One HTTP/1 connection of a client: bytes, order, deadlines.

At most one request is in work; what the client pipelines behind it waits, with reading paused
(R11).  Every wait has a deadline (R24-R27), all of them watched through one entry on the wheel
that is moved only when something nearer comes up, so a warm request costs no timer.  After a
refusal of the parser nothing more is read (R12).

Over 500 lines, because reading, writing and closing of one connection share its state.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITransport,
)
from twisted.internet.tcp import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import GateError, Overloaded, RequestTimeout
from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.http.parsing import NotHTTPError, RequestParser
from mcpgate.http.writing import CONTINUE, PROCESSING
from mcpgate.interfaces import IInbound
from mcpgate.model import KIB
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.timing.wheel import Deadline
from mcpgate.web.wire.inbound import HTTP1Inbound, wants_more

if TYPE_CHECKING:
    from mcpgate.web.wire.front import FrontFactory, Hoard

log = Logger()

# What is given to the transport at once: what it asks to pause at, so that its "resume" is our
# measure of progress.
_SLICE: Final = 64 * KIB

# The queue of a connection on which nothing waits; an empty one of its own takes 0.7 KiB.
_NOTHING: Final[deque[bytes]] = deque()

#: Stands in the access log where no request could be read.
_UNREAD: Final = RequestHead(method="-", path=b"-", query=None, version=(1, 1), fields=Fields())


@implementer(IProtocol, IPushProducer, IHalfCloseableProtocol)
class HTTP1Connection:
    """
    See the module.

    :param overflow: over a cap (R28): say so and close, whatever the client wants.
    :ivar last: the request in work, or the next one, is the last on this connection.
    :ivar parser: of this connection; the inbound in work pulls its body from it.
    """

    __slots__ = (
        "__weakref__",
        "_advancing",
        "_born_s",
        "_closed",
        "_closing",
        "_deadline",
        "_deadline_s",
        "_direct",
        "_due_body",
        "_due_close",
        "_due_head",
        "_due_write",
        "_flushed",
        "_front",
        "_half_closed",
        "_head_begun",
        "_hoard",
        "_inbound",
        "_mark_bytes",
        "_mark_s",
        "_peer",
        "_probe",
        "_queue",
        "_queued",
        "_reading",
        "_requests",
        "_shut",
        "_since_body_s",
        "_taken",
        "_taken_bytes",
        "_write_paused",
        "last",
        "overflow",
        "parser",
        "place",
        "transport",
    )

    transport: ITransport

    def __init__(self, front: FrontFactory, *, overflow: bool = False) -> None:
        self.last = False
        self.overflow = overflow
        self.place = ""
        self.parser = RequestParser(front.bounds.wire)
        self._front = front
        self._born_s = self._mark_s = self._since_body_s = front.clock.seconds()
        self._inbound: HTTP1Inbound | None = None
        self._peer: Peer | None = None
        self._requests = 0
        self._reading = True
        self._advancing = False
        self._head_begun = False
        self._closing = False
        self._flushed = False
        self._closed = False
        self._shut = False
        self._half_closed = False
        self._write_paused = False
        self._queue = _NOTHING
        self._queued = 0
        self._hoard: Hoard | None = None
        self._mark_bytes = 0
        self._direct: Server | None = None
        self._taken: IProtocol | None = None
        self._taken_bytes = 0
        self._probe: IDelayedCall | None = None
        self._deadline: Deadline | None = None
        self._deadline_s = inf
        self._due_head = self._due_body = self._due_write = self._due_close = inf

    # --- What the transport calls

    def makeConnection(self, transport: ITransport) -> None:
        """See `IProtocol`."""
        self.transport = transport
        if isinstance(transport, Server) and not getattr(transport, "TLS", False):
            self._direct = transport
            with contextlib.suppress(OSError):  # a unix socket
                transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every stream has it
        self._front.opened(self)
        if self.overflow:
            self._refuse(Overloaded("Too many connections.", retry_after_s=5.0))
            return
        self._due_head = self._born_s + self._front.bounds.head_s
        self._watch(self._due_head)

    connectionMade = None

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._closing:
            return
        inbound = self._inbound
        if self._taken is not None:
            self._taken_bytes += len(data)
            self._taken.dataReceived(data)
            return
        self.parser.receive(data)
        if inbound is None:
            self._advance()
        elif inbound.waiting:
            self._pump(inbound)
            if self._inbound is inbound and not self.parser.complete and not inbound.waiting:
                self._read(False)
        else:
            # A body nobody asked for yet, or a request behind this one.
            self._read(False)

    def readConnectionLost(self) -> None:
        """The client sends nothing more; a complete request still gets its answer (R37)."""
        taken = self._taken
        self._half_closed = True
        if taken is not None:
            half = IHalfCloseableProtocol(taken, None)
            if half is not None:
                half.readConnectionLost()
            else:
                self.transport.loseConnection()
            return
        inbound = self._inbound
        if self._due_close < inf:
            self.transport.loseConnection()
        elif inbound is None or self._closing:
            self.close()
        elif not self.parser.complete:
            self.cut()
        elif inbound.is_event_stream:
            # Nobody half-closes an event stream: this client has left.
            self.cut()
        elif not inbound.started and inbound.head.version == (1, 1):
            self._probe_later(2)

    def writeConnectionLost(self) -> None:
        """Our own half close was carried out: everything we said is with the network."""
        if self._taken is not None:
            half = IHalfCloseableProtocol(self._taken, None)
            if half is not None:
                half.writeConnectionLost()
        elif self._due_close < inf:
            self._linger()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """See `IProtocol`."""
        self._closing = True
        self._shut = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self._forget_queue()
        self.parser.rest()
        taken, self._taken = self._taken, None
        inbound = self._inbound
        self._front.closed(self)
        if taken is not None:
            try:
                taken.connectionLost(reason)
            finally:
                if inbound is not None:
                    inbound.handed_over_end(self._taken_bytes)
        elif inbound is not None:
            inbound.lost()

    def pauseProducing(self) -> None:
        """The transport holds enough of what the client has not read (R26)."""
        if self._write_paused:
            return
        self._write_paused = True
        self._due_write = self.now() + self._front.bounds.stalled_s
        self._watch(self._due_write)
        inbound = self._inbound
        if inbound is not None and inbound.flow is not None:
            inbound.flow[0]()

    def resumeProducing(self) -> None:
        """The client took everything the transport had."""
        self._write_paused = False
        self._due_write = inf
        self._part_with_hoard()
        queue = self._queue
        while queue and not self._write_paused:
            piece = queue.popleft()
            self._queued -= len(piece)
            self._front.answers.held -= len(piece)
            self.transport.write(piece)
        if self._write_paused or queue:
            self._part_with_hoard()  # What was written meanwhile knew no deadline.
            self._note_hoard()
            return
        inbound = self._inbound
        if self._closing:
            self._shut_down()
        elif inbound is None:
            self._advance()
        elif inbound.flow is not None:
            inbound.flow[1]()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` tells the rest."""

    # --- What the inbound in work calls

    @property
    def congested(self) -> bool:
        """The client reads too slowly for what was written."""
        return self._write_paused

    @property
    def busy(self) -> bool:
        """A request is in work, or its answer not yet handed to the network."""
        return self._inbound is not None or self._closing

    def now(self) -> float:
        """Give the clock's reading."""
        return self._front.clock.seconds()

    def date(self) -> bytes:
        """Give the value of ``Date``."""
        return self._front.date()

    def hold(self, size: int) -> bool:
        """Reserve (or, negative, return) a part of the budget for collected bodies (R16)."""
        return self._front.hold(size)

    def may_keep(self, inbound: HTTP1Inbound) -> bool:
        """Decide whether another request may follow the answer that is about to begin."""
        bounds = self._front.bounds
        if (
            self.last
            or self._half_closed
            or (bounds.requests and self._requests >= bounds.requests)
            or not wants_more(inbound.head)
            or self.now() - self._born_s >= bounds.lifetime_s
        ):
            self.last = True
            return False
        if not self.parser.complete and not self._skip_body(inbound):
            self.last = True
            return False
        return True

    def _skip_body(self, inbound: HTTP1Inbound) -> bool:
        """Drop a body nobody wanted if all of it is here already."""
        if inbound.reading:
            return False
        try:
            while self.parser.body():
                pass
        except GateError:
            return False
        return self.parser.complete

    def body_wanted(self, inbound: HTTP1Inbound) -> None:
        """Begin to read the body (R09: only now is 100 Continue said)."""
        if not self.parser.complete:
            if inbound.head.fields.get(b"expect") is not None and not self.parser.buffered:
                if inbound.head.version == (1, 1) and not inbound.started:
                    self.write(CONTINUE)
            if self.parser.buffered < (inbound.head.content_length or inf):
                self._time_body(inbound)
        inbound.pump()
        self._match_reading()

    def body_paused(self) -> None:
        """Stop reading: the consumer has enough."""
        self._due_body = inf
        self._read(False)

    def body_resumed(self, inbound: HTTP1Inbound) -> None:
        """Go on; the time it stood still is not the client's fault."""
        if not inbound.reading:
            self._match_reading()
            return
        self._time_body(inbound)
        self._pump(inbound)
        self._match_reading()

    def body_over(self) -> None:
        """The body was read to its end."""
        self._due_body = inf

    def write(self, data: bytes) -> None:
        """Send, or queue while the client does not read."""
        if self._write_paused or self._queue or len(data) > _SLICE:
            for start in range(0, len(data), _SLICE):
                piece = data[start : start + _SLICE]
                if self._write_paused or self._queue:
                    if self._queue is _NOTHING:
                        self._queue = deque()
                    self._queue.append(piece)
                    self._queued += len(piece)
                    self._front.answers.held += len(piece)
                else:
                    self.transport.write(piece)
            if self._hoard is None:
                self._note_hoard()
            if self._front.answers.spent:
                self._front.answers.relieve()
        else:
            self.transport.write(data)

    def _note_hoard(self) -> None:
        """Where more waits for this client than a stream may have waiting, it may be cut off."""
        if self._queued > self._front.bounds.queue_bytes:
            self._hoard = self._front.answers.hoard(self, self._due_write)

    def _part_with_hoard(self) -> None:
        hoard, self._hoard = self._hoard, None
        if hoard is not None:
            self._front.answers.let_go(hoard)

    def _forget_queue(self) -> None:
        self._part_with_hoard()
        self._queue.clear()
        self._queue = _NOTHING
        self._front.answers.held -= self._queued
        self._queued = 0

    def write_whole(self, data: bytes) -> None:
        """
        Send an answer that is complete, at once if nothing is before it.

        Saves a round through the reactor, and with it a third of a warm request's time.
        """
        direct = self._direct
        # What waits in a transport of Twisted can only be seen from its private list.
        if (
            direct is not None
            and len(data) <= _SLICE
            and not (self._write_paused or self._queue)
            and not (direct.dataBuffer or direct._tempDataBuffer)
        ):
            try:
                if self._front.secure:
                    sent = direct.send_now(data)  # type: ignore[attr-defined]  # a `TLSSocket`
                else:
                    sent = direct.socket.send(data)
            except OSError:
                # Full, or lost: that is left to the transport to find, so that nobody is told
                # from here.
                sent = 0
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        self.write(data)

    def write_streamed(self, data: bytes) -> None:
        """Send a piece of a stream; a source that does not heed the pause is cut off (R26)."""
        if self._queued > self._front.bounds.queue_bytes:
            self._slow_reader()
        else:
            self.write(data)

    def hand_over(self, inbound: HTTP1Inbound, protocol: IProtocol) -> None:
        """Give the connection to an upgraded protocol: it talks to the transport itself."""
        self._due_head = self._due_body = self._due_write = inf
        self._taken = protocol
        transport = self.transport
        transport.unregisterProducer()  # type: ignore[attr-defined]  # every stream has it
        while self._queue:
            transport.write(self._queue.popleft())
        self._forget_queue()
        data = self.parser.rest()
        protocol.makeConnection(transport)
        self._read(True)
        if data:
            self._taken_bytes += len(data)
            protocol.dataReceived(data)
        if self._half_closed:
            self.readConnectionLost()

    def answered(self, entry: AccessEntry, *, keep: bool) -> None:
        """The request in work is over."""
        self._inbound = None
        self._due_body = inf
        front = self._front
        front.answered(entry)
        if self._closing:
            return
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        if not keep or self.last:
            self.close()
            return
        self._due_head = self.now() + front.bounds.idle_s
        if self._deadline is None:
            self._watch(self._due_head)
        if not self._advancing:
            if not self._reading:
                self._read(True)
            if self.parser.buffered:
                self._advance()

    def give_up(self) -> None:
        """Cut a client off that does not read."""
        self._slow_reader()

    def cut(self) -> None:
        """End the connection at once, so that the client sees it was not meant to end here."""
        self._closing = True
        inbound = self._inbound
        if inbound is not None:
            inbound.lost()
        self._forget_queue()
        if not self._shut:
            self._shut = True
            self.transport.abortConnection()  # type: ignore[attr-defined]  # of TCP, TLS and UNIX

    # --- Requests, one after the other

    def _advance(self) -> None:
        """Begin the next request if its head is here and nothing else is in work."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._inbound is None and not self._closing and not self._write_paused:
                try:
                    head = self.parser.head()
                except GateError as error:
                    self._refuse(error)
                    return
                except NotHTTPError:
                    self._front.meters.events["http_reject"] += 1
                    self.cut()
                    return
                if head is None:
                    self._await_head()
                    return
                self._begin(head)
        finally:
            self._advancing = False
        if self._inbound is not None and self.parser.buffered:
            self._match_reading()

    def _await_head(self) -> None:
        if self.parser.buffered and not self._head_begun:
            self._head_begun = True
            if self._requests:
                self._due_head = self.now() + self._front.bounds.head_s
                self._watch(self._due_head)
        self._read(True)

    def _begin(self, head: RequestHead) -> None:
        front = self._front
        peer = self._peer
        if peer is None:
            peer = self._peer = front.peer_of(self)
            if peer is None:
                self._refuse(Overloaded("Too many connections.", retry_after_s=5.0))
                return
        self._serve(head, peer, front.make_request_id(), front.dispatch)

    def _serve(
        self,
        head: RequestHead,
        peer: Peer,
        request_id: str,
        dispatch: Callable[[IInbound], None],
        *,
        protocol: str = "",
        channel: int = -1,
    ) -> None:
        self._head_begun = False
        self._due_head = inf
        self._requests += 1
        inbound = HTTP1Inbound(self, head, peer, request_id, self._front.clock.seconds())
        inbound.protocol = protocol
        inbound.channel = channel
        self._inbound = inbound
        try:
            dispatch(inbound)
        except Exception:
            log.failure("A request failed, {id}", id=inbound.request_id)
            inbound.fail()

    def _pump(self, inbound: HTTP1Inbound) -> None:
        try:
            inbound.pump()
        except Exception:
            log.failure("Reading a request's body failed, {id}", id=inbound.request_id)
            inbound.fail()

    def _refuse(self, error: GateError) -> None:
        """Answer what could not become a request; nothing is read after it (R12)."""
        front = self._front
        front.meters.events["http_reject"] += 1
        self.last = True
        self.parser.rest()
        if self._peer is None:
            self._peer = front.peer_of(self, refuse=False)
        assert self._peer is not None
        self._due_head = inf
        inbound = HTTP1Inbound(self, _UNREAD, self._peer, front.make_request_id(), self.now())
        self._inbound = inbound
        inbound.refuse(error)

    # --- Reading

    def _read(self, wanted: bool) -> None:
        if wanted == self._reading or self._shut or self._half_closed:
            return
        self._reading = wanted
        if wanted:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # every stream has it
        else:
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # every stream has it

    def _match_reading(self) -> None:
        """
        Read exactly while somebody wants what comes.

        With nothing buffered reading goes on although nobody waits: how else would we hear that
        the client has gone?
        """
        inbound = self._inbound
        self._read(inbound is None or inbound.waiting or not self.parser.buffered)

    def _time_body(self, inbound: HTTP1Inbound) -> None:
        now = self.now()
        self._mark_s = now
        self._mark_bytes = inbound.bytes_in
        if inbound.bytes_in == 0:
            self._since_body_s = now
        self._due_body = now + self._front.bounds.body_grace_s
        self._watch(self._due_body)

    def _check_body(self, now: float) -> None:
        inbound = self._inbound
        self._due_body = inf
        if inbound is None or not inbound.waiting:
            return
        bounds = self._front.bounds
        slow = inbound.bytes_in - self._mark_bytes < bounds.body_rate * (now - self._mark_s)
        late = inbound.collecting and now - self._since_body_s >= bounds.body_s
        if slow or late:
            inbound.refuse(RequestTimeout("The request body took too long to arrive."))
            return
        self._due_body = now + bounds.body_check_s

    # --- Deadlines

    def _watch(self, due_s: float) -> None:
        """See that the deadlines are looked at no later than this."""
        if self._deadline is not None:
            if self._deadline_s <= due_s:
                return
            self._deadline.cancel()
        self._deadline_s = due_s
        self._deadline = self._front.wheel.arm(due_s - self.now(), self._look)

    def _look(self) -> None:
        self._deadline = None
        now = self.now()
        if self._due_write <= now:
            self._slow_reader()
            return
        if self._due_close <= now:
            self._close_outright(now)
        if self._due_head <= now:
            self._due_head = inf
            if self._head_begun or (not self._requests and not self.last):
                self._refuse(RequestTimeout("The request header took too long to arrive."))
            else:
                self.close()
        if self._due_body <= now:
            self._check_body(now)
        due = min(self._due_head, self._due_body, self._due_write, self._due_close)
        if due < inf and not self._shut:
            self._watch(due)

    def _slow_reader(self) -> None:
        self._front.meters.events["slow_reader"] += 1
        if self._inbound is not None:
            self._inbound.notes["reason"] = "slow_reader"
        self.cut()

    # --- Ends

    def drain(self) -> None:
        """Serve what is in work, then close; what is idle may ask once more, briefly."""
        self.last = True
        if self._inbound is None and not self._closing and not self._head_begun:
            self._due_head = self.now() + self._front.bounds.drain_idle_s
            self._watch(self._due_head)

    def close(self) -> None:
        """Send what is queued, then close so that the client can read it."""
        if not self._closing:
            self._closing = True
            self._due_head = self._due_body = inf
            if not self._write_paused and not self._queue:
                self._shut_down()

    def _shut_down(self) -> None:
        """
        Close our side, and give the client a moment to read before its bytes meet a closed socket.

        Closing outright with unread bytes would reset the connection, and take the answer along.
        Twisted's own TLS has no half of it to close; it waits for the client's goodbye itself.
        """
        if self._shut or self._due_close < inf:
            return
        self.parser.rest()
        transport = self.transport
        transport.unregisterProducer()  # type: ignore[attr-defined]  # every stream has it
        shut = None
        secure = self._front.secure or ISSLTransport.providedBy(transport)
        if self._direct is not None or not secure:
            shut = getattr(transport, "loseWriteConnection", None)
        if shut is None or self._half_closed:
            self._linger()
            transport.loseConnection()
            return
        self._due_close = self.now() + self._front.bounds.stalled_s
        self._watch(self._due_close)
        self._read(True)
        shut()

    def _linger(self) -> None:
        self._flushed = True
        self._due_close = self.now() + self._front.bounds.linger_s
        self._watch(self._due_close)

    def _close_outright(self, now: float) -> None:
        """
        Close a connection whose client had its moment.

        Not by a reset: what the kernel still holds of our answer must reach a client that reads
        slowly.  Under TLS that is the business of the connection beneath.
        """
        if self._closed or not self._flushed:
            self.cut()
            return
        self._closed = True
        self._due_close = now + self._front.bounds.stalled_s
        beneath = getattr(self.transport, "transport", self.transport)
        beneath.loseConnection()

    def _probe_later(self, times: int) -> None:
        """
        Find out whether a client that closed its side is still there to read.

        The end of a connection and a half close look the same until something is sent: an
        interim answer is harmless to a client that waits, and a closed socket answers the first
        with a reset, which the second one then meets (R38: the call is cancelled in time).
        """

        def probe() -> None:
            self._probe = None
            inbound = self._inbound
            if inbound is None or inbound.started:
                return
            self.write(PROCESSING)
            if times > 1:
                self._probe_later(times - 1)

        self._probe = self._front.clock.callLater(self._front.bounds.probe_s, probe)
