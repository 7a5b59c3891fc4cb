"""What a session of an HTTP server keeps while the gate runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import Message, encode

if TYPE_CHECKING:
    from mcpgate.web.mcp.over_http.call import HTTPCall
    from mcpgate.web.mcp.over_http.listen import HTTPListen

UNSAID = 8


class HTTPLink:
    """
    The session's calls, its stream, and its binding to a session of the server.

    :param depart: called once when the session ends: tells the server.
    :ivar ids: JSON-RPC ids in work: a second one in work gets an id of the gate's towards the
        server, since servers key their streams by id.
    :ivar connecting: those waiting for the handshake that is under way.
    :ivar shakes: counts handshakes, to tell what the server said of an older one.
    :ivar greeting: the server's newest InitializeResult; None when an earlier life got it.
    """

    __slots__ = (
        *("_depart", "_unsaid", "calls", "connecting", "greeting", "ids", "listen", "shakes"),
    )

    def __init__(self, depart: Callable[[], None]) -> None:
        self.ids: set[int | str] = set()
        self.calls: dict[HTTPCall, None] = {}
        self.connecting: list[Deferred[None]] | None = None
        self.listen: HTTPListen | None = None
        self.shakes = 0
        self.greeting: dict[str, object] | None = None
        # Of the gate's own, for the next stream; the same is said once.
        self._unsaid: dict[bytes, None] = {}
        self._depart = depart

    def call_of(self, request_id: object) -> HTTPCall | None:
        """Find the one call in work with the client's id; None when it can not be told."""
        found = [call for call in self.calls if call.asks(request_id)]
        return found[0] if len(found) == 1 else None

    def say(self, message: Message) -> None:
        """Say something of the gate's own on the stream; kept while there is none."""
        event = sse_event(encode(message))
        if self.listen is None or not self.listen.send(event):
            self._unsaid[event] = None
            if len(self._unsaid) > UNSAID:
                del self._unsaid[next(iter(self._unsaid))]

    def flush(self) -> None:
        """Say what had to wait."""
        unsaid, self._unsaid = self._unsaid, {}
        for event in unsaid:
            if self.listen is None or not self.listen.send(event):
                self._unsaid[event] = None

    def leave(self, _: str) -> None:
        """Close the stream and let the server know: the session is over."""
        self.close_stream()
        self._depart()

    def close_stream(self) -> None:
        """End the stream politely; the client may open another."""
        if self.listen is not None:
            self.listen.stop()
