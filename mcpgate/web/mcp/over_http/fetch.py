"""One request of the gate's own to an HTTP server, its small answer collected."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendTimeout, BadBackendAnswer, GateError
from mcpgate.http.fields import Fields
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IHTTPUpstream, IResponseReceiver, IUpstreamCall
from mcpgate.mcp.framing import SSEReader
from mcpgate.mcp.jsonrpc import Batch, ErrorResponse, Message, Response, decode_server_line
from mcpgate.model import KIB, MIB

MAX_ANSWER_BYTES = 4 * MIB
# Pictures come in one event.
MAX_EVENT_BYTES = 16 * MIB


_LOST = (b"session", b"not initialized", b"initialize first")

EVENT_STREAM = b"text/event-stream"
JSON_TYPE = b"application/json"


def media_type(fields: Fields) -> bytes:
    """Give the media type, lower-case and without parameters; empty when there is none."""
    return (fields.get(b"content-type") or b"").partition(b";")[0].strip().lower()


def messages_in(data: bytes) -> list[Message]:
    """Read the messages of one JSON text or event; noise is passed over."""
    found = decode_server_line(data)
    if found is None:
        return []
    return list(found.messages) if isinstance(found, Batch) else [found]


def responses_in(kind: bytes, body: bytes) -> list[Response | ErrorResponse]:
    """Read the JSON-RPC responses out of a JSON or event-stream body."""
    texts = [body]
    if kind == EVENT_STREAM:
        texts = [event.data for event in SSEReader(MAX_EVENT_BYTES).feed(body)]
    found = [message for text in texts for message in messages_in(text)]
    return [message for message in found if isinstance(message, Response | ErrorResponse)]


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


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer."""

    status: int
    fields: Fields
    body: bytes

    def response_to(self, request_id: int | str) -> Response | ErrorResponse | None:
        """Give the JSON-RPC response to our request; an error without an id is taken for it."""
        for message in responses_in(media_type(self.fields), self.body):
            if message.id == request_id or isinstance(message, ErrorResponse):
                return message
        return None


@implementer(IResponseReceiver)
class _Collector:
    """Collects one answer; an event stream has told everything with its first response."""

    def __init__(self) -> None:
        self.call: IUpstreamCall | None = None
        self.result: Deferred[Fetched] | None = None
        self._head: ResponseHead | None = None
        self._reader: SSEReader | None = None
        self._body = bytearray()

    def give_up(self, _: object) -> None:
        """Cut the connection: the answer is wanted no more."""
        self.result = None
        if self.call is not None:
            self.call.abort()

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        self._head = head
        if media_type(head.fields) == EVENT_STREAM:
            self._reader = SSEReader(MAX_ANSWER_BYTES)

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        if self.result is None:
            return  # What follows the response of an event stream.
        self._body += data
        try:
            events = self._reader.feed(data) if self._reader is not None else []
            if len(self._body) > MAX_ANSWER_BYTES:
                raise BadBackendAnswer("The server's answer is too large.")
        except GateError as error:
            result = self.result
            self.give_up(None)
            result.errback(error)
            return
        for event in events:
            if responses_in(JSON_TYPE, event.data):
                # The server ends the stream by itself, and the connection is kept.
                self._finish()
                return

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._finish()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        result, self.result = self.result, None
        if result is not None:
            result.errback(error)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; nothing of ours asks for it."""
        raise BadBackendAnswer("The server upgraded a connection it was not asked to.")

    def _finish(self) -> None:
        result, self.result = self.result, None
        if result is not None:
            assert self._head is not None
            result.callback(Fetched(self._head.status, self._head.fields, bytes(self._body)))


def fetch(
    upstream: IHTTPUpstream,
    method: str,
    target: bytes,
    fields: list[tuple[bytes, bytes]],
    body: bytes,
    *,
    pool: Hashable,
    timeout_s: float,
) -> Deferred[Fetched]:
    """
    Send one small request and collect the answer (4 MiB at most).

    Fails with a `GateError`.  Cancelling cuts the connection; a server that says something every
    now and then, but no answer, has to be cut so (`too_late`).

    :param timeout_s: of silence.
    """
    collector = _Collector()
    result = collector.result = Deferred(collector.give_up)
    try:
        collector.call = upstream.send(
            method,
            target,
            fields,
            body,
            collector,
            pool=pool,
            length=len(body),
            timeout_s=timeout_s,
            stream=False,
        )
    except GateError as error:
        return fail(error)
    return result


def too_late(outcome: object, timeout_s: float) -> NoReturn:
    """Fail as a server does that was waited for long enough; for `Deferred.addTimeout`."""
    if isinstance(outcome, Failure):
        outcome.trap(CancelledError)
    raise BackendTimeout
