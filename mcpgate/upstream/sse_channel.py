"""
Lines to and from a server that speaks HTTP+SSE of 2024-11-05, as over the pipes of a child.

The server's event stream is its stdout; each line towards it is a POST to the endpoint its first
event names.  When the stream ends the channel does: the server's session ended with it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    BadBackendAnswer,
    GateError,
)
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IHTTPUpstream, IResponseReceiver, IStdioChannel, IUpstreamCall
from mcpgate.mcp.framing import SSEEvent, SSEReader
from mcpgate.mcp.jsonrpc import ErrorResponse, encode
from mcpgate.model import KIB, MIB
from mcpgate.timing.wheel import Deadline, DeadlineWheel

log = Logger()

QUEUE_BYTES: Final = 1 * MIB
# Pictures come in one event.
EVENT_BYTES: Final = 16 * MIB
ENDPOINT_CHARS: Final = 4 * KIB
# What follows a notification waits this long at most until the server has taken that.
ORDER_S: Final = 5.0
# A server may say something to a message that is taken; nobody reads it.
_ANSWER_BYTES: Final = 64 * KIB

# How `mcpgate.mcp.jsonrpc.encode` begins a message without an id.
_NOTIFICATION: Final = b'{"jsonrpc":"2.0","method":'
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SSEPlace:
    """
    Where a server's event stream is.

    :ivar origin: scheme and authority, as in ``https://example.org:8443``.
    :ivar target: request target of the stream.
    """

    origin: str
    target: bytes

    def endpoint(self, data: bytes) -> bytes:
        """
        Read an ``endpoint`` event; gives the request target for messages.

        :raises BadBackendAnswer: it is no URL, or one of another origin, which must not get what
            is meant for this server.
        """
        try:
            text = data.decode("ascii").strip()
            if not text or len(text) > ENDPOINT_CHARS or not text.isprintable() or " " in text:
                raise ValueError
            found = urlsplit(urljoin(self.origin + self.target.decode("ascii"), text))
            if not self._is_ours(found.scheme, found.hostname, found.port):
                raise ValueError
        except ValueError:
            raise BadBackendAnswer(
                "The server's endpoint event names no place of its own origin."
            ) from None
        path = found.path or "/"
        return (f"{path}?{found.query}" if found.query else path).encode("ascii")

    def _is_ours(self, scheme: str, host: str | None, port: int | None) -> bool:
        ours = urlsplit(self.origin)
        default = {"http": 80, "https": 443}.get(ours.scheme)
        if scheme != ours.scheme or (port or default) != (ours.port or default):
            return False
        # A server on this machine may know itself by another of its names.
        return host == ours.hostname or {host, ours.hostname} <= _LOOPBACK


@implementer(IStdioChannel, IResponseReceiver)
class SSEChannel:
    """
    See `IStdioChannel`.

    `open` begins; what is sent before the server has named its endpoint waits.

    :param pool: of connections: this channel's own.
    :param endpoint_s: the server must have named its endpoint by then.
    :param message_s: the server must have taken a message by then.
    :param ended: called once when nothing will come any more, with why and with the lines that
        surely have not reached the server.
    """

    def __init__(
        self,
        upstream: IHTTPUpstream,
        place: SSEPlace,
        *,
        listen_fields: Fields,
        message_fields: Fields,
        pool: Hashable,
        wheel: DeadlineWheel,
        endpoint_s: float,
        message_s: float,
        ended: Callable[[GateError, list[bytes]], None],
    ) -> None:
        self._upstream = upstream
        self._place = place
        self._listen_fields = listen_fields
        self._message_fields = message_fields
        self._pool = pool
        self._wheel = wheel
        self._endpoint_s = endpoint_s
        self._message_s = message_s
        self._ended: Callable[[GateError, list[bytes]], None] | None = ended
        self._received: Callable[[bytes], None] = _ignore
        self._reader = SSEReader(EVENT_BYTES)
        self._stream: IUpstreamCall | None = None
        self._endpoint = b""
        self._deadline: Deadline | None = None
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._posts: dict[_Post, None] = {}
        # Messages that are taken, whose answers are still on their way.
        self._answers: dict[_Post, None] = {}
        # A notification that is not known to be taken yet.
        self._first: _Post | None = None

    # --- Life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """
        Ask for the event stream.

        :raises GateError: it can not be asked for.
        """
        self._deadline = self._wheel.arm(self._endpoint_s, self._no_endpoint)
        self._stream = self._upstream.send(
            "GET",
            self._place.target,
            self._listen_fields,
            None,
            self,
            pool=self._pool,
            length=0,
            timeout_s=self._endpoint_s,
            stream=True,
        )

    def end(self, error: GateError) -> None:
        """Let go of everything; ``ended`` hears why.  Idempotent."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._forget_deadline()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
        posts, answers = self._posts, self._answers
        self._posts, self._answers = {}, {}
        unsent = [post.line for post in posts if not post.sent]
        unsent += self._queue
        self._queue.clear()
        for post in (*posts, *answers):
            post.abort()
        ended(error, unsent)

    def _no_endpoint(self) -> None:
        self._deadline = None
        self.end(BackendTimeout("The server did not name its endpoint in time."))

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # --- IStdioChannel --------------------------------------------------------------------------

    def send(self, line: bytes) -> bool:
        """See `IStdioChannel.send`; False also when the channel has ended."""
        if self._ended is None or self._waiting > QUEUE_BYTES:
            return False
        self._queue.append(line)
        self._waiting += len(line)
        self._flush()
        return True

    def attach(self, received: Callable[[bytes], None]) -> None:
        """See `IStdioChannel.attach`."""
        self._received = received

    def pause(self) -> None:
        """See `IStdioChannel.pause`."""
        if self._stream is not None:
            self._stream.pause()

    def resume(self) -> None:
        """See `IStdioChannel.resume`."""
        if self._stream is not None:
            self._stream.resume()

    # --- Messages to the server -----------------------------------------------------------------

    def _flush(self) -> None:
        while self._queue and self._endpoint and self._first is None:
            line = self._queue.popleft()
            post = _Post(self, line)
            self._posts[post] = None
            if line.startswith(_NOTIFICATION):
                self._first = post
            try:
                post.call = self._upstream.send(
                    "POST",
                    self._endpoint,
                    self._message_fields,
                    line,
                    post,
                    pool=self._pool,
                    length=len(line),
                    timeout_s=ORDER_S if self._first is post else self._message_s,
                    stream=False,
                )
            except GateError as error:
                self.end(error)

    def taken(self, post: _Post) -> None:
        """Take note that a message has arrived, or never will."""
        if post in self._posts:
            del self._posts[post]
            self._waiting -= len(post.line)
            self._answers[post] = None
        if self._first is post:
            self._first = None
            self._flush()

    def over(self, post: _Post) -> None:
        """Take note that nothing more is on its way about a message."""
        self._answers.pop(post, None)

    def refused(self, post: _Post, status: int) -> None:
        """Take note that the server does not want a message."""
        if status in (404, 410):
            self.end(BackendDied("The server does not know its session any more."))
            return
        log.debug("Server refused a message: {status}", status=status)
        message = json.loads(post.line)
        if "id" in message and "method" in message:
            error = BackendUnavailable(f"The server answered HTTP {status} to the call.")
            answer = ErrorResponse(message["id"], error.code, error.detail, {"status": status})
            self._received(encode(answer))

    def failed(self, post: _Post, error: GateError) -> None:
        """Take note that a message could not be delivered, or nobody can tell."""
        if isinstance(error, BackendTimeout):
            # Some answer only when all is done; the call has a deadline of its own.
            self.taken(post)
        else:
            self.end(BackendDied("A message to the server was lost."))

    # --- What the server says -------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        kind = (head.fields.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        if head.status != 200 or kind != b"text/event-stream":
            self.end(
                BackendUnavailable(
                    f"The server answered HTTP {head.status} and no event stream.",
                    data={"status": head.status},
                )
            )

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        try:
            for event in self._reader.feed(data):
                if self._ended is None:
                    return
                self._take(event)
        except GateError as error:
            self.end(error)

    def _take(self, event: SSEEvent) -> None:
        if event.event == "message":
            self._received(event.data)
        elif event.event == "endpoint" and not self._endpoint:
            self._endpoint = self._place.endpoint(event.data)
            self._forget_deadline()
            self._flush()

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._stream = None
        self.end(BackendDied("The server ended its event stream."))

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._stream = None
        self.end(error)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; nothing asks for it."""
        raise BadBackendAnswer


@implementer(IResponseReceiver)
class _Post:
    """One message on its way."""

    __slots__ = ("_channel", "_size", "_told", "call", "line")

    def __init__(self, channel: SSEChannel, line: bytes) -> None:
        self.line = line
        self.call: IUpstreamCall | None = None
        self._channel = channel
        self._told = False
        self._size = 0

    @property
    def sent(self) -> bool:
        """Tell whether a byte of it may have reached the server."""
        return self.call is not None and self.call.sent

    def abort(self) -> None:
        """Want nothing of it any more."""
        self._told = True
        if self.call is not None:
            self.call.abort()

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        if self._told:
            return
        self._told = True
        if not 200 <= head.status < 300:
            self._channel.refused(self, head.status)
        self._channel.taken(self)

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        self._size += len(data)
        if self._size > _ANSWER_BYTES and self.call is not None:
            self.call.abort()
            self._channel.over(self)

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._channel.over(self)

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        if not self._told:
            self._told = True
            self._channel.failed(self, error)
        self._channel.over(self)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; nothing asks for it."""
        raise BadBackendAnswer


def _ignore(line: bytes) -> None:
    """Drop what comes before anybody listens."""
