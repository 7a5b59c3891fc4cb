"""
One POST of a client on its way through an HTTP server's session.

The warm path is bytes: the body goes up as it came, the answer comes down as it came.  Only a
small JSON answer is held until it is whole, and an event stream is cut at event boundaries, so
that a failure of the server can still be told in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendDied, BackendTimeout, BadBackendAnswer, GateError
from mcpgate.gate.sessions import Session
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import ILease, IResponseReceiver, IUpstreamCall
from mcpgate.mcp.framing import SSEReader, sse_event
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    decode_server_line,
    encode,
    error_response,
)
from mcpgate.mcp.methods import CANCELLED, is_repeatable
from mcpgate.model import KIB, MIB
from mcpgate.timing.wheel import Deadline
from mcpgate.web.answer import STREAM_FIELDS
from mcpgate.web.endpoint import Post
from mcpgate.web.event_stream import KEEPALIVE, EventAligner
from mcpgate.web.http_fetch import responses_in
from mcpgate.web.refusal import JSON, NO_STORE, refusal_fields, refuse_message
from mcpgate.web.session_state import public, with_id

if TYPE_CHECKING:
    from mcpgate.web.http_sessions import HTTPLink, HTTPSpeaker

log = Logger()

# A JSON answer up to this size is held until it is whole and then written at once.
HOLD_BYTES = 256 * KIB
MAX_REWRITTEN_BYTES = 16 * MIB

_LOST = (b"session", b"not initialized", b"initialize first")


def session_is_lost(status: int, body: bytes) -> bool:
    """
    Tell whether the server says that it does not know the session.

    The specification demands 404; servers on the TypeScript SDK v1 say 400 "No valid session ID"
    or "Server not initialized" (protocol.md 1.5).
    """
    if status == 404:
        return True
    low = body[: 4 * KIB].lower()
    return status == 400 and any(mark in low for mark in _LOST)


@implementer(IResponseReceiver)
class HTTPCall:
    """
    Sends the POST, perhaps once more, and writes what comes back.

    A new try is made when nothing reached the server, when the server forgot the session, or once
    for a message other than ``tools/call`` whose server died before answering (R35).
    """

    __slots__ = (
        "_aligner",
        "_body",
        "_call",
        "_deadline",
        "_ended",
        "_given_up_at",
        "_head",
        "_held",
        "_keepalive",
        "_last_event",
        "_lease",
        "_link",
        "_minted",
        "_post",
        "_reader",
        "_session",
        "_speaker",
        "_tries",
    )

    def __init__(self, speaker: HTTPSpeaker, post: Post, session: Session, link: HTTPLink) -> None:
        self._speaker = speaker
        self._post = post
        self._session = session
        self._link = link
        self._lease: ILease | None = None
        self._call: IUpstreamCall | None = None
        self._tries = 0
        self._ended = False
        self._deadline: Deadline | None = None
        self._keepalive: Deadline | None = None
        self._given_up_at = speaker.clock.seconds() + post.spec.call_timeout_max_s
        self._minted: dict[int | str, int | str] = {}
        self._body = self._mint_ids(post, session, link)
        self._reset()
        session.in_use += len(post.requests)

    def _reset(self) -> None:
        self._head: ResponseHead | None = None
        self._held: bytearray | None = None
        self._aligner: EventAligner | None = None
        self._reader: SSEReader | None = None
        self._last_event = b""

    def _mint_ids(self, post: Post, session: Session, link: HTTPLink) -> bytes:
        """
        Give ids of ours to requests whose id is in work already, or whose session is pooled.

        Some clients send id 1 for everything; servers would mix the answers up.
        """
        pooled = not session.record.id_returned
        messages: list[Message] = []
        for request in post.requests:
            upstream_id: int | str = request.id
            if pooled or request.id in link.ids:
                upstream_id = self._speaker.mint()
                self._minted[upstream_id] = request.id
            link.ids.add(upstream_id)
            messages.append(Request(upstream_id, request.method, request.params))
        if not self._minted:
            return post.body
        messages.extend(post.others)
        encoded = [encode(message) for message in messages]
        return b"[" + b",".join(encoded) + b"]" if post.batch else encoded[0]

    # --- Up -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the message, over a connected session if there is one."""
        post = self._post
        if self._tries == 0:
            post.inbound.register_flow(self._pause, self._resume)
            post.inbound.on_gone(self._client_gone)
        self._tries += 1
        lease = self._speaker.connected(post.spec, post.caller, self._session)
        if lease is not None:
            self._send(lease)
            return
        connecting = self._speaker.connect(post.spec, post.caller, self._session)
        connecting.addCallback(self._send).addErrback(self._not_connected)
        self._arm_keepalive()

    def _not_connected(self, failure: Failure) -> None:
        self._fail(public(failure, self._post.inbound))

    def _send(self, lease: ILease) -> None:
        post = self._post
        self._lease = lease
        self._reset()
        fields = self._speaker.fields(post.inbound, post.caller, post.spec, self._session)
        self._arm_deadline()
        self._arm_keepalive()
        self._call = lease.upstream.send(
            "POST",
            self._speaker.target(post.spec),
            fields,
            self._body,
            self,
            pool=post.caller.principal,
            length=len(self._body),
            timeout_s=post.spec.call_timeout_s,
            stream=True,
        )

    def _again(self) -> None:
        """Try once more, after the moment a death needs to be noticed."""
        self._let_go()
        self._speaker.pause().addCallback(self._rested)

    def _rested(self, _: None) -> None:
        if not self._ended:
            self.begin()

    # --- Down ---------------------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        self._head = head
        inbound = self._post.inbound
        kind = (head.fields.get(b"content-type") or b"").lower()
        plain = 200 <= head.status < 300 and not self._minted
        if plain and kind.startswith(b"text/event-stream") and self._post.accepts[1]:
            self._aligner = EventAligner()
            if not inbound.started:
                inbound.start(200, list(STREAM_FIELDS), None)
            self._arm_keepalive()
        elif (
            plain
            and kind.startswith(b"application/json")
            and self._post.accepts[0]
            and not inbound.started
            and head.content_length is not None
            and head.content_length > HOLD_BYTES
        ):
            inbound.start(head.status, [JSON, NO_STORE], head.content_length)
        else:
            self._held = bytearray()
            if self._minted and kind.startswith(b"text/event-stream") and self._post.accepts[1]:
                self._reader = SSEReader()

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        if self._lease is not None:
            self._lease.touch()
        try:
            self._take(data)
        except GateError as error:
            self._abort_call()
            self._fail(error)

    def _take(self, data: bytes) -> None:
        if self._aligner is not None:
            events = self._aligner.feed(data)
            if events:
                self._last_event = events
                self._arm_deadline()
                self._arm_keepalive()
                self._post.inbound.write(events)
        elif self._reader is not None:
            for event in self._reader.feed(data):
                self._rewritten(event.data)
        elif self._held is not None:
            self._held += data
            if len(self._held) > MAX_REWRITTEN_BYTES:
                raise BadBackendAnswer("The server's answer is too large.")
        else:
            self._arm_deadline()
            self._post.inbound.write(data)

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._call = None
        head, held = self._head, self._held
        assert head is not None
        if held is not None and self._reader is None:
            self._held_answer(head, bytes(held))
            return
        self._remember()
        self._post.inbound.finish()
        self._end()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._call = None
        safe = all(is_repeatable(request.method) for request in self._post.requests)
        untold = self._head is None
        if untold and self._tries < 3 and not sent and not isinstance(error, BackendTimeout):
            self._again()
        elif untold and self._tries < 2 and safe and isinstance(error, BackendDied):
            self._again()
        elif isinstance(error, BackendTimeout):
            self._timed_out()
        else:
            self._fail(error)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; a POST of ours never asks for it."""
        raise BadBackendAnswer

    # --- Answers that are looked at -------------------------------------------------------------

    def _held_answer(self, head: ResponseHead, body: bytes) -> None:
        if session_is_lost(head.status, body) and self._tries < 3:
            # The server refused before running anything: sending it again is safe.
            self._speaker.forgotten(self._session)
            self._again()
            return
        kind = (head.fields.get(b"content-type") or b"").lower()
        if 200 <= head.status < 300 and not self._minted and not self._post.inbound.started:
            as_sent = kind.startswith(b"application/json") and self._post.accepts[0]
            if as_sent or not body:
                fields = [JSON, NO_STORE] if body else []
                self._remember()
                self._post.inbound.respond(head.status, fields, body)
                self._end()
                return
        responses = {response.id: response for response in responses_in(kind, body)}
        self._answer_all(head, responses)

    def _answer_all(
        self, head: ResponseHead, responses: dict[Any, Response | ErrorResponse]
    ) -> None:
        """Answer every request of the POST out of what the server said, in words of JSON-RPC."""
        told: list[Response | ErrorResponse] = []
        for request in self._post.requests:
            upstream_id = next(
                (minted for minted, own in self._minted.items() if own == request.id), request.id
            )
            response = responses.get(upstream_id)
            if response is None and len(self._post.requests) == 1:
                response = next(
                    (r for r in responses.values() if isinstance(r, ErrorResponse)), None
                )
            if response is None:
                error = BadBackendAnswer(
                    f"The server answered HTTP {head.status} without an answer to this call.",
                    data={"status": head.status},
                )
                response = error_response(request.id, error, self._post.inbound.request_id)
            told.append(with_id(response, request.id))
        self._remember()
        inbound = self._post.inbound
        bodies = [encode(response) for response in told]
        if inbound.started or not self._post.accepts[0]:
            if not inbound.started:
                inbound.start(200, list(STREAM_FIELDS), None)
            for body in bodies:
                inbound.write(sse_event(body))
            inbound.finish()
        else:
            array = b"[" + b",".join(bodies) + b"]"
            inbound.respond(200, [JSON, NO_STORE], array if self._post.batch else bodies[0])
        self._end()

    def _rewritten(self, data: bytes) -> None:
        """Pass one event of a stream on, the client's own ids put back."""
        message = decode_server_line(data)
        if message is None:
            return
        if isinstance(message, Response | ErrorResponse) and message.id in self._minted:
            message = with_id(message, self._minted[message.id])
        inbound = self._post.inbound
        if not inbound.started:
            inbound.start(200, list(STREAM_FIELDS), None)
        self._last_event = sse_event(encode(message))
        inbound.write(self._last_event)
        self._arm_deadline()
        self._arm_keepalive()

    # --- Failure and end ------------------------------------------------------------------------

    def _fail(self, error: GateError) -> None:
        """Tell the client in the form that is still possible."""
        if self._ended:
            return
        inbound = self._post.inbound
        inbound.notes["reason"] = error.reason
        answered = self._answered_ids()
        if not inbound.started:
            if len(self._post.requests) == 1:
                refuse_message(inbound, error, self._post.requests[0].id, live=True)
            else:
                body = b",".join(
                    encode(error_response(request.id, error, inbound.request_id))
                    for request in self._post.requests
                )
                inbound.respond(200, refusal_fields(error), b"[" + body + b"]")
        elif self._aligner is None and self._reader is None and self._head is not None:
            inbound.abort()  # Inside a JSON body: only a cut tells that it is not whole.
        else:
            for request in self._post.requests:
                if request.id not in answered:
                    told = error_response(request.id, error, inbound.request_id)
                    inbound.write(sse_event(encode(told)))
            inbound.finish()
        self._end()

    def _answered_ids(self) -> set[object]:
        """Tell which requests the last events passed on did answer."""
        return {r.id for r in responses_in(b"text/event-stream", self._last_event)}

    def _remember(self) -> None:
        for request in self._post.requests:
            self._speaker.remember(self._session, request)

    def _arm_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        spec = self._post.spec
        left = self._given_up_at - self._speaker.clock.seconds()
        self._deadline = self._speaker.wheel.arm(
            max(0.0, min(spec.call_timeout_s, left)), self._timed_out
        )

    def _timed_out(self) -> None:
        self._deadline = None
        if self._ended:
            return
        lease, call = self._lease, self._call
        self._call = None
        if call is not None:
            call.abort()
        if lease is not None:
            for upstream_id in self._upstream_ids():
                cancel = Notification(
                    CANCELLED,
                    {"requestId": upstream_id, "reason": "No answer in time"},
                )
                self._speaker.notify(
                    lease, self._post.spec, self._post.caller, self._session, cancel
                )
        self._fail(BackendTimeout())

    def _upstream_ids(self) -> list[int | str]:
        own = {own: minted for minted, own in self._minted.items()}
        return [own.get(request.id, request.id) for request in self._post.requests]

    def _arm_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._keepalive = self._speaker.wheel.arm(self._speaker.keepalive_s, self._quiet)

    def _quiet(self) -> None:
        self._keepalive = None
        inbound = self._post.inbound
        streaming = self._aligner is not None or self._reader is not None
        if self._ended or not self._post.accepts[1] or not (streaming or self._head is None):
            return
        if not inbound.started:
            inbound.start(200, list(STREAM_FIELDS), None)
        inbound.write(KEEPALIVE)
        self._arm_keepalive()

    def _client_gone(self) -> None:
        # In the legacy era a disconnect is not a cancellation: the server goes on, and what it
        # says is dropped by the inbound.  The deadline still ends it.
        if self._call is not None:
            self._call.resume()

    def _pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def _resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    def _abort_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.abort()

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for deadline in (self._deadline, self._keepalive):
            if deadline is not None:
                deadline.cancel()
        self._let_go()
        self._link.ids.difference_update(self._upstream_ids())
        self._session.in_use -= len(self._post.requests)
        self._post.release()
