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
from zope.interface import implementer

from mcpgate.errors import BadBackendAnswer, Conflict, GateError, MethodNotAllowed
from mcpgate.gate.sessions import Session
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IInbound, ILease, IResponseReceiver, IUpstreamCall
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.event_stream import EventAligner
from mcpgate.web.refusal import refuse
from mcpgate.web.standing import StandingStream

if TYPE_CHECKING:
    from mcpgate.web.http_sessions import HTTPLink, HTTPSpeaker

# Servers allow one stream per session and notice late that the old one is gone (409).
CONFLICT_TRIES = 5


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
        self._conflicts = 0
        self._resume_from = inbound.head.fields.get(b"last-event-id")

    def begin(self) -> None:
        """Replace an older stream of the session and open this one."""
        link = self._link
        if self._resume_from is None:
            if link.listen is not None:
                link.listen.stop()
            link.listen = self
        self._inbound.on_gone(self.stop)
        lease = self._speaker.connected(self._spec, self._caller, self._session)
        if lease is None:
            self._open()
        else:
            self.attach(lease)
            lease.release()

    def attach(self, lease: ILease) -> None:
        """Pipe the stream of the instance that knows the session now into the client's."""
        if self._call is not None or self._over is None:
            return
        fields = self._speaker.fields(self._inbound, self._caller, self._spec, self._session)
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

    def stop(self) -> None:
        """End both streams."""
        call, self._call = self._call, None
        if call is not None:
            call.abort()
        over, self._over = self._over, None
        if over is None:
            return
        if self._link.listen is self:
            self._link.listen = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        elif not self._inbound.finished:
            refuse(self._inbound, Conflict("A newer stream of the session took over."))
        over()

    def _open(self) -> StandingStream:
        stream = self._stream
        if stream is None:
            stream = self._stream = StandingStream(
                self._inbound,
                wheel=self._speaker.wheel,
                keepalive_s=self._speaker.keepalive_s,
                ended=lambda _: self.stop(),
            )
        return stream

    # --- What the server says --------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        kind = (head.fields.get(b"content-type") or b"").lower()
        if head.status == 200 and kind.startswith(b"text/event-stream"):
            self._aligner = EventAligner()
            stream = self._open()
            stream.source = self._call
            return
        call, self._call = self._call, None
        if call is not None:
            call.abort()
        if head.status == 409 and self._conflicts < CONFLICT_TRIES:
            self._conflicts += 1
            self._speaker.pause().addCallback(self._try_again)
        elif head.status == 405 and self._stream is None:
            # The server has nothing to say unasked; clients go on without the stream.
            refuse(self._inbound, MethodNotAllowed(fields=((b"allow", b"POST, DELETE"),)))
            self.stop()
        else:
            self._open()

    def _try_again(self, _: object) -> None:
        lease = self._speaker.connected(self._spec, self._caller, self._session)
        if lease is None:
            if self._over is not None:
                self._open()
            return
        self.attach(lease)
        lease.release()

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        if self._aligner is None or self._stream is None:
            return
        try:
            events = self._aligner.feed(data)
        except BadBackendAnswer as error:
            call, self._call = self._call, None
            if call is not None:
                call.abort()
            self.response_failed(error, True)
            return
        if events:
            self._stream.send(events)

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._detached()
        if self._resume_from is not None:
            self.stop()  # What could be replayed was; the standing stream is another one.

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._detached()
        if self._over is not None:
            self._open()

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; nothing asks for it."""
        raise BadBackendAnswer

    def _detached(self) -> None:
        self._call = None
        self._aligner = None
        if self._stream is not None:
            self._stream.source = None
