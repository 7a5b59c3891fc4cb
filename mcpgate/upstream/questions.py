"""
What an HTTP server is asked to see whether it answers, so that nothing else comes of it.

A server of the modern era has ``server/discover``.  One of the legacy era is not sent ``ping``: in
a client's session that would keep the session alive, and a session of the gate's own would have to
be made for it; some servers make one of every request without a session id, and never let go of
it.  So it is asked ``OPTIONS``, under an id that is nobody's: whatever it says of that will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from zope.interface import implementer

from mcpgate.errors import BackendTimeout, BadBackendAnswer, GateError
from mcpgate.http.forwarding import FieldLines, impersonal_fields
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IResponseReceiver, IUpstreamCall
from mcpgate.mcp.headers import routing_fields
from mcpgate.mcp.jsonrpc import Request, encode
from mcpgate.mcp.methods import DISCOVER
from mcpgate.mcp.modern import MODERN, Context
from mcpgate.model import KIB, ServerSpec, Transport

NAME: Final = "mcpgate-health"
POOL: Final = "health"
"""Of connections: no caller's."""

_ASKER: Final = Context(version=MODERN, capabilities={}, client={"name": "mcpgate", "version": "1"})
_MOST_BYTES: Final = 64 * KIB


def discover(identity: int | str = NAME) -> Request:
    """Make the question for servers of the modern era."""
    return Request(identity, DISCOVER, {"_meta": _ASKER.meta()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request that has no effect."""

    method: str
    target: bytes
    fields: FieldLines
    body: bytes | None = None


def question(spec: ServerSpec, target: bytes, *, modern: bool) -> Question:
    """
    Make the question for a server.

    It goes without any caller's key; a server that wants one says so, which is an answer.

    :param target: of its endpoint.
    :param modern: it is known to speak the modern era.
    """
    fields = [(b"user-agent", NAME.encode("ascii")), *impersonal_fields(spec)]
    speaks_mcp = spec.transport is not Transport.REST
    if modern and speaks_mcp:
        request = discover()
        fields += [
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
            *routing_fields(request, MODERN),
        ]
        return Question(method="POST", target=target, fields=fields, body=encode(request))
    fields.append((b"accept", b"application/json"))
    if spec.ready_path:
        return Question(method="GET", target=spec.ready_path.encode("ascii"), fields=fields)
    if speaks_mcp:
        fields.append((b"mcp-session-id", NAME.encode("ascii")))
    return Question(method="OPTIONS", target=target, fields=fields)


@implementer(IResponseReceiver)
class Unread:
    """
    Lets the answer go by: that it comes is enough.

    :param ended: called when it was complete.
    :param heard: called when the server closed the connection instead: what hangs closes nothing.
    :ivar call: the request; set before anything can come.
    """

    def __init__(self, ended: Callable[[], None], heard: Callable[[], None]) -> None:
        self.call: IUpstreamCall | None = None
        self._ended = ended
        self._heard = heard
        self._count = 0

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`; a stream may never end."""
        kind = head.fields.get(b"content-type") or b""
        if kind[:17].lower() == b"text/event-stream":
            self._abort()

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        self._count += len(data)
        if self._count > _MOST_BYTES:
            self._abort()

    def response_end(self, trailers: FieldLines) -> None:
        """See `IResponseReceiver.response_end`."""
        self._ended()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`; silence shows by itself."""
        if sent and not isinstance(error, BackendTimeout):
            self._heard()

    def response_upgraded(self, head: ResponseHead, transport: object) -> NoReturn:
        """See `IResponseReceiver.response_upgraded`; nobody asked for it."""
        raise BadBackendAnswer

    def _abort(self) -> None:
        if self.call is not None:
            self.call.abort()
