"""One request of the gate's own to an HTTP server, its small answer collected."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from mcpgate.errors import BackendDied, BadBackendAnswer, GateError
from mcpgate.http.fields import Fields
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IHTTPUpstream, IResponseReceiver, IUpstreamCall
from mcpgate.mcp.framing import SSEReader
from mcpgate.mcp.jsonrpc import ErrorResponse, Response, decode_server_line
from mcpgate.model import MIB

MAX_ANSWER_BYTES = 4 * MIB


def responses_in(content_type: bytes, body: bytes) -> list[Response | ErrorResponse]:
    """Read the JSON-RPC responses out of a JSON or event-stream body; noise is passed over."""
    if content_type.startswith(b"text/event-stream"):
        reader = SSEReader()
        texts = [event.data for event in reader.feed(body)]
    else:
        texts = [body]
    messages = [decode_server_line(text) for text in texts]
    return [m for m in messages if isinstance(m, Response | ErrorResponse)]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer."""

    status: int
    fields: Fields
    body: bytes

    def response_to(self, request_id: int | str) -> Response | ErrorResponse | None:
        """Give the JSON-RPC response to our request; an error without an id is taken for it."""
        for message in responses_in(self.fields.get(b"content-type") or b"", self.body):
            if message.id == request_id or isinstance(message, ErrorResponse):
                return message
        return None


@implementer(IResponseReceiver)
class _Collector:
    """Collects one answer; an event stream is over with its first response."""

    def __init__(self, result: Deferred[Fetched], early: Callable[[], None]) -> None:
        self._result: Deferred[Fetched] | None = result
        self._early = early
        self._head: ResponseHead | None = None
        self._body = bytearray()

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        self._head = head

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        self._body += data
        if len(self._body) > MAX_ANSWER_BYTES:
            self._early()
            self.response_failed(BadBackendAnswer("The server's answer is too large."), True)
            return
        assert self._head is not None
        kind = self._head.fields.get(b"content-type") or b""
        if kind.startswith(b"text/event-stream") and responses_in(kind, bytes(self._body)):
            self._finish()
            self._early()

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._finish()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        result, self._result = self._result, None
        if result is not None:
            result.errback(error)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; nothing of ours asks for it."""
        raise BackendDied("The server upgraded a connection it was not asked to.")

    def _finish(self) -> None:
        result, self._result = self._result, None
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

    Fails with a `GateError`.  Cancelling cuts the connection.
    """
    call: IUpstreamCall | None = None

    def give_up(_: object = None) -> None:
        if call is not None:
            call.abort()

    result: Deferred[Fetched] = Deferred(give_up)
    receiver = _Collector(result, give_up)
    call = upstream.send(
        method,
        target,
        fields,
        body,
        receiver,
        pool=pool,
        length=len(body),
        timeout_s=timeout_s,
        stream=False,
    )
    return result
