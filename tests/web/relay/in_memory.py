"""The whole way of a relayed request without a socket: front door, route, relay, upstream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import NotFound
from mcpgate.gate.routing import Routes
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import IInbound
from mcpgate.model import Caller, Principal, Secret, ServerSpec, Transport
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.relay import Relay
from mcpgate.web.relay.relay_route import RelayRoute
from tests.http.readers import H11Reader
from tests.web.front_kit import Door
from tests.web.relayed import FakeLease

CALLER = Caller(Principal("test", "ann", "0" * 32), Secret("key-of-ann"))
AUTHORITY = b"server:1"
ANSWER = b"HTTP/1.1 200 OK\r\nX-Seen: yes\r\nContent-Length: 0\r\n\r\n"


class ServerEnd(StringTransport):
    """
    The server's end of one connection of the gate: keeps what comes, answers what is whole.

    :ivar taken: bytes since they were last asked for.
    """

    def __init__(self, answer: Callable[[ServerEnd], object]) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.2", 1))
        self.taken = b""
        self.protocol: IProtocol | None = None
        self._answer = answer
        self._reader = H11Reader()

    @override
    def write(self, data: bytes) -> None:
        self.taken += data
        before = len(self._reader.seen)
        self._reader.feed(data)
        for _ in range(before, len(self._reader.seen)):
            self._answer(self)

    @override
    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    @override
    def abortConnection(self) -> None:
        self.disconnecting = True


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, made: Callable[[], ServerEnd]) -> None:
        self._made = made

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        end = self._made()
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.2", 1))
        assert protocol is not None
        end.protocol = protocol
        protocol.makeConnection(end)
        return succeed(protocol)


class _Gate:
    """Lets everybody in."""

    def charge(self, caller: Caller, spec: ServerSpec) -> None:
        """See `Gate.charge`."""

    def charge_start(self, caller: Caller) -> None:
        """See `Gate.charge_start`."""

    def enter(self, caller: Caller) -> Callable[[], None]:
        """See `Gate.enter`."""
        return lambda: None


class _Pool:
    """Has the one instance, always ready."""

    def __init__(self, upstream: HTTPUpstream) -> None:
        self._upstream = upstream

    def ready(self, spec: ServerSpec, owner: object) -> FakeLease:
        """See `IInstancePool.ready`."""
        lease = FakeLease()
        lease.upstream = self._upstream
        return lease


class GateInMemory:
    """A gate with the one server ``srv``."""

    def __init__(self) -> None:
        self.door = Door(dispatch=self._dispatch)
        self._ends: list[ServerEnd] = []
        clock = self.door.clock
        wheel = self.door.factory.wheel
        upstream = HTTPUpstream(
            clock,
            lambda: _Endpoint(self._connected),
            authority=AUTHORITY,
            wheel=wheel,
            meters=self.door.meters,
        )
        gate, pool = _Gate(), _Pool(upstream)
        self._route: Any = RelayRoute(
            gate=gate,  # type: ignore[arg-type]  # what of it a relayed request meets
            pool=pool,  # type: ignore[arg-type]  # the same
            relay=Relay(clock, wheel, Forwarding(), self.door.meters),
        )
        self._routes = Routes([ServerSpec(name="srv", transport=Transport.HTTP)])

    def _connected(self) -> ServerEnd:
        end = ServerEnd(self._answer)
        self._ends.append(end)
        return end

    def _answer(self, end: ServerEnd) -> None:
        def answer() -> None:
            if end.protocol is not None and not end.disconnecting:
                end.protocol.dataReceived(ANSWER)

        self.door.clock.callLater(0, answer)

    def _dispatch(self, inbound: IInbound) -> None:
        try:
            route = self._routes.find(inbound.head.path)
            if route is None or not route.rest:
                raise NotFound
            self._route(inbound, CALLER, route)
        except Exception:
            refuse(inbound, public(Failure(), inbound))

    def converse(self, pieces: list[bytes]) -> tuple[bytes, list[bytes]]:
        """
        Let a client send this on a connection of its own.

        :return: what it was answered, and what the server was sent, by connection.
        """
        client = self.door.visit()
        for piece in pieces:
            if client.protocol is None:
                break
            client.protocol.dataReceived(piece)
            self.door.clock.advance(0)
        answered = client.value()
        client.abortConnection()
        self.door.clock.advance(0)
        self.door.inbounds.clear()
        self.door.entries.clear()
        sent = [end.taken for end in self._ends if end.taken]
        for end in self._ends:
            end.taken = b""
        self._ends = [end for end in self._ends if not end.disconnecting]
        return answered, sent
