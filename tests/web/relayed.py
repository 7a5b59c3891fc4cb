"""An inbound, a lease and an upstream in memory, for tests of the relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.testing import StringTransport
from typing_extensions import override
from zope.interface import implementer

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound, ILease, IUpstreamCall

Lines = list[tuple[bytes, bytes]]


class Wire(StringTransport):
    """A transport that tells how it was closed."""

    aborted = False

    @override
    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


@implementer(IInbound)
class FakeInbound:
    """See `IInbound`; ``events`` tells what was done to it."""

    def __init__(self, method: str = "GET", *lines: tuple[bytes, bytes], **head: Any) -> None:
        self.head = RequestHead(
            method=method, path=b"/srv/x", query=None, version=(1, 1), fields=Fields(lines), **head
        )
        self.peer = Peer("192.0.2.1", False)
        self.request_id = "r1"
        self.started = False
        self.finished = False
        self.notes: dict[str, object] = {}
        self.extra_fields: Lines = []
        self.events: list[tuple[Any, ...]] = []
        self.written = b""
        self.done: Callable[[bytes], None] | None = None
        self.data: Callable[[bytes], None] | None = None
        self.ended: Callable[[Lines], None] | None = None
        self.flow: tuple[Callable[[], None], Callable[[], None]] | None = None
        self.gone: Callable[[], None] = lambda: None
        self.wire = Wire()

    def read_body(self, limit: int, done: Callable[[bytes], None]) -> None:
        """See `IInbound.read_body`."""
        self.done = done

    def stream_body(
        self, data: Callable[[bytes], None], ended: Callable[[Lines], None], limit: int
    ) -> None:
        """See `IInbound.stream_body`."""
        self.data, self.ended = data, ended

    def pause_body(self) -> None:
        """See `IInbound.pause_body`."""
        self.events.append(("pause",))

    def resume_body(self) -> None:
        """See `IInbound.resume_body`."""
        self.events.append(("resume",))

    def respond(self, status: int, fields: Lines, body: bytes) -> None:
        """See `IInbound.respond`."""
        self.started = self.finished = True
        self.events.append(("respond", status, fields, body))

    def start(self, status: int, fields: Lines, length: int | None) -> None:
        """See `IInbound.start`."""
        self.started = True
        self.events.append(("start", status, fields, length))

    def write(self, data: bytes) -> None:
        """See `IInbound.write`."""
        self.written += data

    def finish(self, trailers: Lines | None = None) -> None:
        """See `IInbound.finish`."""
        self.finished = True
        self.events.append(("finish", trailers))

    def abort(self) -> None:
        """See `IInbound.abort`."""
        self.finished = True
        self.events.append(("abort",))
        self.gone()

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IInbound.register_flow`."""
        self.flow = (pause, resume)

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `IInbound.on_gone`."""
        self.gone = callback

    def take_over(self, status: int, fields: Lines, protocol: Any) -> None:
        """See `IInbound.take_over`."""
        if not self.finished:
            self.events.append(("take_over", status, fields))
            protocol.makeConnection(self.wire)


@implementer(IUpstreamCall)
class FakeCall:
    """See `IUpstreamCall`."""

    def __init__(self) -> None:
        self.written = b""
        self.trailers: Lines | None = None
        self.aborted = False
        self.sent = True
        self.flow: tuple[Callable[[], None], Callable[[], None]] | None = None

    def write(self, data: bytes) -> None:
        """See `IUpstreamCall.write`."""
        self.written += data

    def end(self, trailers: Lines) -> None:
        """See `IUpstreamCall.end`."""
        self.trailers = trailers

    def register_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """See `IUpstreamCall.register_flow`."""
        self.flow = (pause, resume)

    def pause(self) -> None:
        """See `IUpstreamCall.pause`."""

    def resume(self) -> None:
        """See `IUpstreamCall.resume`."""

    def abort(self) -> None:
        """See `IUpstreamCall.abort`."""
        self.aborted = True


class FakeUpstream:
    """Keeps what is sent."""

    authority = b"in:1"

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.call = FakeCall()
        self.receiver: Any = None
        self.error: Exception | None = None

    def send(self, *args: Any, **kwargs: Any) -> FakeCall:
        """See `IHTTPUpstream.send`."""
        if self.error is not None:
            raise self.error
        self.receiver = args[4]
        self.sent.append((*args[:4], kwargs))
        return self.call


class RepeatingUpstream(FakeUpstream):
    """
    See `IRepeatingUpstream`.

    :ivar prepared: ids of the requests it was prepared with; ``again``: what was sent so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[str] = []
        self.again: list[tuple[Any, ...]] = []

    def prepare(self, method: str, target: bytes, fields: Lines, request_id: str) -> object:
        """See `IRepeatingUpstream.prepare`."""
        self.prepared.append(request_id)
        return self

    def send_prepared(
        self, prepared: object, request_id: str, body: bytes, receiver: Any, **options: Any
    ) -> FakeCall:
        """See `IRepeatingUpstream.send_prepared`."""
        self.receiver = receiver
        self.again.append((request_id, body, options))
        return self.call


@implementer(ILease)
class FakeLease:
    """See `ILease`."""

    instance: Any = None

    def __init__(self) -> None:
        self.upstream: Any = FakeUpstream()
        self.touched = 0
        self.released = 0

    def touch(self) -> None:
        """See `ILease.touch`."""
        self.touched += 1

    def make_passive(self, stopped: Callable[[], None]) -> None:
        """See `ILease.make_passive`."""

    def release(self) -> None:
        """See `ILease.release`."""
        self.released += 1
