"""
Speaks HTTP/1.1 to one server: pools of kept connections, one pool per principal (R43).

No redirect is followed, no cookie kept, no content coding undone.  A request is sent at most
once, but for two cases nobody can notice: nothing of it can have reached the server, or it is
GET, HEAD or OPTIONS without a body and the kept connection it was sent on was dead (R35).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable, BadRequest, GateError, Overloaded
from mcpgate.http.responses import ResponseHeads
from mcpgate.interfaces import IRepeatingUpstream, IResponseReceiver, IUpstream
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.upstream.connections import Connection
from mcpgate.upstream.exchange import Exchange
from mcpgate.upstream.questions import POOL, Question, Unread

log = Logger()

_OURS: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
# Methods that say "no body" by having no Content-Length (RFC 9110 8.6).
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamLimits:
    """
    What one server's connections may cost.

    :ivar connect_s: deadline of connecting, TLS included.
    :ivar idle_s: a kept connection unused for this long is closed.
    :ivar connections: open connections per pool key; streams hold one each.
    :ivar idle_connections: kept connections per pool key.
    """

    connect_s: float = 5.0
    idle_s: float = 30.0
    connections: int = 512
    idle_connections: int = 64


@dataclass(frozen=True, slots=True)
class PreparedHead:
    """
    A request's head but for its id, and what tells its body's length.

    :ivar counted: the length is told even of an empty body.
    """

    method: str
    before: bytes
    after: bytes
    counted: bool

    def written(self, request_id: str, body: bytes) -> bytes:
        """Give the whole request."""
        start = b"%b\r\nx-request-id: %b%b" % (self.before, request_id.encode("ascii"), self.after)
        if body or self.counted:
            return b"%bContent-Length: %d\r\n\r\n%b" % (start, len(body), body)
        return start + b"\r\n"


@implementer(IRepeatingUpstream, IUpstream)
class HTTPUpstream:
    """
    See `IHTTPUpstream`.

    ``response_failed`` is never called from within `send`.

    :param make_endpoint: gives the endpoint to connect to; asked for each connection.
    :param authority: the ``Host`` the server is told.
    :param heads: parser of response heads with its bounds; may be shared between servers.
    :param question: gives what to ask it to see whether it answers; None: it is never asked.
    """

    def __init__(
        self,
        clock: IReactorTime,
        make_endpoint: Callable[[], IStreamClientEndpoint],
        *,
        authority: bytes,
        wheel: DeadlineWheel,
        meters: Meters,
        limits: UpstreamLimits | None = None,
        heads: ResponseHeads | None = None,
        question: Callable[[], Question] | None = None,
    ) -> None:
        self.authority = authority
        self.seconds = clock.seconds
        self.heard_s = clock.seconds()
        self._refused_s = -1.0
        self._question = question
        self._clock = clock
        self._make_endpoint = make_endpoint
        self._wheel = wheel
        self._meters = meters
        self._limits = limits or UpstreamLimits()
        self._heads = heads or ResponseHeads()
        self._idle: dict[Hashable, list[Connection]] = {}
        self._open: dict[Hashable, int] = {}
        self._connections: set[Connection] = set()
        self._connecting: dict[Exchange, Deferred[Any]] = {}
        self._sweep: Deadline | None = None
        self._closed: GateError | None = None

    # --- IHTTPUpstream ------------------------------------------------------------------------

    def send(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        *,
        pool: Hashable,
        length: int | None,
        timeout_s: float,
        stream: bool,
    ) -> Exchange:
        """See `IHTTPUpstream.send`; raises `BadRequest` for fields that break out of their line."""
        whole = body is not None or length == 0
        if body is not None:
            length = len(body)
        head, upgrade = encode_head(method, target, self.authority, fields, length)
        exchange = Exchange(
            self,
            method,
            head + body if body else head,
            receiver,
            pool=pool,
            length=length,
            whole=whole,
            timeout_s=timeout_s,
            stream=stream,
            upgrade=upgrade,
        )
        self._arm(exchange, timeout_s)
        self.again(exchange)
        return exchange

    def prepare(
        self, method: str, target: bytes, fields: list[tuple[bytes, bytes]], request_id: str
    ) -> PreparedHead | None:
        """See `IRepeatingUpstream.prepare`; raises `BadRequest` as `send` does."""
        head, upgrade = encode_head(method, target, self.authority, fields, 0)
        counted = method not in _BODILESS
        head = head.removesuffix(b"Content-Length: 0\r\n\r\n" if counted else b"\r\n")
        own = b"\r\nx-request-id: %b\r\n" % request_id.encode("ascii", "replace")
        before, found, after = head.partition(own)
        if upgrade or not found or b"\r\nx-request-id: " in before + after:
            return None
        return PreparedHead(method, before, b"\r\n" + after, counted)

    def send_prepared(
        self,
        prepared: PreparedHead,
        request_id: str,
        body: bytes,
        receiver: IResponseReceiver,
        *,
        pool: Hashable,
        timeout_s: float,
    ) -> Exchange:
        """See `IRepeatingUpstream.send_prepared`."""
        exchange = Exchange(
            self,
            prepared.method,
            prepared.written(request_id, body),
            receiver,
            pool=pool,
            length=len(body),
            whole=True,
            timeout_s=timeout_s,
            stream=False,
            upgrade=False,
        )
        self._arm(exchange, timeout_s)
        self.again(exchange)
        return exchange

    def _arm(self, exchange: Exchange, delay_s: float) -> None:
        exchange.progress_s = self.seconds()
        exchange.deadline = self._wheel.arm(delay_s, lambda: self._expired(exchange))

    def _expired(self, exchange: Exchange) -> None:
        # Silence counts from the last byte of a body, in either direction (bytes of a head do not
        # count); not while it is the client who does not read.
        exchange.deadline = None
        left_s = exchange.progress_s + exchange.timeout_s - self.seconds()
        if exchange.paused:
            left_s = exchange.timeout_s
        if left_s > 0:
            progress_s = exchange.progress_s
            self._arm(exchange, left_s)
            exchange.progress_s = progress_s
        elif exchange.connection is not None:
            exchange.connection.expired(exchange)
        else:
            self.fail(exchange, BackendUnavailable())

    # --- IUpstream ----------------------------------------------------------------------------

    @property
    def unreachable(self) -> bool:
        """See `IUpstream.unreachable`."""
        return self._refused_s >= self.heard_s

    def ask_alive(self, timeout_s: float) -> bool:
        """See `IUpstream.ask_alive`."""
        if self._closed is not None or self._question is None:
            return False
        if self.held_up:
            # It may stand still because a client does not read: that is no silence of its own.
            return False
        # A server that serves one connection at a time would wait for the next request on a kept
        # one, and never come to this.
        for kept in tuple(self._idle.values()):
            _retire(kept)
        asked = self._question()
        receiver = Unread(lambda: _retire(self._idle.get(POOL, [])), self._heard)
        receiver.call = self.send(
            asked.method,
            asked.target,
            asked.fields,
            asked.body,
            receiver,
            pool=POOL,
            length=0,
            timeout_s=timeout_s,
            stream=False,
        )
        return True

    def let_go(self, pool: Hashable) -> None:
        """Close the connections kept for this pool key: somebody else asks for it now."""
        _retire(self._idle.get(pool, []))

    @property
    def held_up(self) -> bool:
        """Tell whether an answer stands still because somebody does not take it."""
        return any(connection.paused for connection in self._connections)

    def _heard(self) -> None:
        self.heard_s = self.seconds()

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`.  What is sent afterwards fails with the same error."""
        self._closed = error
        for exchange in list(self._connecting):
            self.fail(exchange, error)
        for connection in list(self._connections):
            connection.fail(error)
        self._cancel_sweep()

    # --- For exchanges and connections --------------------------------------------------------

    def again(self, exchange: Exchange) -> None:
        """Send a request on a kept connection, or on a new one."""
        if self._closed is not None:
            self._fail_soon(exchange, self._closed)
            return
        idle = self._idle.get(exchange.pool)
        while idle and not exchange.retried:
            connection = idle.pop()
            if connection.stale():
                connection.drop()
            elif connection.start(exchange):
                return
        if self._open.get(exchange.pool, 0) >= self._limits.connections:
            self._fail_soon(exchange, Overloaded(retry_after_s=1))
            return
        self._connect(exchange)

    def _fail_soon(self, exchange: Exchange, error: GateError) -> None:
        self._clock.callLater(0, exchange.fail, error)

    def fail(self, exchange: Exchange, error: GateError) -> None:
        """End an exchange with ``error``, wherever it is."""
        if exchange.connection is not None:
            exchange.connection.fail(error)
        exchange.fail(error)
        self.dropped(exchange)

    def dropped(self, exchange: Exchange) -> None:
        """Stop connecting for an exchange nobody waits for."""
        connecting = self._connecting.pop(exchange, None)
        if connecting is not None:
            connecting.cancel()

    def released(self, connection: Connection) -> None:
        """Keep a connection for the next request of its pool."""
        idle = self._idle.setdefault(connection.pool, [])
        if self._closed is not None or len(idle) >= self._limits.idle_connections:
            connection.retire()
            return
        connection.idle_since_s = self.seconds()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = self._wheel.arm(1.0, self._close_idle)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        pool = connection.pool
        idle = self._idle.get(pool, [])
        if connection in idle:
            idle.remove(connection)
        self._open[pool] -= 1
        if not self._open[pool]:
            del self._open[pool]
            self._idle.pop(pool, None)
        if not self._connections:
            # An idle server costs nothing.
            self._heads.clear()
            self._cancel_sweep()

    def broken(self) -> None:
        """Count an answer that broke HTTP."""
        self._meters.events["upstream_bad_answer"] += 1

    def _cancel_sweep(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close_idle(self) -> None:
        self._sweep = None
        now_s = self.seconds()
        waiting = False
        for idle in list(self._idle.values()):
            for connection in list(idle):
                keep_s = self._limits.idle_s
                if connection.keep_s:
                    # Before the server does: a request on its way then is a request lost.
                    keep_s = min(keep_s, max(0.0, connection.keep_s - 1.0))
                if now_s - connection.idle_since_s >= keep_s:
                    connection.retire()
                else:
                    waiting = True
        if waiting:
            self._sweep = self._wheel.arm(1.0, self._close_idle)

    def _connect(self, exchange: Exchange) -> None:
        pool = exchange.pool
        self._open[pool] = self._open.get(pool, 0) + 1
        factory = Factory.forProtocol(lambda: Connection(self, pool, self._heads))
        factory.noisy = False
        connecting: Deferred[Any] = self._make_endpoint().connect(factory)
        connecting.addCallback(lambda connection: connection.ready())
        connecting.addTimeout(self._limits.connect_s, self._clock)
        self._connecting[exchange] = connecting
        connecting.addCallbacks(
            lambda connection: self._connected(exchange, connection),
            lambda failure: self._unconnected(exchange, failure),
        )
        connecting.addErrback(lambda failure: log.failure("Connecting failed", failure=failure))

    def _connected(self, exchange: Exchange, connection: Connection) -> None:
        self._meters.events["upstream_connected"] += 1
        self._connecting.pop(exchange, None)
        self._connections.add(connection)
        if exchange.over:
            self.released(connection)
        elif not connection.start(exchange):
            exchange.fail(BackendUnavailable())

    def _unconnected(self, exchange: Exchange, failure: Failure) -> None:
        pool = exchange.pool
        self._open[pool] -= 1
        if not self._open[pool]:
            del self._open[pool]
        self._connecting.pop(exchange, None)
        if not exchange.over:
            self._refused_s = self.seconds()
            self._meters.events["upstream_connect_failed"] += 1
            log.info(
                "Connecting to {authority} failed: {reason}",
                authority=self.authority.decode("latin-1"),
                reason=failure.getErrorMessage(),
            )
            exchange.fail(BackendUnavailable(retry_after_s=1))


def _retire(idle: list[Connection]) -> None:
    for connection in tuple(idle):
        connection.retire()


def encode_head(
    method: str,
    target: bytes,
    authority: bytes,
    fields: list[tuple[bytes, bytes]],
    length: int | None,
) -> tuple[bytes, bool]:
    """
    Write a request's head, and tell whether it asks for an upgrade.

    :param length: of the body; None for chunked.
    :raises BadRequest: a part holds what would end its line (R43).
    """
    lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (method.encode("ascii"), target, authority)]
    lines += [b"%b: %b" % field for field in fields if field[0] not in _OURS]
    upgrade = b"upgrade" in dict(fields)
    if upgrade:
        lines.append(b"Connection: Upgrade")
    if length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif length or method not in _BODILESS:
        lines.append(b"Content-Length: %d" % length)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    # Every line end must be one of ours: the first piece holds two lines.
    ends = len(lines) + 1
    if (
        head.count(b"\n") != ends
        or head.count(b"\r") != ends
        or b"\0" in head
        or not target
        or b" " in target
        or b"\t" in target
    ):
        raise BadRequest
    return head, upgrade
