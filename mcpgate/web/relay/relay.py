"""
The byte relay: a client's request to a server's other paths, and the answer, as they come.

Nothing is parsed but heads, nothing is kept but one transport buffer each way: a slow reader
pauses the writer.  Small bodies are the exception, passed on in one write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import BadBackendAnswer, BadRequest, GateError, TooLarge
from mcpgate.http.forwarding import Forwarding, trailer_fields
from mcpgate.http.heads import ResponseHead
from mcpgate.http.writing import KeptFields
from mcpgate.interfaces import IInbound, ILease, IResponseReceiver, IUpstreamCall
from mcpgate.model import KIB, Caller, ServerSpec
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.event_stream import KEEPALIVE, EventBoundary, is_event_stream
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.upgrade import Pipe

log = Logger()

# Bodies of declared length up to this are collected: one write instead of two.
SMALL_BYTES: Final = 64 * KIB
_BODILESS: Final = frozenset({204, 304})
_STREAM_FIELDS: Final = (
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


Watch = Callable[[Caller, Callable[[], None]], Callable[[], None]]


def _nothing() -> None:
    """Nothing watched."""


def _unwatched(caller: Caller, ending: Callable[[], None]) -> Callable[[], None]:
    return _nothing


def _refused(inbound: IInbound, lease: ILease, error: GateError, sent: bool) -> None:
    refuse(inbound, error)


class Kept:
    """
    What a request is to a server, kept for when the same comes again.

    :ivar upstream: whose; with another one it is worth nothing.
    """

    __slots__ = ("prepared", "upstream")

    def __init__(self) -> None:
        self.upstream: object = None
        self.prepared: object = None


class Relay:
    """
    Passes requests on to servers.

    :param keepalive_s: a silent event stream gets a comment this often, since clients and proxies
        between cut off what is silent; 0 = never.
    :param watch: keeps the key of a long stream checked, and calls back when it is revoked (R58);
        gives what is called when the stream has ended.  See `Revocations.watch`.
    :param sending: called when a request leaves for the server.
    :param fail: tells a client that its request has failed; with the lease it had, and whether
        anything of it may have reached the server.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        forwarding: Forwarding,
        meters: Meters,
        *,
        keepalive_s: float = 15.0,
        watch: Watch = _unwatched,
        sending: Callable[[IInbound], None] | None = None,
        fail: Callable[[IInbound, ILease, GateError, bool], None] = _refused,
    ) -> None:
        self.watch = watch
        self.seconds = clock.seconds
        self.wheel = wheel
        self.forwarding = forwarding
        self.meters = meters
        self.keepalive_s = keepalive_s
        self.sending = sending
        self.fail = fail

    def relay(
        self,
        inbound: IInbound,
        lease: ILease,
        spec: ServerSpec,
        caller: Caller,
        *,
        target: bytes,
        prefix: bytes,
        ended: Callable[[], None] | None = None,
        kept: Kept | None = None,
    ) -> None:
        """
        Pass one request on.  The lease is released when its answer is complete, either way.

        :param target: path and query towards the server.
        :param prefix: what was cut off the front of the client's path, e.g. ``/notes``.
        :param ended: called once, after the lease was released.
        :param kept: of earlier requests with this head, peer, spec, caller and target.
        """
        _Passage(self, inbound, lease, spec, caller, target, prefix, ended, kept).begin()


