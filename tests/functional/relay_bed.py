"""A server, a gate's front door and a client, joined by real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from typing_extensions import override
from zope.interface import implementer

from mcpgate.http.forwarding import Forwarding
from mcpgate.http.responses import ResponseHeads
from mcpgate.interfaces import IInbound, ILease
from mcpgate.model import Caller, Principal, Secret, ServerSpec, Transport
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream, UpstreamLimits
from mcpgate.upstream.remote import plain_endpoint
from mcpgate.web.relay.relay import Relay
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.front import FrontFactory
from tests.functional.gate_process import PATIENT_S

PRINCIPAL = Principal("test", "ann", "0" * 32)
CALLER = Caller(PRINCIPAL, Secret("key-of-ann"))


class Line(Protocol):
    """
    One side of a connection under a test's control.

    :ivar received: bytes so far; `until` waits for some.
    :ivar ended: the other side closed its half, or all.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.count = 0
        self.keep = True
        self.ended = False
        self.lost = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def wire(self) -> Any:
        """The transport."""
        return self.transport

    @override
    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        if self.keep:
            self.received += data
        self._look()

    @override
    def connectionLost(self, reason: Any = None) -> None:
        self.ended = self.lost = True
        self._look()

    def _look(self) -> None:
        for item in list(self._waiting):
            if item[0]():
                self._waiting.remove(item)
                item[1].callback(None)

    async def when(self, condition: Callable[[], bool], timeout_s: float = PATIENT_S) -> None:
        """Wait until ``condition`` holds; it is looked at with every event of this line."""
        if condition():
            return
        from twisted.internet import reactor  # noqa: TID251  # the one all of this runs on

        waiter: Deferred[None] = Deferred()
        item = (condition, waiter)
        self._waiting.append(item)
        waiter.addTimeout(timeout_s, reactor)
        try:
            await waiter
        finally:
            if item in self._waiting:
                self._waiting.remove(item)

    async def until(self, marker: bytes) -> bytes:
        """Wait for ``marker``; give everything up to its end, and forget it."""
        await self.when(lambda: marker in self.received)
        end = self.received.index(marker) + len(marker)
        taken = bytes(self.received[:end])
        del self.received[:end]
        return taken

    async def exactly(self, count: int) -> bytes:
        """Wait for so many bytes; give and forget them."""
        await self.when(lambda: len(self.received) >= count)
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    async def gone(self) -> None:
        """Wait for the connection's end."""
        await self.when(lambda: self.lost)

    def send(self, data: bytes) -> None:
        """Write."""
        self.wire.write(data)


@implementer(ILease)
class Lease:
    """A lease of the one server there is."""

    instance: Any = None

    def __init__(self, upstream: HTTPUpstream) -> None:
        self.upstream = upstream
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


class Bed:
    """
    The gate between a client and a server, both of which are `Line`s in the test's hand.

    :ivar accepted: connections the gate made to the server, in order.
    :ivar leases: one per request.
    """

    def __init__(self, reactor: Any, **spec: Any) -> None:
        self.reactor = reactor
        self.spec = ServerSpec(name="srv", transport=Transport.HTTP, **spec)
        self.meters = Meters()
        self.wheel = DeadlineWheel(reactor, 0.05)
        self.accepted: list[Line] = []
        self.clients: list[Line] = []
        self.leases: list[Lease] = []
        self.entries: list[AccessEntry] = []
        self.inbounds: list[IInbound] = []
        self.keepalive_s = 15.0
        self._accepting: list[Deferred[Line]] = []
        self._server = reactor.listenTCP(
            0, Factory.forProtocol(self._accept), interface="127.0.0.1"
        )
        port = self._server.getHost().port
        self.upstream = HTTPUpstream(
            reactor,
            lambda: plain_endpoint(reactor, "127.0.0.1", port),
            authority=b"127.0.0.1:%d" % port,
            wheel=self.wheel,
            meters=self.meters,
            limits=UpstreamLimits(),
            heads=ResponseHeads(),
        )
        self.front = FrontFactory(
            clock=reactor,
            wheel=self.wheel,
            bounds=Bounds(),
            dispatch=self._dispatch,
            make_request_id=lambda: "request-1",
            record=self.entries.append,
            meters=self.meters,
            secure=False,
        )
        self._gate = reactor.listenTCP(0, self.front, interface="127.0.0.1")

    def _accept(self) -> Line:
        line = Line()
        self.accepted.append(line)
        if self._accepting:
            self.reactor.callLater(0, self._accepting.pop(0).callback, line)
        return line

    def _dispatch(self, inbound: IInbound) -> None:
        lease = Lease(self.upstream)
        self.leases.append(lease)
        self.inbounds.append(inbound)
        relay = Relay(
            self.reactor, self.wheel, Forwarding(), self.meters, keepalive_s=self.keepalive_s
        )
        query = inbound.head.query
        target = inbound.head.path.removeprefix(b"/srv")
        relay.relay(
            inbound,
            lease,
            self.spec,
            CALLER,
            target=target if query is None else target + b"?" + query,
            prefix=b"/srv",
        )

    async def client(self) -> Line:
        """Connect a client to the gate."""
        endpoint = plain_endpoint(self.reactor, "127.0.0.1", self._gate.getHost().port)
        line = await endpoint.connect(Factory.forProtocol(Line))
        assert isinstance(line, Line)
        self.clients.append(line)
        return line

    async def server(self) -> Line:
        """Wait for the gate's next connection to the server."""
        waiter: Deferred[Line] = Deferred()
        self._accepting.append(waiter)
        waiter.addTimeout(10, self.reactor)
        return await waiter

    def pause(self, delay_s: float) -> Deferred[None]:
        """Let the reactor run."""
        return deferLater(self.reactor, delay_s, lambda: None)

    async def settled(self, condition: Callable[[], bool], timeout_s: float = PATIENT_S) -> None:
        """Wait until ``condition`` holds, looking often."""
        end_s = self.reactor.seconds() + timeout_s
        while not condition():
            assert self.reactor.seconds() < end_s, "It did not come to that"
            await self.pause(0.01)

    async def close(self) -> None:
        """Take everything down."""
        from mcpgate.errors import Draining

        self.upstream.close(Draining())
        self.front.abort_all()
        for line in self.accepted + self.clients:
            if not line.lost:
                line.wire.abortConnection()
        await maybeDeferred(self._gate.stopListening)
        await maybeDeferred(self._server.stopListening)
        await self.settled(lambda: all(line.lost for line in self.accepted + self.clients))
        await self.settled(lambda: not self.front.connections)
        await self.pause(0.02)
        self.wheel.stop()
