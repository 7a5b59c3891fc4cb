"""
One HTTP/2 connection of a client: frames by ``h2``, windows, fairness, deadlines.

Streams with something to send take turns, one frame each.  What a peer may cost is bounded: open
streams, bytes that wait in either direction, resets and frames that carry nothing (R14).  After a
protocol error nothing more is read and the connection is gone within a second.

Over 500 lines, because receiving, sending, deadlines and ends share the state of one ``h2`` object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.http.heads import Peer
from mcpgate.http.strictness import trailer_line
from mcpgate.model import KIB
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.timing.wheel import Deadline
from mcpgate.web.wire.http2 import CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW, HTTP2Factory
from mcpgate.web.wire.http2_head import UNREAD, read_head
from mcpgate.web.wire.http2_inbound import HTTP2Inbound

if TYPE_CHECKING:
    from mcpgate.web.wire.bounds import Bounds

log = Logger()

# In any ten seconds (R14); what a browser or a client that cancels a lot needs stays far below.
PERIOD_S: Final = 10.0
MAX_RESETS: Final = 100
MAX_IDLE_FRAMES: Final = 1000

# h2 4.4 looks at a frame's length (16 MiB fit in its three bytes) only when it has all of it, and
# collects 64 pieces of a header block.  A frame that is allowed, and a head with it, is below this.
_MAX_PARTIAL: Final = 64 * KIB

# The table our answers are compressed with; a client may ask for any size and would get it.
_TABLE_BYTES: Final = 4096


@implementer(IProtocol, IPushProducer)
class HTTP2Connection:
    """
    See the module.

    :ivar place: the address this connection is counted under.
    :ivar partial_bytes: received of a frame that is not complete.
    """

    transport: ITransport

    def __init__(self, factory: HTTP2Factory, place: str) -> None:
        self.place = place
        self.partial_bytes = 0
        self._factory = factory
        self._born_s = self._idle_s = self._period_s = factory.clock.seconds()
        self._streams: dict[int, HTTP2Inbound] = {}
        self._ready: deque[HTTP2Inbound] = deque()
        self._requests = 0
        self._resets = 0
        self._idle_frames = 0
        self._highest = 0
        self._last = False
        self._closing = False
        self._busy = False
        self._withdrawn: set[int] = set()
        self._blocked_s: float | None = None
        self._partial_s: float | None = None
        self._deadline: Deadline | None = None
        self._deadline_s = inf
        bounds = factory.bounds
        h2 = self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: 2 * bounds.wire.head_bytes,
            },
        )
        # In force at once; as a setting it would be only when the client agreed.  Each field
        # counts 32 bytes more than it has (RFC 9113 6.5.2): the exact bound is `read_head`'s.
        h2.decoder.max_header_list_size = 2 * bounds.wire.head_bytes

    # --- What the transport calls

    def makeConnection(self, transport: ITransport) -> None:
        """See `IProtocol`."""
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every stream has it
        self._factory.opened(self)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self.flush()

    connectionMade = None

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._closing:
            return
        self._busy = True
        try:
            events = self._h2.receive_data(data)
            # What was taken back in the same breath is not begun at all.
            self._withdrawn = {each.stream_id for each in events if isinstance(each, StreamReset)}
            for event in events:
                self._heard(event)
                if self._closing:
                    break
            if events:
                self._partial_s = None
                self.partial_bytes = 0
            else:
                self.partial_bytes += len(data)
                if self._partial_s is None:
                    self._partial_s = self.now()
                if self.partial_bytes > _MAX_PARTIAL:
                    self._say_goodbye(ErrorCodes.FRAME_SIZE_ERROR)
        except H2Error:
            # What h2 has to say about it waits to be sent.
            self._factory.meters.events["http_reject"] += 1
            self._end()
        finally:
            self._busy = False
        self.flush()

    def pauseProducing(self) -> None:
        """The client reads too slowly: send no more, and hear nothing that wants an answer."""
        if self._blocked_s is None:
            self._blocked_s = self.now()
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # every stream has it
            self.changed()

    def resumeProducing(self) -> None:
        """The client caught up."""
        self._blocked_s = None
        if not self._closing:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # every stream has it
            self.flush()

    def stopProducing(self) -> None:
        """The connection is ending; `connectionLost` will tell."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self._closing = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._ready.clear()
        self._lose_streams()
        self._factory.closed(self)

    # --- What comes in

    def _heard(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, TrailersReceived):
            self._trailers(event)
        elif isinstance(event, StreamEnded):
            inbound = self._streams.get(event.stream_id)
            if inbound is not None and not inbound.received_all:
                self._deliver(inbound, lambda: inbound.body_over([]))
        elif isinstance(event, StreamReset):
            self._reset(event)
        elif isinstance(event, WindowUpdated):
            self._window(event.stream_id)
        elif isinstance(event, ConnectionTerminated):
            # h2 sends nothing after it, and a client that means it will not read on.
            self._end()
        else:
            self._idle_frame()
            encoder = self._h2.encoder
            encoder.header_table_size = min(encoder.header_table_size, _TABLE_BYTES)
            if isinstance(event, RemoteSettingsChanged):
                # It may have opened every stream's window.
                self._wake(list(self._streams.values()))

    def _request(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if stream_id in self._withdrawn:
            return
        if self._last:
            # Told by GOAWAY already; safe to be sent again elsewhere.
            self._reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._highest = stream_id
        self._requests += 1
        factory = self._factory
        address = self.transport.getPeer()
        peer = Peer(
            str(getattr(address, "host", "")), factory.secure, int(getattr(address, "port", 0))
        )
        request_id = factory.make_request_id()
        try:
            head = read_head(
                event.headers, factory.bounds.wire, ended=event.stream_ended is not None
            )
        except GateError as error:
            factory.meters.events["http_reject"] += 1
            inbound = HTTP2Inbound(self, stream_id, UNREAD, peer, request_id)
            self._streams[stream_id] = inbound
            inbound.refuse(error)
            return
        inbound = HTTP2Inbound(self, stream_id, head, peer, request_id)
        self._streams[stream_id] = inbound
        if self._requests >= factory.bounds.requests > 0 or (
            self.now() - self._born_s > factory.bounds.lifetime_s
        ):
            self._say_last()
        try:
            factory.dispatch(inbound)
        except Exception:
            log.failure("Request {id} failed", id=request_id)
            inbound.fail()

    def _data(self, event: DataReceived) -> None:
        if not event.data:
            self._idle_frame()
        inbound = self._streams.get(event.stream_id)
        if inbound is None:
            self.consumed(event.stream_id, event.flow_controlled_length)
        else:
            data, window = event.data, event.flow_controlled_length
            self._deliver(inbound, lambda: inbound.body_came(data, window))

    def _trailers(self, event: TrailersReceived) -> None:
        inbound = self._streams.get(event.stream_id)
        if inbound is None:
            return
        try:
            trailers = [trailer_line(b"%b:%b" % line) for line in event.headers]
        except GateError as error:
            inbound.refuse(error)
        else:
            self._deliver(inbound, lambda: inbound.body_over(trailers))

    def _deliver(self, inbound: HTTP2Inbound, call: Callable[[], None]) -> None:
        """Hand something of a body on; a bug behind it costs one stream, not the connection."""
        try:
            call()
        except Exception:
            log.failure("Request {id} failed", id=inbound.request_id)
            inbound.fail()

    def _reset(self, event: StreamReset) -> None:
        self._resets += 1
        self._check_period()
        inbound = self._streams.get(event.stream_id)
        if inbound is not None:
            self._leave(inbound)
            inbound.lost()

    def _window(self, stream_id: int) -> None:
        self._idle_frame()
        if stream_id:
            inbound = self._streams.get(stream_id)
            woken = [] if inbound is None else [inbound]
        else:
            woken = list(self._streams.values())
        self._wake(woken)

    def _wake(self, streams: list[HTTP2Inbound]) -> None:
        for inbound in streams:
            if inbound.stuck_s is not None:
                inbound.stuck_s = None
                self._ready.append(inbound)

    def _idle_frame(self) -> None:
        self._idle_frames += 1
        if self._idle_frames % 100 == 0:
            self._check_period()

    def _check_period(self) -> None:
        now = self.now()
        if now - self._period_s > PERIOD_S:
            self._period_s = now
            self._resets = min(self._resets, 1)
            self._idle_frames = 0
        elif self._resets > MAX_RESETS or self._idle_frames > MAX_IDLE_FRAMES:
            self._factory.meters.events["http2_flood"] += 1
            self._say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM)

    # --- What streams call

    @property
    def bounds(self) -> Bounds:
        """What the client is held to."""
        return self._factory.bounds

    @property
    def queue_bytes(self) -> int:
        """What may wait of one answer."""
        return self._factory.bounds.queue_bytes

    @property
    def congested(self) -> bool:
        """The client does not take what was given to the transport."""
        return self._blocked_s is not None

    def now(self) -> float:
        """Read the clock."""
        return self._factory.clock.seconds()

    def date(self) -> bytes:
        """Give the value of ``Date``."""
        return self._factory.date()

    def hold(self, size: int) -> bool:
        """See `BodyBudget.hold`."""
        return self._factory.hold(size)

    def consumed(self, stream_id: int, window: int) -> None:
        """Somebody took body bytes: the client may send as many again."""
        if window and not self._closing:
            self._h2.acknowledge_received_data(window, stream_id)
            self.flush()

    def changed(self) -> None:
        """Have deadlines looked at again."""
        if not self._busy:
            self._watch()

    def send_head(
        self, inbound: HTTP2Inbound, headers: list[tuple[bytes, bytes]], *, ended: bool
    ) -> None:
        """Put the head of an answer before what waits; `flush` sends it."""
        if self._closing or inbound.stream_id not in self._streams:
            return
        try:
            self._h2.send_headers(inbound.stream_id, headers, end_stream=ended)
        except H2Error:
            # Stream or connection ended in what h2 has read but not told yet.
            return
        if ended:
            self._sent_all(inbound)

    def want_write(self, inbound: HTTP2Inbound) -> None:
        """Give a stream its turns."""
        if inbound.stuck_s is None and inbound not in self._ready:
            self._ready.append(inbound)
        self.flush()

    def cancel(self, inbound: HTTP2Inbound, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """Cut one answer off."""
        if inbound.stream_id in self._streams and not self._closing:
            self._leave(inbound)
            self._reset_stream(inbound.stream_id, code)
            self.flush()

    def _reset_stream(self, stream_id: int, code: ErrorCodes) -> None:
        try:
            self._h2.reset_stream(stream_id, code)
        except H2Error:
            # The client reset it in what h2 has read but not told yet.
            log.debug("Stream {stream} is gone already", stream=stream_id)

    def slow_reader(self, inbound: HTTP2Inbound) -> None:
        """Cut off a client that does not take its answer (R26)."""
        self._factory.meters.events["slow_reader"] += 1
        inbound.notes["reason"] = "slow_reader"
        self.cancel(inbound, ErrorCodes.CANCEL)
        inbound.lost()

    def answered(self, entry: AccessEntry) -> None:
        """Record a request that is over."""
        self._factory.answered(entry)

    # --- What goes out

    def flush(self) -> None:
        """Send what can be sent."""
        if self._busy:
            return
        self._busy = True
        try:
            self._write_out()
            while self._ready and self._blocked_s is None and not self._closing:
                self._send_some(self._ready.popleft())
                self._write_out()
        finally:
            self._busy = False
        if self._last and not self._streams and not self._closing:
            self._end()
        self._watch()

    def _write_out(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.transport.write(data)

    def _send_some(self, inbound: HTTP2Inbound) -> None:
        stream_id = inbound.stream_id
        if stream_id not in self._streams:
            return
        h2 = self._h2
        if inbound.queued:
            size = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size)
            if size <= 0:
                inbound.stuck_s = self.now()
                return
            data = inbound.take(size)
            ended = inbound.ending and not inbound.queued and not inbound.trailers
            h2.send_data(stream_id, data, end_stream=ended)
            # A window update for the stream and one for the connection may answer it.
            self._idle_frames = max(0, self._idle_frames - 3)
        elif inbound.ending and not inbound.trailers:
            h2.send_data(stream_id, b"", end_stream=True)
            ended = True
        else:
            ended = False
        if inbound.ending and inbound.trailers and not inbound.queued:
            h2.send_headers(stream_id, inbound.trailers, end_stream=True)
            ended = True
        if ended:
            self._sent_all(inbound)
        elif inbound.queued or inbound.ending:
            self._ready.append(inbound)
        inbound.relieve()

    def _sent_all(self, inbound: HTTP2Inbound) -> None:
        if not inbound.received_all:
            # RFC 9113 8.1: the answer is complete, the rest of the request is not wanted.
            self._reset_stream(inbound.stream_id, ErrorCodes.NO_ERROR)
        self._leave(inbound)

    def _leave(self, inbound: HTTP2Inbound) -> None:
        self._streams.pop(inbound.stream_id, None)
        inbound.stuck_s = None
        if not self._streams:
            self._idle_s = self.now()

    # --- Deadlines

    def _due(self) -> float:
        """Tell when something has to be looked at."""
        bounds = self._factory.bounds
        if self._closing:
            return inf
        due = inf
        if self._blocked_s is not None:
            due = self._blocked_s + bounds.stalled_s
        if self._partial_s is not None:
            due = min(due, self._partial_s + self._partial_limit())
        if not self._streams:
            due = min(due, self._idle_s + (bounds.idle_s if self._requests else bounds.head_s))
        elif any(each.reading or each.stuck_s is not None for each in self._streams.values()):
            due = min(due, self.now() + bounds.body_check_s)
        return due

    def _partial_limit(self) -> float:
        """
        Give the time a frame may take that has begun.

        A header block gets what HTTP/1 heads get (R24); a DATA frame what its size allows (R25).
        """
        bounds = self._factory.bounds
        if any(each.reading for each in self._streams.values()):
            frame = self._h2.max_inbound_frame_size
            return max(bounds.head_s, bounds.body_grace_s + frame / max(1.0, bounds.body_rate))
        return bounds.head_s

    def _watch(self) -> None:
        due = self._due()
        if due < self._deadline_s:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline_s = due
            self._deadline = self._factory.wheel.arm(max(0.0, due - self.now()), self._look)

    def _look(self) -> None:
        self._deadline = None
        self._deadline_s = inf
        now = self.now()
        if self._closing:
            self.cut()
            return
        bounds = self._factory.bounds
        if self._blocked_s is not None and now - self._blocked_s >= bounds.stalled_s:
            self._factory.meters.events["slow_reader"] += 1
            self.cut()
            return
        if self._partial_s is not None and now - self._partial_s >= self._partial_limit():
            self._factory.meters.events["http_reject"] += 1
            self._say_goodbye(ErrorCodes.PROTOCOL_ERROR)
            return
        for inbound in tuple(self._streams.values()):
            inbound.overdue(now)
        idle = bounds.idle_s if self._requests else bounds.head_s
        if not self._streams and now - self._idle_s >= idle:
            self._say_goodbye(ErrorCodes.NO_ERROR)
            return
        self._watch()

    # --- Ends

    def drain(self) -> None:
        """Serve the streams that are open, take no more, then close."""
        if not self._closing:
            self._say_last()
            self.flush()

    def _say_last(self) -> None:
        """Tell the client to take its next request elsewhere; h2 itself can only say it at once."""
        if not self._last:
            self._last = True
            self._write_out()
            frame = GoAwayFrame(0, last_stream_id=self._highest, error_code=ErrorCodes.NO_ERROR)
            self.transport.write(frame.serialize())

    def _say_goodbye(self, code: ErrorCodes) -> None:
        if not self._closing:
            self._h2.close_connection(code, last_stream_id=self._highest)
            self._end()

    def _end(self) -> None:
        """Send what waits of h2's own, then close; within a second, whatever the client does."""
        if self._closing:
            return
        self._closing = True
        self._write_out()
        self._ready.clear()
        self._lose_streams()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_s = -inf
        self._deadline = self._factory.wheel.arm(self._factory.bounds.linger_s, self._look)
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # every stream has it
        self.transport.loseConnection()

    def _lose_streams(self) -> None:
        streams, self._streams = self._streams, {}
        for inbound in streams.values():
            inbound.lost()

    def cut(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()  # type: ignore[attr-defined]  # every stream has it
