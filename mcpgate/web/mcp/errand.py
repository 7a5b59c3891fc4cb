"""
A request to a speaker whose answer is wanted as messages, not as bytes on a connection.

So whoever speaks another dialect towards its client (HTTP+SSE, the modern era) uses the speakers
of the legacy era as they are: it hands them a `Post` with an errand in place of the connection,
and hears each JSON-RPC message of the answer, however the answer was framed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from mcpgate.errors import BadBackendAnswer
from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.mcp.framing import SSEReader
from mcpgate.web.mcp.over_http.fetch import EVENT_STREAM, MAX_EVENT_BYTES, media_type

Lines = list[tuple[bytes, bytes]]


@implementer(IInbound)
class Errand:
    """
    See `IInbound`.  It has no body to read: the `Post` that goes with it holds the message.

    :param told: called with each message of the answer, as JSON; a batch comes as one array.
    :param ended: called once when the answer is complete, or was cut off.
    :ivar status: of the answer; 0 while there is none.
    :ivar fields: of the answer.
    :ivar reader: of the answer where it is an event stream.
    :ivar cut: the answer was cut off before it was complete.
    :ivar kept: the answer was kept from earlier, so it does not tell how the server is now.
    :ivar notes: for the access log; share the dictionary of the client's own request.
    """

    def __init__(
        self,
        head: RequestHead,
        peer: Peer,
        request_id: str,
        *,
        told: Callable[[bytes], None],
        ended: Callable[[Errand], None],
        notes: dict[str, object] | None = None,
    ) -> None:
        self.head = head
        self.peer = peer
        self.request_id = request_id
        self.notes = {} if notes is None else notes
        self.extra_fields: Lines = []
        self.started = self.finished = self.cut = self.kept = False
        self.status = 0
        self.fields = Fields()
        self.reader: SSEReader | None = None
        self._told = told
        self._ended = ended
        self._body = bytearray()
        self._gone: list[Callable[[], None]] = []
        self._flow: tuple[Callable[[], None], Callable[[], None]] | None = None

    # --- For whoever sent it ----------------------------------------------------------------------

    def pause(self) -> None:
        """Have the source of the answer paused: its reader is slow."""
        if self._flow is not None and not self.finished:
            self._flow[0]()

    def resume(self) -> None:
        """Have the source of the answer go on."""
        if self._flow is not None and not self.finished:
            self._flow[1]()

    def give_up(self) -> None:
        """Want no answer any more, as a client that has gone."""
        if self.finished:
            return
        self.finished = True
        gone, self._gone = self._gone, []
        for callback in gone:
            callback()

    # --- For whoever answers ----------------------------------------------------------------------

    def read_body(self, limit: int, done: Callable[[bytes], None]) -> None:
        """See `IInbound.read_body`; the body was read already."""
        done(b"")

    def stream_body(
        self, data: Callable[[bytes], None], ended: Callable[[Lines], None], limit: int
    ) -> None:
        """See `IInbound.stream_body`; the body was read already."""
        ended([])

    def pause_body(self) -> None:
        """See `IInbound.pause_body`."""

    def resume_body(self) -> None:
        """See `IInbound.resume_body`."""

    def respond(self, status: int, fields: Lines, body: bytes) -> None:
        """See `IInbound.respond`."""
        self.start(status, fields, len(body))
        self.write(body)
        self.finish()

    def start(self, status: int, fields: Lines, length: int | None) -> None:
        """See `IInbound.start`."""
        if self.finished or self.started:
            return
        self.started = True
        self.status = status
        self.fields = Fields((name.lower(), value) for name, value in fields)
        if media_type(self.fields) == EVENT_STREAM:
            self.reader = SSEReader(MAX_EVENT_BYTES)

    def write(self, data: bytes) -> None:
        """See `IInbound.write`."""
        if self.finished:
            return
        if self.reader is None:
            self._body += data
            if len(self._body) > MAX_EVENT_BYTES:
                self.abort()
            return
        try:
            events = self.reader.feed(data)
        except BadBackendAnswer:
            self.abort()
            return
        for event in events:
            # Priming events are for clients that reconnect; what is sent here is never resumed.
            if event.data and not self.finished:
                self._told(event.data)

    def finish(self, trailers: Lines | None = None) -> None:
        """See `IInbound.finish`."""
        if self.finished:
            return
        body, self._body = bytes(self._body), bytearray()
        if body.strip():
            self._told(body)
        self._over()

    def abort(self) -> None:
        """See `IInbound.abort`."""
        if not self.finished:
            self.cut = True
            give_up, self._gone = self._gone, []
            self._over()
            for callback in give_up:
                callback()

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IInbound.register_flow`."""
        self._flow = (pause, resume)

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `IInbound.on_gone`."""
        if not self.finished:
            self._gone.append(callback)

    def take_over(self, status: int, fields: Lines, protocol: IProtocol) -> NoReturn:
        """See `IInbound.take_over`; no message of MCP asks for it."""
        raise BadBackendAnswer

    def _over(self) -> None:
        # Whoever hears a message last may have given up already.
        if not self.finished:
            self.finished = True
            self._gone = []
            self._ended(self)
