"""Two readers of HTTP/1 that are not ours, and what they make of a client's bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import h11
from twisted.internet.testing import StringTransport
from twisted.web import http
from typing_extensions import override

Lines = list[tuple[bytes, bytes]]


@dataclass
class Seen:
    """
    One request as a reader understood it.

    :ivar fields: lower-case names, in the order of arrival.
    :ivar trailers: None when the reader does not tell.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: Lines
    body: bytes
    trailers: Lines | None = None


class Reader(Protocol):
    """
    Reads one connection.

    :ivar seen: requests that were complete.
    :ivar refused: why nothing more is read; empty while it reads on.
    """

    seen: list[Seen]
    refused: str

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""


@dataclass
class H11Reader:
    """h11, which answers each request at once."""

    seen: list[Seen] = field(default_factory=list)
    refused: str = ""

    def __post_init__(self) -> None:
        """Begin a connection."""
        # As much as the gate: what is tried here is not the size of a buffer.
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        self._head: h11.Request | None = None
        self._body = b""

    def feed(self, data: bytes) -> None:
        """See `Reader.feed`."""
        if self.refused:
            return
        try:
            self._connection.receive_data(data)
            while self._step(self._connection.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self.refused = str(error).partition(":")[0]

    def _step(self, event: Any) -> bool:
        if event is h11.NEED_DATA:
            return False
        if event is h11.PAUSED:
            self.refused = "closed"
            return False
        if isinstance(event, h11.Request):
            self._head, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self._end(event)
        return True

    def _end(self, event: h11.EndOfMessage) -> None:
        head = self._head
        assert head is not None
        self.seen.append(
            Seen(
                head.method,
                head.target,
                head.http_version,
                [(name.lower(), value) for name, value in head.headers],
                self._body,
                [(name.lower(), value) for name, value in event.headers],
            )
        )
        connection = self._connection
        status = 400 if head.method == b"CONNECT" else 200
        connection.send(h11.Response(status_code=status, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            self.refused = "closed"
        else:
            connection.start_next_cycle()


class _Request(http.Request):
    """Keeps what the channel read of a request, and is done with it."""

    pieces: list[bytes]

    @override
    def gotLength(self, length: int | None) -> None:
        self.pieces = []

    @override
    def handleContentChunk(self, data: bytes) -> None:
        self.pieces.append(data)

    @override
    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        channel = cast(_Channel, self.channel)
        fields = [
            (name.lower(), value)
            for name, values in self.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        channel.seen.append(
            Seen(command, path, version.removeprefix(b"HTTP/"), fields, b"".join(self.pieces))
        )
        channel.requestDone(self)


class _Channel(http.HTTPChannel):
    def __init__(self) -> None:
        super().__init__()
        self.requestFactory = _Request
        self.timeOut = None
        self.seen: list[Seen] = []


class TwistedReader:
    """twisted.web's channel, which answers each request at once."""

    def __init__(self) -> None:
        self._channel = _Channel()
        self._transport = StringTransport()
        self._channel.makeConnection(self._transport)
        self.refused = ""

    @property
    def seen(self) -> list[Seen]:
        """See `Reader`."""
        return self._channel.seen

    def feed(self, data: bytes) -> None:
        """See `Reader.feed`."""
        if self.refused:
            return
        self._channel.dataReceived(data)
        if self._transport.disconnecting:
            written = self._transport.value()
            self.refused = "bad request" if b" 400 " in written else "closed"