@implementer(IResponseReceiver)
class _Passage:
    """One request under way, and the receiver of its answer."""

    __slots__ = (
        "_body",
        "_boundary",
        "_call",
        "_caller",
        "_counted",
        "_deadline",
        "_ended",
        "_fields",
        "_head",
        "_inbound",
        "_kept",
        "_lease",
        "_over",
        "_pipe",
        "_prefix",
        "_relay",
        "_silent_since_s",
        "_spec",
        "_streaming",
        "_target",
        "_unwatch",
        "_uploading",
    )

    def __init__(
        self,
        relay: Relay,
        inbound: IInbound,
        lease: ILease,
        spec: ServerSpec,
        caller: Caller,
        target: bytes,
        prefix: bytes,
        ended: Callable[[], None] | None,
        kept: Kept | None,
    ) -> None:
        self._relay = relay
        self._inbound = inbound
        self._lease = lease
        self._spec = spec
        self._caller = caller
        self._target = target
        self._prefix = prefix
        self._ended = ended
        self._kept = kept
        self._call: IUpstreamCall | None = None
        self._head: ResponseHead | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._boundary: EventBoundary | None = None
        self._deadline: Deadline | None = None
        self._silent_since_s = 0.0
        self._counted = False
        self._pipe: Pipe | None = None
        self._streaming = False
        self._unwatch = _nothing
        self._uploading = False
        self._over = False

    # --- The request -----------------------------------------------------------------------

    def begin(self) -> None:
        inbound, head, limit = self._inbound, self._inbound.head, self._spec.relay_body_bytes
        length = head.content_length
        inbound.on_gone(self._gone)
        if not head.has_body:
            self._send(b"", 0)
        elif limit and length is not None and length > limit:
            self._fail(TooLarge())
        elif length is not None and length <= SMALL_BYTES:
            inbound.read_body(SMALL_BYTES, self._send_whole)
        else:
            self._send(None, length)
            call = self._call
            if call is not None:
                self._uploading = True
                call.register_flow(inbound.pause_body, inbound.resume_body)
                inbound.stream_body(self._upload, self._uploaded, limit)

    def _send_whole(self, body: bytes) -> None:
        if not self._over:
            self._send(body, len(body))

    def _send(self, body: bytes | None, length: int | None) -> None:
        inbound, head = self._inbound, self._inbound.head
        if self._relay.sending is not None:
            self._relay.sending(inbound)
        try:
            if self._kept is not None and body is not None and self._send_kept(self._kept, body):
                return
            fields = self._forwarded()
            self._call = self._lease.upstream.send(
                head.method,
                self._target,
                fields,
                body,
                self,
                pool=self._caller.principal,
                length=length,
                timeout_s=self._spec.call_timeout_s,
                stream=False,
            )
        except BadRequest as error:
            self._fail(error)

    def _forwarded(self) -> list[tuple[bytes, bytes]]:
        inbound = self._inbound
        return self._relay.forwarding.relay_request(
            inbound.head,
            inbound.peer,
            self._spec,
            self._caller,
            prefix=self._prefix,
            request_id=inbound.request_id,
        )

    def _send_kept(self, kept: Kept, body: bytes) -> bool:
        """Send it with the head of an earlier one; False where that can not be."""
        inbound, upstream = self._inbound, self._lease.upstream
        if kept.upstream is not upstream:
            kept.upstream = upstream
            kept.prepared = None
            if hasattr(upstream, "prepare"):
                kept.prepared = upstream.prepare(
                    inbound.head.method, self._target, self._forwarded(), inbound.request_id
                )
        if kept.prepared is None:
            return False
        self._call = upstream.send_prepared(
            kept.prepared,
            inbound.request_id,
            body,
            self,
            pool=self._caller.principal,
            timeout_s=self._spec.call_timeout_s,
        )
        return True

    def _upload(self, data: bytes) -> None:
        self._lease.touch()
        if self._call is not None:
            self._call.write(data)

    def _uploaded(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self._uploading = False
        if self._call is not None:
            self._call.end(trailer_fields(trailers) if trailers else trailers)

    def _gone(self) -> None:
        # Of an upgraded connection the pipe hears itself.
        if not self._over and self._pipe is None:
            if self._call is not None:
                self._call.abort()
            self._done()

    # --- IResponseReceiver -----------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        inbound = self._inbound
        if inbound.finished:
            # A breach of the request's body was answered at the front door.
            self._gone()
            return
        self._head = head
        self._fields = self._answer_fields(head)
        if inbound.head.method == "HEAD" or head.status in _BODILESS:
            return
        if is_event_stream(head):
            self._start_events(head)
        elif head.content_length is None or head.content_length > SMALL_BYTES:
            self._start(head.content_length)
        # Else: the first bytes of a small body come at once, mostly all of them.

    def _answer_fields(self, head: ResponseHead) -> list[tuple[bytes, bytes]]:
        memo = head.memo
        if memo is not None:
            known = memo.get("relay")
            if known is not None and known[0] is self._spec:
                fields: KeptFields = known[1]
                return fields
        made = self._relay.forwarding.relay_response(
            head.fields,
            self._spec,
            authority=getattr(self._lease.upstream, "authority", b""),
            prefix=self._prefix,
        )
        # Where a redirect leads depends on who is told.
        if memo is not None and b"location" not in head.fields:
            made = KeptFields(made)
            memo["relay"] = (self._spec, made)
        return made

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        self._lease.touch()
        if not self._streaming:
            assert self._head is not None
            if not self._body and len(data) == self._head.content_length:
                self._body = data
                return
            self._start(self._head.content_length)
        self._inbound.write(data)
        if self._boundary is not None:
            self._boundary.passed(data)
            self._silent_since_s = self._relay.seconds()

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        inbound = self._inbound
        assert self._head is not None
        if self._streaming:
            inbound.finish(trailer_fields(trailers) if trailers else None)
        elif inbound.head.method == "HEAD" or self._head.status == 304:
            # The length told is of the body that would have been.
            inbound.start(self._head.status, self._fields, self._head.content_length)
            inbound.finish()
        else:
            inbound.respond(self._head.status, self._fields, self._body)
        self._done()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._fail(error, sent)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`."""
        inbound = self._inbound
        if inbound.finished or (head.fields.get(b"upgrade") or b"").lower() != inbound.head.upgrade:
            self._fail(BadBackendAnswer(), sent=True)
            raise BadBackendAnswer
        fields = self._relay.forwarding.relay_response(
            head.fields, self._spec, authority=b"", prefix=self._prefix
        )
        fields += [(b"connection", b"Upgrade"), (b"upgrade", inbound.head.upgrade)]
        self._count_stream()
        self._pipe = pipe = Pipe(
            self._relay.wheel,
            open_client=lambda client: inbound.take_over(101, fields, client),
            touched=self._lease.touch,
            over=self._done,
        )
        return pipe.server

    # --- The answer ------------------------------------------------------------------------

    def _start(self, length: int | None) -> None:
        assert self._head is not None
        self._streaming = True
        self._inbound.start(self._head.status, self._fields, length)
        if self._call is not None:
            self._inbound.register_flow(self._call.pause, self._call.resume)

    def _start_events(self, head: ResponseHead) -> None:
        more = [line for line in _STREAM_FIELDS if line[0] not in head.fields]
        self._fields = [*self._fields, *more]
        # Comments may be put in, so a declared length does not hold.
        self._start(None)
        self._count_stream()
        if b"content-encoding" not in head.fields and self._relay.keepalive_s:
            self._boundary = EventBoundary()
            self._silent_since_s = self._relay.seconds()
            self._deadline = self._relay.wheel.arm(self._relay.keepalive_s, self._silent)

    def _count_stream(self) -> None:
        self._counted = True
        self._relay.meters.streams += 1
        self._unwatch = self._relay.watch(self._caller, self._revoked)

    def _revoked(self) -> None:
        if self._pipe is not None:
            self._pipe.abort()
        else:
            self._inbound.notes["reason"] = "revoked"
            self._inbound.abort()
            self._gone()

    def _silent(self) -> None:
        keepalive_s = self._relay.keepalive_s
        left_s = self._silent_since_s + keepalive_s - self._relay.seconds()
        if left_s <= 0:
            left_s = keepalive_s
            if self._boundary is not None and self._boundary.at_boundary:
                self._inbound.write(KEEPALIVE)
        self._deadline = self._relay.wheel.arm(left_s, self._silent)

    def _fail(self, error: GateError, sent: bool = False) -> None:
        if not self._over:
            self._relay.fail(self._inbound, self._lease, error, sent)
            self._done()

    def _done(self) -> None:
        if self._over:
            return
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._counted:
            self._relay.meters.streams -= 1
            self._unwatch()
        if self._uploading:
            # What is still to come of the request is the front door's business again.
            self._inbound.resume_body()
        self._lease.release()
        if self._ended is not None:
            self._ended()
