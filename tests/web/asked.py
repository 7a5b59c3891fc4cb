"""A request that stays in memory and keeps its answer, for tests of what looks at requests."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound

Lines = list[tuple[bytes, bytes]]


@implementer(IInbound)
class Asked:
    """
    A request without a body.

    :ivar status: of the answer; 0 while there is none.
    """

    def __init__(
        self,
        *lines: tuple[bytes, bytes],
        method: str = "GET",
        path: bytes = b"/a/mcp",
        query: bytes | None = None,
        peer: Peer | None = None,
    ) -> None:
        self.head = RequestHead(
            method=method, path=path, query=query, version=(1, 1), fields=Fields(lines)
        )
        self.peer = peer or Peer("192.0.2.7", secure=True, port=50000)
        self.request_id = "test"
        self.started = self.finished = False
        self.notes: dict[str, object] = {}
        self.extra_fields: Lines = []
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""

    def respond(self, status: int, fields: Lines, body: bytes) -> None:
        """Keep the answer."""
        self.status, self.fields, self.body = status, dict(fields), body
        self.finished = True

    def read_body(self, limit: int, done: Callable[[bytes], None]) -> None:
        """Give the empty body."""
        done(b"")

    def stream_body(
        self, data: Callable[[bytes], None], ended: Callable[[Lines], None], limit: int
    ) -> None:
        """Give the empty body."""
        ended([])

    def pause_body(self) -> None:
        """Nothing comes."""

    def resume_body(self) -> None:
        """Nothing comes."""

    def start(self, status: int, fields: Lines, length: int | None) -> None:
        """Keep status and fields."""
        self.status, self.fields, self.started = status, dict(fields), True

    def write(self, data: bytes) -> None:
        """Keep the body."""
        self.body += data

    def finish(self, trailers: Lines | None = None) -> None:
        """Take note."""
        self.finished = True

    def abort(self) -> None:
        """Take note."""
        self.finished = True

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """The reader is never slow."""

    def on_gone(self, callback: Callable[[], None]) -> None:
        """The client never goes."""

    def take_over(self, status: int, fields: Lines, protocol: IProtocol) -> None:
        """Never asked for here."""
        raise NotImplementedError
