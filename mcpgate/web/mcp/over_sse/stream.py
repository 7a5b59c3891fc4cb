"""
One client of HTTP+SSE (2024-11-05): its event stream, and the session that lives as long.

What the client POSTs goes to the speaker of the server as an `Errand`; whatever is said in return
goes out on the one stream.  The transport has no resumption: when the stream ends the session
does, and what is in work for it is cancelled at the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import BadBackendAnswer, BadRequest, CallCancelled, GateError
from mcpgate.gate.sessions import Session
from mcpgate.http.fields import Fields
from mcpgate.http.heads import RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import (
    Batch,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    decode_server_line,
    encode,
    error_response,
)
from mcpgate.mcp.methods import CANCELLED, INITIALIZE, INITIALIZED, PING
from mcpgate.model import MIB, Caller, ServerSpec
from mcpgate.timing.wheel import Deadline
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.opening import check_initialize, new_session, taken_apart
from mcpgate.web.mcp.post import Post, Speaker
from mcpgate.web.mcp.session_state import public, with_id
from mcpgate.web.mcp.standing import StandingStream

if TYPE_CHECKING:
    from mcpgate.web.mcp.over_sse.endpoint import SSEEndpoint

log = Logger()

# What waits for a client that reads slowly: beyond the first bound nothing more is asked for it and
# notifications are dropped, beyond the second the stream is cut.
QUEUE_BYTES = 1 * MIB
QUEUE_MAX_BYTES = 32 * MIB

# A stream on which nobody says initialize is ended.
OPENING_S = 300.0


@dataclass(eq=False, slots=True)
class Work:
    """
    One POST whose requests are in work.

    :ivar waiting: ids that were not answered yet.
    :ivar opening: it is ``initialize``.
    :ivar unread: something was passed on that may have been an answer.
    """

    errand: Errand
    waiting: dict[int | str, None] = field(default_factory=dict)
    opening: bool = False
    unread: bool = False


class SSEStream:
    """
    The GET, and all that is said over it.

    :param path: public path for the client's messages, for the ``endpoint`` event.
    :param release: gives the stream's slot back.
    :ivar session: None until ``initialize``, and again where that failed.
    :ivar over: it has ended.
    """

    def __init__(
        self,
        home: SSEEndpoint,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        stream_id: str,
        *,
        path: str,
        release: Callable[[], None],
    ) -> None:
        self.stream_id = stream_id
        self.caller = caller
        self.spec = spec
        self.session: Session | None = None
        self.over = False
        self._home = home
        self._inbound = inbound
        self._release: Callable[[], None] = release
        self._works: dict[Work, None] = {}
        self._listening: Errand | None = None
        # The session's answer to initialize has been given.
        self._opened = False
        self._closing = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._deadline: Deadline | None = home.wheel.arm(OPENING_S, self._not_opened)
        self._stream = StandingStream(
            inbound,
            wheel=home.wheel,
            keepalive_s=home.keepalive_s,
            ended=lambda _: self._end(),
            first=sse_event(path.encode("ascii"), event="endpoint"),
        )
        self._stream.source = self

    # --- Life -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the stream politely, now."""
        self._stream.close()

    def finish(self) -> None:
        """End the stream politely, as soon as what is in work is answered."""
        self._closing = True
        if not self._works:
            self.close()

    def _not_opened(self) -> None:
        self._deadline = None
        self.close()

    def _end(self) -> None:
        self.over = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._queue.clear()
        self._home.forget(self)
        session = self.session
        try:
            if session is not None and not session.ended:
                self._cancel_all(session)
        finally:
            works, self._works = self._works, {}
            for work in works:
                work.errand.give_up()
            if self._listening is not None:
                self._listening.give_up()
            if session is not None:
                self._let_go(session)
            self._release()

    def _cancel_all(self, session: Session) -> None:
        """Tell the server what nobody waits for any more; ``initialize`` can not be cancelled."""
        speaker = self._speaker()
        for work in tuple(self._works):
            for request_id in () if work.opening else tuple(work.waiting):
                params: dict[str, object] = {
                    "requestId": request_id,
                    "reason": "The client has gone",
                }
                message = Notification(CANCELLED, params)
                try:
                    speaker.tell(self._told_only(message), session)
                except GateError as error:
                    log.debug("A call could not be cancelled: {why}", why=error)

    def _let_go(self, session: Session) -> None:
        session.in_use -= 1
        if not session.ended:
            self._speaker().end(self.caller, self.spec, session)
            self._home.sessions.end(session, "stream closed")

    def _session_ended(self, _: str) -> None:
        if self._opened:
            self.close()
        else:
            # Its initialize failed: the client hears why, and may try again.
            self.session = None

    # --- What the client says -------------------------------------------------------------------

    @property
    def overfull(self) -> bool:
        """Tell whether the client should read before it asks for more."""
        return self._queued > QUEUE_BYTES

    def check(self, message: Message | Batch) -> tuple[Message, ...]:
        """
        Take what was sent apart.

        :raises BadRequest: it is an array, and this session's revision has none.
        """
        revision = self.session.record.revision if self.session is not None else "2024-11-05"
        return taken_apart(message, revision)

    def take(
        self,
        inbound: IInbound,
        caller: Caller,
        messages: tuple[Message, ...],
        body: bytes,
        *,
        batch: bool,
    ) -> None:
        """Do what the client says; every refusal goes out on the stream, under the call's id."""
        requests = tuple(m for m in messages if isinstance(m, Request))
        try:
            session = self.session
            if not batch and requests and requests[0].method == INITIALIZE:
                self._initialize(inbound, caller, requests[0], body)
            elif len(requests) == len(messages) == 1 and requests[0].method == PING:
                self._home.gate.charge(caller, self.spec)
                self._send(encode(Response(requests[0].id, {})))
            elif session is not None and self._opened:
                self._pass_on(inbound, caller, session, messages, requests, body, batch=batch)
            elif requests:
                raise BadRequest("The session is not open. Send initialize first.")
        except Exception:
            self._refuse(public(Failure(), inbound), inbound, (r.id for r in requests))

    def _initialize(self, inbound: IInbound, caller: Caller, request: Request, body: bytes) -> None:
        if self.session is not None:
            raise BadRequest("The session is open: initialize is sent once.")
        gate = self._home.gate
        check_initialize(request)
        gate.charge(caller, self.spec)
        release = gate.enter(caller)
        try:
            session = new_session(self._home.sessions, caller, self.spec, request, kept=False)
        except BaseException:
            release()
            raise
        self.session = session
        self._inbound.notes["session"] = inbound.notes["session"] = session.label
        session.in_use += 1
        session.on_end.append(self._session_ended)
        work = self._begin(inbound, (request,))
        work.opening = True
        post = self._post(work.errand, caller, body, (request,), (), release, batch=False)
        self._speaker().initialize(post, session)

    def _pass_on(
        self,
        inbound: IInbound,
        caller: Caller,
        session: Session,
        messages: tuple[Message, ...],
        requests: tuple[Request, ...],
        body: bytes,
        *,
        batch: bool,
    ) -> None:
        gate = self._home.gate
        others = tuple(m for m in messages if not isinstance(m, Request))
        inbound.notes["session"] = session.label
        # Each element costs: a batch is no way around the limits (protocol.md 6.20).
        if requests:
            gate.charge(caller, self.spec, count=len(messages))
        elif not gate.hears(caller, count=len(messages)):
            return
        self._home.sessions.touch(session)
        release = gate.enter(caller, count=len(requests))
        if requests:
            work = self._begin(inbound, requests)
            post = self._post(work.errand, caller, body, requests, others, release, batch=batch)
            try:
                self._speaker().call(post, session)
            except BaseException:
                self._works.pop(work, None)
                raise
            if self._stream.paused:
                work.errand.pause()
        else:
            errand = self._errand(inbound, lambda data: None, lambda errand: None)
            post = self._post(errand, caller, body, (), others, release, batch=batch)
            self._speaker().tell(post, session)
        if self._listening is None and not self.over:
            told = (m.method for m in others if isinstance(m, Notification))
            if requests or INITIALIZED in told:
                self._listen(session)

    def _refuse(self, error: GateError, inbound: IInbound, ids: Iterable[int | str]) -> None:
        for request_id in ids:
            self._send(encode(error_response(request_id, error, inbound.request_id)))

    # --- Errands --------------------------------------------------------------------------------

    def _speaker(self) -> Speaker:
        return self._home.speaker(self.spec)

    def _begin(self, inbound: IInbound, requests: tuple[Request, ...]) -> Work:
        errand = self._errand(
            inbound, lambda data: self._told(work, data), lambda _: self._ended(work)
        )
        work = Work(errand, dict.fromkeys(request.id for request in requests))
        self._works[work] = None
        return work

    def _errand(
        self, inbound: IInbound, told: Callable[[bytes], None], ended: Callable[[Errand], None]
    ) -> Errand:
        return Errand(inbound.head, inbound.peer, inbound.request_id, told=told, ended=ended)

    def _post(
        self,
        errand: Errand,
        caller: Caller,
        body: bytes,
        requests: tuple[Request, ...],
        others: tuple[Notification | Response | ErrorResponse, ...],
        release: Callable[[], None],
        *,
        batch: bool,
    ) -> Post:
        return Post(
            inbound=errand,
            caller=caller,
            spec=self.spec,
            body=body,
            requests=requests,
            others=others,
            batch=batch,
            accepts=(True, True),
            release=release,
        )

    def _told_only(self, message: Notification) -> Post:
        errand = self._errand(self._inbound, lambda data: None, lambda errand: None)
        return self._post(
            errand, self.caller, encode(message), (), (message,), lambda: None, batch=False
        )

    def _listen(self, session: Session) -> None:
        """Have what the server says unasked come here too."""
        head = self._inbound.head
        errand = Errand(
            RequestHead(
                method="GET",
                path=head.path,
                query=None,
                version=head.version,
                # Nothing is resumed here.
                fields=Fields(line for line in head.fields if line[0] != b"last-event-id"),
            ),
            self._inbound.peer,
            self._inbound.request_id,
            told=self._said,
            ended=lambda _: None,
        )
        self._listening = errand
        try:
            self._speaker().listen(errand, self.caller, self.spec, session, lambda: None)
        except Exception:
            error = public(Failure(), self._inbound)
            log.debug("A session hears nothing unasked: {why}", why=error.detail)

    # --- What the server says -------------------------------------------------------------------

    def _said(self, data: bytes) -> None:
        errand = self._listening
        if errand is not None and errand.status == 200:
            # A refusal only tells that there is nothing to hear.
            self._send(data, droppable=True)

    def _told(self, work: Work, data: bytes) -> None:
        if self.over:
            return
        if len(work.waiting) == 1 and work.errand.status == 200 and b'"method"' not in data:
            # Neither a request nor a notification: no need to read it.
            self._answered(work, next(iter(work.waiting)), data)
            return
        found = decode_server_line(data)
        if found is None:
            # Beyond the bounds of what is looked into, yet the answer for all we know.
            work.unread = True
            self._send(data)
            return
        for message in found.messages if isinstance(found, Batch) else (found,):
            self._tell(work, message)

    def _tell(self, work: Work, message: Message) -> None:
        if not isinstance(message, Response | ErrorResponse):
            self._send(encode(message), droppable=isinstance(message, Notification))
            return
        request_id = message.id
        if request_id is None and len(work.waiting) == 1:
            request_id = next(iter(work.waiting))
        if request_id is not None and request_id in work.waiting:
            self._answered(work, request_id, encode(with_id(message, request_id)))

    def _answered(self, work: Work, request_id: int | str, data: bytes) -> None:
        work.waiting.pop(request_id, None)
        if work.errand.notes.get("reason") == CallCancelled.reason:
            return  # MCP wants no answer to what was cancelled.
        if work.opening:
            self._open()
        self._send(data)

    def _open(self) -> None:
        session = self.session
        self._opened = session is not None and not session.ended
        if self._opened and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _ended(self, work: Work) -> None:
        self._works.pop(work, None)
        if self.over:
            return
        cancelled = work.errand.notes.get("reason") == CallCancelled.reason
        if not cancelled and (work.errand.cut or not work.unread):
            error = BadBackendAnswer("The server's answer ended before it was complete.")
            self._refuse(error, self._inbound, tuple(work.waiting))
        if self._closing and not self._works:
            self.close()

    # --- Out ------------------------------------------------------------------------------------

    def _send(self, data: bytes, *, droppable: bool = False) -> None:
        event = sse_event(data)
        if not self._queue and not self._stream.paused:
            self._stream.send(event)
        elif droppable and self._queued > QUEUE_BYTES:
            self._home.meters.events["messages_dropped"] += 1
        elif self._queued + len(event) > QUEUE_MAX_BYTES:
            self._home.meters.events["slow_reader"] += 1
            self._inbound.notes["reason"] = "slow_reader"
            self._inbound.abort()
        elif not self.over:
            self._queue.append(event)
            self._queued += len(event)

    def pause(self) -> None:
        """Have whatever feeds the stream wait: the client reads too slowly."""
        for errand in self._sources():
            errand.pause()

    def resume(self) -> None:
        """Send what had to wait, then let the sources go on."""
        while self._queue and not self._stream.paused:
            event = self._queue.popleft()
            self._queued -= len(event)
            self._stream.send(event)
        if not self._stream.paused:
            for errand in self._sources():
                errand.resume()

    def _sources(self) -> list[Errand]:
        errands = [work.errand for work in self._works]
        if self._listening is not None:
            errands.append(self._listening)
        return errands
