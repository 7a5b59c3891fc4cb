"""A client's request that stays in memory: the same rules as a real one, every answer kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.mcp.framing import SSEReader

Lines = list[tuple[bytes, bytes]]


@implementer(IInbound)
class FakeInbound:
    """
    See `IInbound`.

    :ivar status: of the answer; 0 while there is none.
    :ivar fields: of the answer, by lower-case name.
    :ivar body: what was written so far.
    :ivar aborted: the answer was cut off.
    """

    def __init__(
        self,
        method: str = "POST",
        path: bytes = b"/notes/mcp",
        *,
        body: bytes = b"",
        fields: Lines | None = None,
        query: bytes | None = None,
    ) -> None:
        self.head = RequestHead(
            method=method,
            path=path,
            query=query,
            version=(1, 1),
            fields=Fields(fields or []),
            content_length=len(body) or None,
        )
        self.peer = Peer("192.0.2.7", secure=True, port=50000)
        self.request_id = "req-1"
        self.started = self.finished = self.aborted = False
        self.notes: dict[str, object] = {}
        self.extra_fields: Lines = []
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self._sent = body
        self._left: int | None = None
        self._went = False
        self._gone: list[Callable[[], None]] = []
        self._flow: tuple[Callable[[], None], Callable[[], None]] | None = None
        verifyObject(IInbound, self)

    # --- What the gate does -----------------------------------------------------------------------

    def read_body(self, limit: int, done: Callable[[bytes], None]) -> None:
        """See `IInbound.read_body`."""
        if not self.finished:
            assert len(self._sent) <= limit
            done(self._sent)

    def stream_body(
        self, data: Callable[[bytes], None], ended: Callable[[Lines], None], limit: int
    ) -> None:
        """See `IInbound.stream_body`."""
        raise AssertionError("not used")

    def pause_body(self) -> None:
        """See `IInbound.pause_body`."""

    def resume_body(self) -> None:
        """See `IInbound.resume_body`."""

    def respond(self, status: int, fields: Lines, body: bytes) -> None:
        """See `IInbound.respond`."""
        if self.finished:
            return
        self.start(status, fields, None)
        self.write(body)
        self.finish()

    def start(self, status: int, fields: Lines, length: int | None) -> None:
        """See `IInbound.start`."""
        if self.finished:
            return
        assert not self.started, "answered twice"
        self.started = True
        self.status = status
        self._left = length
        for name, value in fields:
            assert name == name.lower()
            assert name not in self.fields, f"{name!r} twice"
            self.fields[name] = value

    def write(self, data: bytes) -> None:
        """See `IInbound.write`."""
        if self.finished:
            return
        assert self.started, "not started"
        self.body += data
        if self._left is not None:
            self._left -= len(data)
            assert self._left >= 0

    def finish(self, trailers: Lines | None = None) -> None:
        """See `IInbound.finish`."""
        if self.finished:
            return
        assert self.started, "not started"
        assert not self._left
        self.finished = True
        self._gone.clear()
        self._flow = None

    def abort(self) -> None:
        """See `IInbound.abort`."""
        if not self.finished:
            self.aborted = True
            self.go()

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IInbound.register_flow`."""
        if not self.finished:
            self._flow = (pause, resume)

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `IInbound.on_gone`."""
        if self._went:
            callback()
        elif not self.finished:
            self._gone.append(callback)

    def take_over(self, status: int, fields: Lines, protocol: IProtocol) -> None:
        """See `IInbound.take_over`."""
        raise AssertionError("not used")

    # --- What the client does ---------------------------------------------------------------------

    def go(self) -> None:
        """Close the connection."""
        if self.finished:
            return
        self.finished = self._went = True
        self._flow = None
        callbacks, self._gone = self._gone, []
        for callback in callbacks:
            callback()

    def read_slowly(self) -> None:
        """Stop reading for a while."""
        if self._flow is not None:
            self._flow[0]()

    def catch_up(self) -> None:
        """Read on."""
        if self._flow is not None:
            self._flow[1]()

    # --- What the client sees ---------------------------------------------------------------------

    @property
    def is_stream(self) -> bool:
        """Tell whether the answer is an event stream."""
        return self.fields.get(b"content-type") == b"text/event-stream"

    @property
    def json(self) -> Any:
        """The body, parsed."""
        assert self.fields.get(b"content-type") == b"application/json", self.fields
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of the events so far, parsed; but for those without any (priming)."""
        assert self.is_stream, (self.status, self.fields, self.body)
        return [json.loads(e.data) for e in SSEReader().feed(self.body) if e.data]

    @property
    def told(self) -> Any:
        """The last thing said, in whatever form."""
        return self.events[-1] if self.is_stream else self.json
