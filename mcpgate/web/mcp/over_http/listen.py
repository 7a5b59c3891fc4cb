"""
The GET stream of a session of an HTTP server.

The stream towards the client is the gate's own.  While the server's instance runs and knows the
session, the server's stream is piped into it; while it does not, the client's stream stays open
and quiet, and an idle instance is not kept alive by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import BadBackendAnswer, Conflict, GateError, MethodNotAllowed
from mcpgate.gate.sessions import Session
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IInbound, ILease, IResponseReceiver, IUpstreamCall
from mcpgate.model import Caller, ServerSpec
from mcpgate.timing.wheel import Deadline
from mcpgate.web.event_stream import EventAligner
from mcpgate.web.mcp.over_http.fetch import EVENT_STREAM, media_type
from mcpgate.web.mcp.pinned import strays
from mcpgate.web.mcp.standing import StandingStream
from mcpgate.web.refusal import refuse_message

if TYPE_CHECKING:
    from mcpgate.web.mcp.over_http.link import HTTPLink
    from mcpgate.web.mcp.over_http.sessions import HTTPSpeaker

log = Logger()

_ALLOWED = ((b"allow", b"POST, DELETE"),)

# Servers allow one stream per session and notice late that the old one is gone (409); others end
# it every now and then.  After so many tries in vain the next call of the session tries again.
TRIES = 5


@implementer(IResponseReceiver)
class HTTPListen:
    """
    One client's GET.

    :param over: called once when the client's stream has ended.
    """

    def __init__(
        self,
        speaker: HTTPSpeaker,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        session: Session,
        link: HTTPLink,
        over: Callable[[], None],
    ) -> None:
        self._speaker = speaker
        self._inbound = inbound
        self._caller = caller
        self._spec = spec
        self._session = session
        self._link = link
        self._over: Callable[[], None] | None = over
        self._stream: StandingStream | None = None
        self._call: IUpstreamCall | None = None
        self._aligner: EventAligner | None = None
        self._tries = 0
        self._shakes = 0
        self._unwanted = False
        self._waits = False
        self._patience: Deadline | None = None
        # A replay (R73): of this session, of one stream, over when it is told.
        self._replay = inbound.head.fields.get(b"last-event-id") is not None

    def begin(self) -> None:
        """Replace an older stream of the session and open this one."""
        link = self._link
        if not self._replay or link.listen is None:
            if link.listen is not None:
                link.listen.stop()
            link.listen = self
        self._inbound.on_gone(self.stop)
        if self._over is None:
            return
        lease = self._speaker.connected(self._spec, self._session)
        if lease is None:
            self._park()
            return
        self.attach(lease)
        lease.release()

    def attach(self, lease: ILease) -> None:
        """Pipe the stream of the instance that knows the session now into the client's."""
        if self._call is not None or self._over is None or self._unwanted or self._waits:
            return
        fields = self._speaker.fields(self._inbound, self._caller, self._spec, self._session)
        self._shakes = self._link.shakes
        try:
            self._call = lease.upstream.send(
                "GET",
                self._speaker.target(self._spec),
                fields,
                None,
                self,
                pool=self._caller.principal,
                length=0,
                timeout_s=self._spec.call_timeout_s,
                stream=True,
            )
        except GateError as error:
            self._unwanted = True
            log.debug("A stream could not be asked for: {why}", why=error)
            self._park()
            return
        if self._stream is None:
            # Some servers write no head before the first event; clients do not wait so long.
            self._patience = self._speaker.wheel.arm(self._speaker.keepalive_s, self._open)

    def stop(self) -> None:
        """End both streams."""
        over, self._over = self._over, None
        if over is None:
            return
        self._abort_call()
        self._lose_patience()
        if self._link.listen is self:
            self._link.listen = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        elif not self._inbound.finished:
            refuse_message(
                self._inbound,
                Conflict("A newer stream of the session took over."),
                None,
                live=False,
            )
        over()

    def send(self, event: bytes) -> bool:
        """Say something of the gate's own; False when it can not be said here and now."""
        return self._stream is not None and self._stream.send(event)

    def _open(self) -> None:
        """Begin the client's stream, whatever the server does."""
        self._lose_patience()
        if self._stream is None and self._over is not None:
            self._stream = StandingStream(
                self._inbound,
                wheel=self._speaker.wheel,
                keepalive_s=self._speaker.keepalive_s,
                ended=lambda _: self.stop(),
            )
            if self._link.listen is self:
                self._link.flush()

    def _park(self) -> None:
        """Keep the client's stream open without a source, if it is the session's one."""
        if self._link.listen is self:
            self._open()
        elif self._stream is not None:
            self.stop()
        else:
            self._refuse()

    def _refuse(self) -> None:
        """Say that there is no stream; clients go on without."""
        if self._over is not None:
            error = MethodNotAllowed("There is nothing to hear.", fields=_ALLOWED)
            refuse_message(self._inbound, error, None, live=False)
            self.stop()

    def _lose_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _abort_call(self) -> None:
        call, self._call = self._call, None
        self._aligner = None
        if self._stream is not None:
            self._stream.source = None
        if call is not None:
            call.abort()

    # --- What the server says --------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        if head.status == 200 and media_type(head.fields) == EVENT_STREAM:
            self._aligner = EventAligner()
            self._open()
            stream = self._stream
            if stream is not None and self._call is not None:
                stream.source = self._call
                if stream.paused:
                    self._call.pause()
            return
        self._abort_call()
        if head.status == 409:
            self._try_later()
            return
        if head.status == 404:
            self._speaker.forgotten(self._session, self._link, self._shakes)
        elif head.status == 405:
            self._unwanted = True
            if self._stream is None:
                # The server has nothing to say unasked.
                self._refuse()
                return
        self._park()

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        if self._aligner is None or self._stream is None:
            return
        try:
            events = self._aligner.feed(data)
        except BadBackendAnswer as error:
            self._abort_call()
            self.response_failed(error, True)
            return
        if events:
            self._tries = 0
            if strays.looks(self._spec):
                events = strays.without_strays(events, None)
            if b"/list_changed" in events:
                self._speaker.lists_changed(self._spec, self._session)
            if events:
                self._stream.send(events)

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._call = None
        self._abort_call()
        if self._replay:
            self.stop()  # What could be replayed was; the standing stream is another one.
        else:
            self._try_later()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._call = None
        self._abort_call()
        self._try_later()

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; nothing asks for it."""
        raise BadBackendAnswer

    def _try_later(self) -> None:
        """Ask again a little later, later each time."""
        if self._over is None or self._waits:
            return
        if self._tries >= TRIES:
            self._tries = 0
            self._park()
            return
        self._waits = True
        self._speaker.clock.callLater(0.2 * 2**self._tries, self._try_again)
        self._tries += 1

    def _try_again(self) -> None:
        self._waits = False
        if self._over is None:
            return
        lease = self._speaker.connected(self._spec, self._session)
        if lease is None:
            self._park()
            return
        self.attach(lease)
        lease.release()
