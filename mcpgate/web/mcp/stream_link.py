"""The event stream a session's GET opens, fed by the gate, and what waits for the next one."""

from __future__ import annotations

from typing import Final

from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import Message, encode
from mcpgate.model import KIB
from mcpgate.web.mcp.event_log import EventLog
from mcpgate.web.mcp.standing import StandingStream

# A server may speak right after the handshake, before the client has opened its stream.
BACKLOG_MESSAGES: Final = 32
BACKLOG_BYTES: Final = 32 * KIB


class StreamLink:
    """
    The stream of a session's GET.

    :ivar stream: the client's newest; None while it has none.
    :ivar log: keeps what is said, for a client that lost its connection; None: nothing does.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "log", "stream")

    def __init__(self) -> None:
        self.stream: StandingStream | None = None
        self.log: EventLog | None = None
        # Few and short-lived; an empty list takes a tenth of an empty deque, in every session.
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0

    def say(self, message: Message) -> None:
        """Say something on the stream; kept for a while when no client listens."""
        data = encode(message)
        event = sse_event(data) if self.log is None else self.log.standing.framed(data)
        if not self._backlog and self.stream is not None and self.stream.send(event):
            return
        self._backlog.append(event)
        self._backlog_bytes += len(event)
        while len(self._backlog) > BACKLOG_MESSAGES or self._backlog_bytes > BACKLOG_BYTES:
            self._backlog_bytes -= len(self._backlog.pop(0))

    def opened(self, stream: StandingStream, last_event_id: str = "") -> None:
        """Take the stream of a GET; an older one is ended, and what it lost said again."""
        if self.stream is not None:
            self.stream.close()
        self.stream = stream
        after = self.log.standing_after(last_event_id) if self.log is not None else None
        if self.log is not None and after is not None:
            standing = self.log.standing
            for event in standing.missed(after, standing.last + 1 - len(self._backlog)):
                stream.send(event)
        self.flush()

    def flush(self) -> None:
        """Send what had to wait."""
        while self._backlog and self.stream is not None and self.stream.send(self._backlog[0]):
            self._backlog_bytes -= len(self._backlog.pop(0))

    def close_stream(self) -> None:
        """End the stream politely; the client may open another."""
        if self.stream is not None:
            self.stream.close()
        if self.log is not None:
            self.log.detach()
