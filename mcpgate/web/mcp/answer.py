"""
The answer to one POST of an MCP client: JSON while that is enough, an event stream when not.

A plain JSON answer lets Python clients keep their connection, so the choice is put off until
something has to be streamed, or until the client might think nobody is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from zope.interface import implementer

from mcpgate.errors import CallCancelled, GateError
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Response, encode, error_response
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.event_stream import KEEPALIVE
from mcpgate.web.refusal import JSON, NO_STORE, refusal_fields, refuse_message

if TYPE_CHECKING:
    from mcpgate.web.mcp.event_log import EventLog, LoggedStream

STREAM_FIELDS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Answer:
    """
    Collects what answers one POST and writes it in the form the client can take.

    While nothing is said for ``keepalive_s`` a client that takes event streams gets a comment.
    Once the client has gone every method does nothing.

    :param ids: of the requests in the POST; the answer is complete when each was answered.
    :param batch: the client sent an array: a JSON answer is an array too.
    :param fields: extra response fields (``Mcp-Session-Id``).
    :param log: gives the events ids and keeps them: a client whose connection is lost may come
        back for the rest, and until then the answer goes on without it.
    :param primed: such a stream begins with an event without data.
    """

    __slots__ = (
        "_batch",
        "_deadline",
        "_fields",
        "_inbound",
        "_json_ok",
        "_keepalive_s",
        "_log",
        "_logged",
        "_over",
        "_primed",
        "_raw",
        "_responses",
        "_retry_after",
        "_stream_ok",
        "_waiting",
        "_wheel",
    )

    def __init__(
        self,
        inbound: IInbound,
        *,
        wheel: DeadlineWheel,
        keepalive_s: float,
        accepts: tuple[bool, bool],
        ids: Iterable[int | str],
        batch: bool = False,
        fields: list[tuple[bytes, bytes]] | None = None,
        log: EventLog | None = None,
        primed: bool = False,
    ) -> None:
        self._log = log
        self._primed = primed
        self._logged: LoggedStream | None = None
        self._inbound = inbound
        self._wheel = wheel
        self._keepalive_s = keepalive_s
        self._json_ok, self._stream_ok = accepts
        self._waiting = list(ids)
        self._batch = batch
        self._fields = fields or []
        self._retry_after: list[tuple[bytes, bytes]] = []
        self._responses: list[Response | ErrorResponse] = []
        self._deadline: Deadline | None = None
        self._raw = False
        self._over = False
        self._rearm()
        inbound.on_gone(self._gone)

    @property
    def over(self) -> bool:
        """Tell whether nothing more can be said."""
        return self._over

    @property
    def waiting(self) -> tuple[int | str, ...]:
        """The ids that were not answered yet."""
        return tuple(self._waiting)

    # --- Messages -------------------------------------------------------------------------------

    def stream(self, message: Message) -> bool:
        """Pass on what is not the answer itself; False for a client that can not be told."""
        if self._over or not self._stream_ok:
            return False
        self.open_stream()
        self.events(self._event(encode(message)))
        return True

    def complete(self, response: Response | ErrorResponse, error: GateError | None = None) -> None:
        """Add one response; with the last one the answer is written and ended."""
        if self._over or response.id not in self._waiting:
            return
        self._waiting.remove(response.id)
        if self._inbound.started:
            self._write(self._event(encode(response)))
            self._rearm()
            if not self._waiting:
                self.end()
            return
        self._responses.append(response)
        if error is not None:
            self._retry_after = [
                field for field in refusal_fields(error) if field not in (JSON, NO_STORE)
            ]
        if self._waiting:
            return
        bodies = [encode(message) for message in self._responses]
        self._whole(b"[" + b",".join(bodies) + b"]" if self._batch else bodies[0], bodies)

    def fail(self, error: GateError, message_id: int | str) -> None:
        """Complete one request with a refusal of the gate."""
        if self._over or message_id not in self._waiting:
            return
        self._inbound.notes["reason"] = error.reason
        if isinstance(error, CallCancelled) and self._inbound.started:
            # MCP wants no answer to what was cancelled: the stream just ends.
            self.answered(message_id)
            if not self._waiting:
                self.end()
            return
        self.complete(error_response(message_id, error, self._inbound.request_id), error)

    def fail_rest(self, error: GateError) -> None:
        """Complete every request that is not answered with a refusal of the gate, and end."""
        if self._raw:
            # Inside a JSON body: only a cut tells that it is not whole.
            self._inbound.notes["reason"] = error.reason
            self._inbound.abort()
            self._end()
        for message_id in self.waiting:
            self.fail(error, message_id)
        self.end()

    def refuse(self, error: GateError, message_id: int | str) -> None:
        """Refuse ``initialize``: there is no session, so the HTTP status tells the failure too."""
        self._fields = []
        if self._over:
            return
        if self._inbound.started or not self._json_ok:
            self.fail(error, message_id)
        else:
            refuse_message(self._inbound, error, message_id, live=False)
            self._end()

    def add_fields(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Add response fields; too late where the answer has begun."""
        self._fields = [*self._fields, *fields]

    def without_fields(self) -> None:
        """Leave the extra response fields out: what they announce did not come to be."""
        self._fields = []

    # --- What a server wrote, as it wrote it ------------------------------------------------------

    def open_stream(self) -> None:
        """Answer with an event stream from here on."""
        if self._over or self._inbound.started:
            return
        self._inbound.start(200, STREAM_FIELDS + self._retry_after + self._fields, None)
        if self._log is not None:
            self._logged = self._log.begin(self._inbound)
            if self._primed:
                self._write(self._logged.primed())
        for response in self._responses:
            self._write(self._event(encode(response)))
        self._responses.clear()

    def events(self, data: bytes) -> None:
        """Pass on whole events."""
        if not self._over:
            self.open_stream()
            self._write(data)
            self._rearm()

    def answered(self, message_id: int | str) -> None:
        """Note that what was passed on as events holds the answer to a request."""
        if message_id in self._waiting:
            self._waiting.remove(message_id)

    def whole(self, body: bytes, status: int = 200) -> None:
        """Answer every request with this JSON."""
        if not self._over:
            self._whole(body, [body], status)

    def begin_body(self, length: int) -> bool:
        """Begin to stream a JSON answer; False where it has to be `whole`."""
        if self._over:
            return True  # Nobody listens: it need not be held either.
        if self._inbound.started or not self._json_ok:
            return False
        self._raw = True
        self._disarm()
        self._inbound.start(200, [JSON, NO_STORE, *self._fields], length)
        return True

    def body(self, data: bytes) -> None:
        """Pass on a piece of the JSON answer."""
        self._inbound.write(data)

    def end(self) -> None:
        """End what was streamed."""
        if not self._over:
            self.open_stream()
            self._finish()
            self._end()

    # --- Ends -----------------------------------------------------------------------------------

    def _whole(self, body: bytes, events: list[bytes], status: int = 200) -> None:
        if self._json_ok and not self._inbound.started:
            fields = [JSON, NO_STORE, *self._retry_after, *self._fields]
            self._inbound.respond(status, fields, body)
        else:
            self._responses.clear()
            self.open_stream()
            for event in events:
                self._write(self._event(event))
            self._finish()
        self._end()

    def _event(self, data: bytes) -> bytes:
        return sse_event(data) if self._logged is None else self._logged.framed(data)

    def _write(self, data: bytes) -> None:
        if self._logged is None:
            self._inbound.write(data)
        else:
            self._logged.write(data)

    def _finish(self) -> None:
        if self._logged is None:
            self._inbound.finish()
        else:
            self._logged.finish()

    def _gone(self) -> None:
        # A client that has an id of an event may come back for the rest (R38).
        if self._logged is None:
            self._end()

    def _rearm(self) -> None:
        self._disarm()
        self._deadline = self._wheel.arm(self._keepalive_s, self._quiet)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _quiet(self) -> None:
        # Nothing was said for a while: open the stream so that proxies and clients see life.
        self._deadline = None
        if self._inbound.finished and self._logged is None:
            self._end()
        elif self._stream_ok:
            self.events(KEEPALIVE)

    def _end(self) -> None:
        self._over = True
        self._disarm()


@implementer(IMessageSink)
class CallSink:
    """
    One request's share of an `Answer`.

    :param ended: called with the response, or with the error, when this request is over;
        answers True when it takes care of a new try.
    :param otherwise: gets what can not be said within the answer.
    :ivar delivered: something was said already.
    """

    __slots__ = ("_answer", "_ended", "_message_id", "_otherwise", "delivered")

    def __init__(
        self,
        answer: Answer,
        message_id: int | str,
        ended: Callable[[Message | GateError], bool],
        otherwise: Callable[[Message], None],
    ) -> None:
        self._answer = answer
        self._message_id = message_id
        self._ended = ended
        self._otherwise = otherwise
        self.delivered = False

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self.delivered = True
        if not self._answer.stream(message):
            self._otherwise(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert isinstance(response, Response | ErrorResponse)
        self._ended(response)
        self._answer.complete(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        if not self._ended(error):
            self._answer.fail(error, self._message_id)
