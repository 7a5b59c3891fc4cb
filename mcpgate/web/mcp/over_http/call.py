"""
One request of a client on its way through an HTTP server's session.

The warm path is bytes: the body goes up as it came, the answer comes down as it came.  Only a
small JSON answer is held until it is whole, and an event stream is cut at event boundaries, so
that a failure of the server can still be told in words.

A server may end its stream before the answer and want to be asked for the rest (2025-11-25).
Clients that got its event ids do so themselves; for all others it is done here.

This is over 500 lines since trying, passing on and failing share the state of one exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendDied, BackendTimeout, BadBackendAnswer, CallCancelled, GateError
from mcpgate.gate.sessions import Session
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import ILease, IResponseReceiver, IUpstreamCall
from mcpgate.mcp.framing import SSEReader
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Response
from mcpgate.mcp.methods import CANCELLED, is_repeatable
from mcpgate.model import KIB, MIB, Exit, Isolation
from mcpgate.runtime.attempt import exit_data
from mcpgate.timing.wheel import Deadline
from mcpgate.web.event_stream import EventAligner
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.over_http.fetch import (
    EVENT_STREAM,
    JSON_TYPE,
    MAX_EVENT_BYTES,
    media_type,
    messages_in,
    responses_in,
    session_is_lost,
)
from mcpgate.web.mcp.over_http.upstream_ids import UpstreamId
from mcpgate.web.mcp.pinned import strays
from mcpgate.web.mcp.post import Post
from mcpgate.web.mcp.session_state import is_kept, public, with_id

if TYPE_CHECKING:
    from mcpgate.web.mcp.over_http.link import HTTPLink
    from mcpgate.web.mcp.over_http.sessions import HTTPSpeaker

log = Logger()

# A JSON answer up to this size is held until it is whole and then written at once.
HOLD_BYTES = 256 * KIB
MAX_HELD_BYTES = 16 * MIB

# How long the end of the process may lag behind that of its connections.
ENDING_S = 0.4

# How soon the rest of a stream is asked for where the server does not say, and at the soonest.
RETRY_MS = 1000
RETRY_LEAST_MS = 100
EVENT_ID_CHARS = 4 * KIB


@implementer(IResponseReceiver)
class HTTPCall:
    """
    Sends the request, perhaps once more, and writes what comes back.

    A new try is made when nothing reached the server, when the server forgot the session, or once
    for a message other than ``tools/call`` whose server died before answering (R35).  The client's
    going changes nothing: in the legacy era it is no cancellation, and the deadlines go on.

    :param post: of one request; what comes as an array is taken apart before (`batches`).
    """

    __slots__ = (
        "_aligner",
        "_answer",
        "_call",
        "_deadline",
        "_ended",
        "_event_id",
        "_given_up_at",
        "_head",
        "_held",
        "_id",
        "_lease",
        "_link",
        "_looks",
        "_paused",
        "_post",
        "_reader",
        "_request",
        "_resumable",
        "_session",
        "_shakes",
        "_speaker",
        "_suspects",
        "_tries",
    )

    def __init__(self, speaker: HTTPSpeaker, post: Post, session: Session, link: HTTPLink) -> None:
        self._speaker = speaker
        self._post = post
        (self._request,) = post.requests
        self._session = session
        self._link = link
        self._lease: ILease | None = None
        self._call: IUpstreamCall | None = None
        self._tries = 0
        self._shakes = 0
        self._ended = False
        self._paused = False
        self._deadline: Deadline | None = None
        self._given_up_at = speaker.clock.seconds() + post.spec.call_timeout_max_s
        pooled = not session.record.id_returned
        self._looks = strays.looks(post.spec, self._request.method)
        self._id = UpstreamId(self._request, post.body, link.ids, speaker.mint, pooled=pooled)
        self._reset()
        link.calls[self] = None
        session.in_use += 1
        self._answer = speaker.answer(post)

    def _reset(self) -> None:
        self._head: ResponseHead | None = None
        # What becomes of the body: events as they are, events that are looked at, held, or (none
        # of these) JSON as it comes.
        self._aligner: EventAligner | None = None
        self._reader: SSEReader | None = None
        self._held: bytearray | None = None
        # Events that may have been answers, and whether the client can ask for lost ones.
        self._suspects: list[bytes] = []
        self._resumable = False
        # The last event before a stream whose rest is asked for here.
        self._event_id = ""

    # --- For the session ------------------------------------------------------------------------

    def asks(self, request_id: object) -> bool:
        """Tell whether this is the request with the client's id."""
        own = self._request.id
        return own == request_id and type(own) is type(request_id)

    def cancelled(self) -> int | str | None:
        """
        Take note that the client cancelled its request.

        :return: the id under which the server knows the request; None when it never heard of it.
        """
        sent = self._call is not None or bool(self._event_id)
        self._abort_call()
        self._fail(CallCancelled())
        return self._id.upstream if sent else None

    # --- Up -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the message, over a connected session if there is one."""
        if self._ended:
            return
        post, speaker = self._post, self._speaker
        if self._tries == 0:
            post.inbound.register_flow(self._pause, self._resume)
            post.inbound.on_gone(self._resume)
        self._tries += 1
        try:
            lease = None
            if speaker.is_introduced(self._session):
                lease = speaker.connected(post.spec, self._session)
            if lease is not None:
                if self._link.listen is not None:
                    self._link.listen.attach(lease)
                self._send(lease)
                return
            self._arm_deadline(post.spec.call_timeout_max_s)
            connecting = speaker.while_starting(
                speaker.connect(post.spec, post.caller, self._session),
                self._answer,
                post.spec,
                post.requests,
            )
            connecting.addCallback(self._send).addErrback(self._not_sent)
        except Exception:
            self._not_sent(Failure())

    def _not_sent(self, failure: Failure) -> None:
        if self._ended:
            return
        error = public(failure, self._post.inbound)
        if self._speaker.handed_over(
            failure, self._post, self._session, self._post.requests, self._answer, self._failed
        ):
            self._leave()
        elif isinstance(error, BackendDied) and self._tries < 2:
            self._again()
        else:
            self._fail(error)

    def _failed(self, failure: Failure) -> None:
        """Fail after all, when the server turned out to be of no other era."""
        self._answer.fail_rest(public(failure, self._post.inbound))
        self._post.release()

    def _send(self, lease: ILease) -> None:
        if self._ended:
            lease.release()
            return
        post = self._post
        self._lease = lease
        self._shakes = self._link.shakes
        self._reset()
        fields = self._speaker.fields(post.inbound, post.caller, post.spec, self._session)
        self._arm_deadline(post.spec.call_timeout_s)
        self._call = lease.upstream.send(
            "POST",
            self._speaker.target(post.spec),
            fields,
            self._id.body,
            self,
            pool=post.caller.principal,
            length=len(self._id.body),
            timeout_s=post.spec.call_timeout_s,
            stream=True,
        )
        if self._paused:
            self._call.pause()

    def _again(self) -> None:
        """Try once more, after the moment a death needs to be noticed."""
        self._let_go()
        self._speaker.pause().addCallback(lambda _: self.begin())

    # --- Down ---------------------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        if self._ended:
            return
        self._head = head
        kind = media_type(head.fields)
        good = 200 <= head.status < 300
        length = head.content_length
        if good and kind == EVENT_STREAM:
            if self._id.minted or not self._post.accepts[1]:
                self._reader = SSEReader(MAX_EVENT_BYTES)
            else:
                self._aligner = EventAligner(MAX_EVENT_BYTES)
                self._answer.open_stream()
        elif (
            good
            and kind == JSON_TYPE
            and not self._id.minted
            and not self._looks
            and length is not None
            and length > HOLD_BYTES
            and self._answer.begin_body(length)
        ):
            pass
        else:
            self._held = bytearray()

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        if self._ended or self._lease is None:
            return
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
                self._pass_on(events)
        elif self._reader is not None:
            for event in self._reader.feed(data):
                if self._ended:
                    return
                self._arm_deadline(self._post.spec.call_timeout_s)
                self._rewritten(event.data)
        elif self._held is not None:
            self._held += data
            if len(self._held) > MAX_HELD_BYTES:
                raise BadBackendAnswer("The server's answer is too large.")
        else:
            self._arm_deadline(self._post.spec.call_timeout_s)
            self._answer.body(data)

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._call = None
        if self._ended:
            return
        if self._held is not None:
            self._held_answer(bytes(self._held))
            return
        if self._aligner is not None or self._reader is not None:
            self._look_at_suspects()
            if self._answer.waiting and self._asks_for_rest():
                return
            if self._answer.waiting and not self._resumable:
                # A stream without ids can not be taken up again: waiting for it would be for ever.
                self._lost(BadBackendAnswer("The server's event stream ended without an answer."))
                return
        self._answer.end()
        self._end()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._call = None
        if self._ended:
            return
        safe = is_repeatable(self._request.method)
        untold = self._head is None
        if isinstance(error, BackendTimeout):
            self._give_up()
        elif untold and not sent and self._tries < 3:
            self._again()
        elif untold and safe and self._tries < 2 and isinstance(error, BackendDied):
            self._again()
        elif isinstance(error, BackendDied):
            self._lost(error)
        else:
            self._fail(error)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; a POST of ours never asks for it."""
        raise BadBackendAnswer

    # --- The rest of a stream ---------------------------------------------------------------------

    def _asks_for_rest(self) -> bool:
        """Ask for the rest in a while; False where nobody can, or the client does."""
        inbound = self._post.inbound
        reader = inbound.reader if isinstance(inbound, Errand) else None
        if self._aligner is None:
            reader = self._reader
        event_id = "" if reader is None else reader.last_event_id or self._event_id
        lease = self._lease
        if reader is None or lease is None or not 0 < len(event_id) <= EVENT_ID_CHARS:
            return False
        self._event_id = event_id
        retry_ms = RETRY_MS if reader.retry_ms is None else max(RETRY_LEAST_MS, reader.retry_ms)
        wait_s = min(retry_ms / 1000, self._post.spec.call_timeout_s)
        self._unless_ended(lease, wait_s, self._ask_for_rest)
        return True

    def _ask_for_rest(self) -> None:
        lease, post = self._lease, self._post
        if self._ended or lease is None:
            return
        self._aligner = self._reader = None
        try:
            self._call = lease.upstream.send(
                "GET",
                self._speaker.target(post.spec),
                self._speaker.rest_fields(post.caller, post.spec, self._session, self._event_id),
                None,
                self,
                pool=post.caller.principal,
                length=0,
                timeout_s=post.spec.call_timeout_s,
                stream=True,
            )
        except GateError as error:
            self._fail(error)
            return
        if self._paused:
            self._call.pause()

    # --- Answers ----------------------------------------------------------------------------------

    def _held_answer(self, body: bytes) -> None:
        head = self._head
        assert head is not None
        if self._event_id:
            # Whatever it says, the call may have run: it is not sent again.
            self._fail(
                BadBackendAnswer(
                    f"The server answered HTTP {head.status} to a question for its stream's rest.",
                    data={"status": head.status},
                )
            )
            return
        if session_is_lost(head.status, body) and self._tries < 3:
            # The server refused before running anything: sending it again is safe.
            self._speaker.forgotten(self._session, self._link, self._shakes)
            self._let_go()
            self._speaker.clock.callLater(0, self.begin)
            return
        kind = media_type(head.fields)
        if self._looks and kind == JSON_TYPE and strays.is_stray(body, self._id.upstream):
            self._fail(BadBackendAnswer("The server answered something else with its tools."))
            return
        if 200 <= head.status < 300 and not self._id.minted and kind == JSON_TYPE and body.strip():
            if is_kept(self._request):
                self._remember(responses_in(kind, body))
            self._answer.whole(body)
            self._end()
            return
        for response in responses_in(kind, body):
            self._respond(response)
        self._fail(
            BadBackendAnswer(
                f"The server answered HTTP {head.status} without an answer to this call.",
                data={"status": head.status},
            )
        )

    def _respond(self, response: Response | ErrorResponse) -> None:
        """Give the client its answer under its own id."""
        # Errors may come without the id: they belong to the exchange (protocol.md 1.5).
        if response.id == self._id.upstream or isinstance(response, ErrorResponse):
            told = with_id(response, self._request.id)
            self._remember([told])
            self._answer.complete(told)

    def _pass_on(self, events: bytes) -> None:
        if self._looks:
            events = strays.without_strays(events, self._id.upstream)
            if not events:
                return
        if b'"result"' in events or b'"error"' in events:
            self._suspects.append(events)
            if len(self._suspects) > 1:
                self._look_at_suspects()
        if events.startswith(b"id:") or b"\nid:" in events:
            self._resumable = True
        if b"/list_changed" in events:
            self._speaker.lists_changed(self._post.spec, self._session)
        self._answer.events(events)
        self._arm_deadline(self._post.spec.call_timeout_s)

    def _look_at_suspects(self) -> None:
        """Find the answer among the events that were passed on."""
        suspects, self._suspects = self._suspects, []
        plain = not is_kept(self._request)
        for events in suspects:
            if plain and b'"method"' not in events:
                # Neither a request nor a notification: no need to read it.
                self._answer.answered(self._request.id)
                continue
            responses = responses_in(EVENT_STREAM, events)
            self._remember(responses)
            for response in responses:
                if response.id is not None:
                    self._answer.answered(response.id)

    def _rewritten(self, data: bytes) -> None:
        """Pass one event of a stream on, the client's own id put back."""
        for message in messages_in(data):
            if isinstance(message, Response | ErrorResponse):
                self._respond(message)
            else:
                self._answer.stream(message)
        if not self._answer.waiting:
            self._end()

    def _remember(self, responses: list[Response | ErrorResponse]) -> None:
        for response in responses:
            if response.id == self._request.id:
                self._speaker.remember(self._session, self._request, response)

    # --- Failure and end ------------------------------------------------------------------------

    def _fail(self, error: GateError) -> None:
        """Tell the client in the form that is still possible."""
        if not self._ended:
            self._look_at_suspects()
            self._answer.fail_rest(error)
            self._end()

    def _lost(self, error: BackendDied) -> None:
        """
        Fail, with how the server ended if that is why.

        The end of a connection is known a moment before that of the process.
        """
        lease = self._lease
        if lease is None or self._post.spec.url:
            self._fail(error)
        else:
            self._unless_ended(lease, ENDING_S, lambda: self._fail(error))

    def _unless_ended(self, lease: ILease, wait_s: float, then: Callable[[], None]) -> None:
        """Wait; fail at once, with how the server ended, if it does."""

        def told(how: Exit) -> None:
            self._fail(BackendDied(data=exit_data(how, stderr=not self._is_shared())))

        ending = lease.instance.when_ended().addTimeout(wait_s, self._speaker.clock)
        ending.addCallbacks(told, lambda _: then())
        ending.addErrback(lambda failure: log.failure("A call could not be failed", failure))

    def _is_shared(self) -> bool:
        return self._post.spec.isolation is Isolation.SHARED

    def _arm_deadline(self, delay_s: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        left_s = self._given_up_at - self._speaker.clock.seconds()
        self._deadline = self._speaker.wheel.arm(max(0.0, min(delay_s, left_s)), self._due)

    def _due(self) -> None:
        self._deadline = None
        if self._paused and self._speaker.clock.seconds() < self._given_up_at:
            # It is the client who does not read.
            self._arm_deadline(self._post.spec.call_timeout_s)
        else:
            self._give_up()

    def _give_up(self) -> None:
        lease = self._lease
        self._abort_call()
        if lease is not None:
            params: dict[str, object] = {
                "requestId": self._id.upstream,
                "reason": "No answer in time",
            }
            self._speaker.notify(
                lease,
                self._post.spec,
                self._post.caller,
                self._session,
                Notification(CANCELLED, params),
            )
        self._fail(BackendTimeout())

    def _pause(self) -> None:
        self._paused = True
        if self._call is not None:
            self._call.pause()

    def _resume(self) -> None:
        self._paused = False
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
        self._leave()
        self._post.release()

    def _leave(self) -> None:
        """Be done with the answer; what the POST takes of the limits is somebody else's now."""
        self._ended = True
        # What may still come of the answer is nobody's; let the connection be free for others.
        self._resume()
        if self._deadline is not None:
            self._deadline.cancel()
        self._let_go()
        self._link.calls.pop(self, None)
        self._id.done()
        self._session.in_use -= 1
