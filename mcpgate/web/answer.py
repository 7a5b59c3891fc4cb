"""
The answer to one POST of an MCP client: JSON while that is enough, an event stream when not.

A plain JSON answer lets Python clients keep their connection, so the choice is put off until
something has to be streamed, or until the client might think nobody is there.
"""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from mcpgate.errors import CallCancelled, GateError
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Response, encode, error_response
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.event_stream import KEEPALIVE
from mcpgate.web.refusal import JSON, NO_STORE, refusal_fields

STREAM_FIELDS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Answer:
    """
    Collects what answers one POST and writes it in the form the client can take.

    :param expected: how many responses complete it: 1, or the number of requests in a batch.
    :param batch: the client sent an array: a JSON answer is an array too.
    :param fields: extra response fields (``Mcp-Session-Id``).
    :param completed: called once when the answer is complete or the client has gone.
    """

    __slots__ = (
        "_batch",
        "_completed",
        "_deadline",
        "_expected",
        "_fields",
        "_inbound",
        "_json_ok",
        "_keepalive_s",
        "_responses",
        "_stream_ok",
        "_wheel",
    )

    def __init__(
        self,
        inbound: IInbound,
        *,
        wheel: DeadlineWheel,
        keepalive_s: float,
        accepts: tuple[bool, bool],
        completed: Callable[[], None],
        expected: int = 1,
        batch: bool = False,
        fields: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self._inbound = inbound
        self._wheel = wheel
        self._keepalive_s = keepalive_s
        self._json_ok, self._stream_ok = accepts
        self._completed: Callable[[], None] | None = completed
        self._expected = expected
        self._batch = batch
        self._fields = fields or []
        self._responses: list[Response | ErrorResponse] = []
        self._deadline: Deadline | None = None
        inbound.on_gone(self._over)
        self._rearm()

    @property
    def over(self) -> bool:
        """Tell whether nothing more can be said."""
        return self._completed is None

    def add_field(self, name: bytes, value: bytes) -> None:
        """Add a response field; only while the head is not written."""
        self._fields.append((name, value))

    def stream(self, message: Message) -> None:
        """Pass on what is not the answer itself; dropped for a client that takes only JSON."""
        if self._completed is None or not self._stream_ok:
            return
        self._open_stream()
        self._inbound.write(sse_event(encode(message)))
        self._rearm()

    def complete(self, response: Response | ErrorResponse, error: GateError | None = None) -> None:
        """Add one response; with the last one the answer is written and ended."""
        if self._completed is None:
            return
        self._expected -= 1
        if self._inbound.started:
            self._inbound.write(sse_event(encode(response)))
            if self._expected <= 0:
                self._inbound.finish()
                self._over()
            return
        self._responses.append(response)
        if self._expected > 0:
            return
        bodies = [encode(message) for message in self._responses]
        if self._json_ok:
            fields = refusal_fields(error) if error is not None else [JSON, NO_STORE]
            body = b"[" + b",".join(bodies) + b"]" if self._batch else bodies[0]
            self._inbound.respond(200, fields + self._fields, body)
        else:
            self._inbound.start(200, STREAM_FIELDS + self._fields, None)
            for body in bodies:
                self._inbound.write(sse_event(body))
            self._inbound.finish()
        self._over()

    def fail(self, error: GateError, message_id: int | str | None) -> None:
        """Complete one request with a refusal of the gate."""
        self._inbound.notes["reason"] = error.reason
        if isinstance(error, CallCancelled) and self._inbound.started and self._expected <= 1:
            self._inbound.finish()
            self._over()
            return
        self.complete(error_response(message_id, error, self._inbound.request_id), error)

    def _open_stream(self) -> None:
        if self._inbound.started:
            return
        self._inbound.start(200, STREAM_FIELDS + self._fields, None)
        for response in self._responses:
            self._inbound.write(sse_event(encode(response)))
        self._responses.clear()

    def _rearm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._wheel.arm(self._keepalive_s, self._quiet)

    def _quiet(self) -> None:
        # Nothing was said for a while: open the stream so that proxies and clients see life.
        self._deadline = None
        if self._completed is None or not self._stream_ok:
            return
        self._open_stream()
        self._inbound.write(KEEPALIVE)
        self._rearm()

    def _over(self) -> None:
        completed, self._completed = self._completed, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if completed is not None:
            completed()


@implementer(IMessageSink)
class CallSink:
    """
    One request's share of an `Answer`.

    :param ended: called once, with the error or None, when this request is answered.
    """

    __slots__ = ("_answer", "_ended", "_message_id", "delivered")

    def __init__(
        self,
        answer: Answer,
        message_id: int | str,
        ended: Callable[[GateError | None], bool],
    ) -> None:
        self._answer = answer
        self._message_id = message_id
        self._ended = ended
        self.delivered = False

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self.delivered = True
        self._answer.stream(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        self._ended(None)
        assert isinstance(response, Response | ErrorResponse)
        self._answer.complete(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`; ``ended`` answers True when it takes care of a new try."""
        if not self._ended(error):
            self._answer.fail(error, self._message_id)
