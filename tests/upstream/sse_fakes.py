"""An HTTP+SSE server that a test plays."""

from __future__ import annotations

from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcpgate.errors import GateError
from mcpgate.interfaces import IHTTPUpstream, IResponseReceiver
from tests.web.fake_exchange import Sent


@implementer(IHTTPUpstream)
class FakeSSEServer:
    """
    Keeps every request for the test to answer.

    :ivar streams: GETs; ``posts``: POSTs, oldest first.
    :ivar targets: of the POSTs.
    :ivar error: what sending fails with.
    :ivar closed: what `close` was given.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.streams: list[Sent] = []
        self.posts: list[Sent] = []
        self.targets: list[bytes] = []
        self.pools: list[object] = []
        self.error: GateError | None = None
        self.closed: GateError | None = None
        self.heard_s = 0.0
        self.unreachable = False
        self.asked: list[float] = []
        verifyObject(IHTTPUpstream, self)

    def ask_alive(self, timeout_s: float) -> bool:
        """See `IUpstream.ask_alive`."""
        self.asked.append(timeout_s)
        return True

    def send(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        *,
        pool: object,
        length: int | None,
        timeout_s: float,
        stream: bool,
    ) -> Sent:
        """See `IHTTPUpstream.send`."""
        if self.error is not None:
            raise self.error
        sent = Sent(method, fields, body, receiver, self._clock)
        self.pools.append(pool)
        if method == "GET":
            self.streams.append(sent)
        else:
            self.posts.append(sent)
            self.targets.append(target)
        return sent

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`."""
        self.closed = error

    def begin(self, endpoint: str = "/messages?session_id=1") -> Sent:
        """Answer the newest GET and name the endpoint."""
        stream = self.streams[-1]
        stream.head()
        stream.data(f"event: endpoint\r\ndata: {endpoint}\r\n\r\n".encode())
        return stream

    def take(self) -> bytes:
        """Take the oldest message; gives it."""
        post = self.posts.pop(0)
        post.head(202, b"text/plain")
        post.data(b"Accepted")
        post.done()
        assert post.raw is not None
        return post.raw
