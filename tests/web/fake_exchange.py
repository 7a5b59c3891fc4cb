"""One request as a server gets it that a test plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendDied, GateError
from mcpgate.http.fields import Fields
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IResponseReceiver, IUpstreamCall


@implementer(IUpstreamCall)
class Sent:
    """A request as the server got it, and the way to answer it."""

    def __init__(
        self,
        method: str,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        clock: Clock,
    ) -> None:
        self.method = method
        self._clock = clock
        self.fields = dict(fields)
        self.raw = body
        self.receiver: Any = receiver
        self.aborted = False
        self.paused = False
        self.over = False
        self.sent = True
        verifyObject(IUpstreamCall, self)

    @property
    def message(self) -> Any:
        """The body, parsed."""
        return json.loads(self.raw or b"null")

    @property
    def session(self) -> bytes | None:
        """The session id it carries."""
        return self.fields.get(b"mcp-session-id")

    def write(self, data: bytes) -> None:
        """See `IUpstreamCall.write`."""
        raise AssertionError("not used")

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IUpstreamCall.end`."""
        raise AssertionError("not used")

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IUpstreamCall.register_flow`."""
        raise AssertionError("not used")

    def pause(self) -> None:
        """See `IUpstreamCall.pause`."""
        self.paused = True

    def resume(self) -> None:
        """See `IUpstreamCall.resume`."""
        self.paused = False

    def abort(self) -> None:
        """See `IUpstreamCall.abort`."""
        self.aborted = True

    # --- Answers

    def head(
        self,
        status: int = 200,
        kind: bytes = b"text/event-stream",
        *,
        length: int | None = None,
        session: bytes = b"",
    ) -> None:
        """Begin the answer."""
        lines = [(b"content-type", kind)] if kind else []
        if session:
            lines.append((b"mcp-session-id", session))
        self.receiver.response_head(
            ResponseHead(
                status=status,
                reason=b"",
                version=(1, 1),
                fields=Fields(lines),
                content_length=length,
            )
        )

    def data(self, data: bytes) -> None:
        """Send a piece of the body, unless the other side cut the connection."""
        if not self.aborted:
            self.receiver.response_data(data)

    def event(self, message: dict[str, Any] | None, *, id: str = "") -> None:
        """Send an event."""
        head = f"id: {id}\r\n" if id else ""
        text = json.dumps(message) if message is not None else ""
        self.data(f"{head}data: {text}\r\n\r\n".encode())

    def done(self) -> None:
        """End the answer."""
        self.over = True
        if not self.aborted:
            self.receiver.response_end([])
            self._pass_a_moment()

    def fail(self, error: GateError | None = None, *, sent: bool = True) -> None:
        """Break the connection."""
        self.over = True
        self.sent = sent
        if not self.aborted:
            self.receiver.response_failed(error or BackendDied(), sent)
            self._pass_a_moment()

    def _pass_a_moment(self) -> None:
        """Let it be noticed whether the server is dead or only its connection."""
        self._clock.advance(0.4)

    def json(self, message: object, status: int = 200, *, session: bytes = b"") -> None:
        """Answer with JSON."""
        body = json.dumps(message).encode()
        self.head(status, b"application/json; charset=utf-8", length=len(body), session=session)
        self.data(body)
        self.done()

    def result(self, **result: object) -> None:
        """Answer the request with a result, as JSON."""
        self.json({"jsonrpc": "2.0", "id": self.message["id"], "result": result})

    def empty(self, status: int = 202) -> None:
        """Answer without a body."""
        self.head(status, b"", length=0)
        self.done()
