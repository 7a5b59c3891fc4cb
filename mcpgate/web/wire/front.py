"""
The front door's HTTP/1.1 side: makes connections, counts them, drains them.

What a request means is the dispatcher's business.  Plain and TLS listeners have a factory each;
they share `ISlots` so that the caps hold over both.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Hashable
from itertools import count
from wsgiref.handlers import format_date_time

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from zope.interface import implementer

from mcpgate.http.heads import Peer
from mcpgate.interfaces import IInbound, ISlots
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.connection import HTTP1Connection

_ALL = ("connections", "")


@implementer(ISlots)
class Places:
    """Counted places of one factory on its own."""

    def __init__(self) -> None:
        self._taken: Counter[Hashable] = Counter()

    def acquire(self, key: Hashable, limit: int) -> bool:
        """See `ISlots.acquire`."""
        if limit and self._taken[key] >= limit:
            return False
        self._taken[key] += 1
        return True

    def release(self, key: Hashable) -> None:
        """See `ISlots.release`."""
        self._taken[key] -= 1
        if self._taken[key] <= 0:
            del self._taken[key]


class BodyBudget:
    """
    Bytes of collected bodies all connections may hold together (R16).

    :ivar held: bytes taken now.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held = 0

    def hold(self, size: int) -> bool:
        """Take ``size`` bytes if they are there; a negative size gives back."""
        if size > 0 and self._limit_bytes and self.held + size > self._limit_bytes:
            return False
        self.held += size
        return True


#: When it is cut off anyway, a number of its own, the connection.
Hoard = tuple[float, int, HTTP1Connection]


class AnswerBudget:
    """
    Bytes of answers that wait for clients to read, over all connections (R26).

    Whole answers are queued as they are; when they come to more than the budget, clients for whom a
    lot waits are cut off, those first that have not read for the longest.

    :ivar held: bytes waiting now.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held = 0
        # Those for whom a lot waits, by when they are cut off anyway.
        self._hoards: list[Hoard] = []
        self._numbers = count()

    @property
    def spent(self) -> bool:
        """Tell whether more waits than may."""
        return bool(self._limit_bytes) and self.held > self._limit_bytes

    def hoard(self, connection: HTTP1Connection, until_s: float) -> Hoard:
        """
        Note that a lot waits for a client; give what `let_go` takes.

        :param until_s: clock reading at which it is cut off unless it reads.
        """
        hoard = (until_s, next(self._numbers), connection)
        insort(self._hoards, hoard)
        return hoard

    def let_go(self, hoard: Hoard) -> None:
        """Little waits for it now, or it is gone."""
        at = bisect_left(self._hoards, hoard)
        if at < len(self._hoards) and self._hoards[at] is hoard:
            del self._hoards[at]

    def relieve(self) -> None:
        """Cut off those that have not read for the longest, until the answers fit (R26)."""
        while self.spent and self._hoards:
            self._hoards.pop(0)[2].give_up()


@implementer(IProtocolFactory)
class FrontFactory:
    """
    See the module.

    :param dispatch: called with each request once its head has passed; what it raises is
        answered 500 and logged.
    :param make_request_id: gives a new id: ASCII, safe in a header.
    :param record: called once for each request, answered or given up.
    :param secure: connections of this factory are TLS.
    :param slots: shared with other listeners; this factory counts for itself without.
    :param proxied: ``getPeer`` tells the client's address only with the first byte (PROXY
        protocol): the cap per address waits for it.
    :param wall: seconds since the epoch, for ``Date``; the reactor's clock when not given.
    :param budget: shared with other listeners, like ``slots`` and ``answers``.
    :ivar connections: those open now.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        bounds: Bounds,
        dispatch: Callable[[IInbound], None],
        make_request_id: Callable[[], str],
        record: Callable[[AccessEntry], None],
        meters: Meters,
        secure: bool,
        slots: ISlots | None = None,
        proxied: bool = False,
        wall: Callable[[], float] | None = None,
        budget: BodyBudget | None = None,
        answers: AnswerBudget | None = None,
    ) -> None:
        self.clock = clock
        self.wheel = wheel
        self.bounds = bounds
        self.dispatch = dispatch
        self.make_request_id = make_request_id
        self.meters = meters
        self.secure = secure
        self.connections: set[HTTP1Connection] = set()
        self._record = record
        self._slots: ISlots = slots if slots is not None else Places()
        self._proxied = proxied
        self._wall = wall if wall is not None else clock.seconds
        budget = budget if budget is not None else BodyBudget(bounds.bodies_bytes)
        self.hold = budget.hold
        self.answers = answers if answers is not None else AnswerBudget(bounds.answers_bytes)
        self._overflowing = 0
        self._drained: list[Deferred[None]] = []
        self._draining = False
        self._date_s = -1
        self._date = b""

    # --- IProtocolFactory

    def doStart(self) -> None:
        """See `IProtocolFactory`."""

    def doStop(self) -> None:
        """See `IProtocolFactory`."""

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """See `IProtocolFactory`; None (closed at once) when there is not even room to say no."""
        bounds = self.bounds
        address = str(getattr(addr, "host", ""))
        if self._draining or not self._slots.acquire(_ALL, bounds.connections):
            self.meters.events["connections_refused"] += 1
            return None
        if not self._proxied and not self._admit(address):
            self.meters.events["connections_refused"] += 1
            if self.secure or self._overflowing >= bounds.overflow:
                self._slots.release(_ALL)
                return None
            self._overflowing += 1
            return HTTP1Connection(self, overflow=True)
        connection = HTTP1Connection(self)
        if not self._proxied:
            connection.place = address
        return connection

    def _admit(self, address: str) -> bool:
        if not address:
            return True
        return self._slots.acquire(("connections", address), self.bounds.connections_per_address)

    # --- What connections call

    def opened(self, connection: HTTP1Connection) -> None:
        """Count a connection in."""
        self.connections.add(connection)
        self.meters.connections += 1
        self.meters.connections_total += 1

    def closed(self, connection: HTTP1Connection) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        self.meters.connections -= 1
        self._slots.release(_ALL)
        if connection.overflow:
            self._overflowing -= 1
        if connection.place:
            self._slots.release(("connections", connection.place))
        if not self.connections:
            waiting, self._drained = self._drained, []
            for waiter in waiting:
                waiter.callback(None)

    def peer_of(self, connection: HTTP1Connection, *, refuse: bool = True) -> Peer | None:
        """Tell who is at the other end; None when that is one too many of its address."""
        address = connection.transport.getPeer()
        host = str(getattr(address, "host", ""))
        if self._proxied and refuse and not connection.place:
            if not self._admit(host):
                return None
            connection.place = host
        return Peer(host, self.secure, int(getattr(address, "port", 0)))

    def answered(self, entry: AccessEntry) -> None:
        """Count and record a request that is over."""
        self.meters.bytes_in += entry.bytes_in
        self.meters.bytes_out += entry.bytes_out
        self._record(entry)

    def date(self) -> bytes:
        """Give the value of ``Date``, made once a second."""
        now = int(self._wall())
        if now != self._date_s:
            self._date_s = now
            self._date = format_date_time(now).encode("ascii")
        return self._date

    # --- Ends

    def drain(self) -> Deferred[None]:
        """
        Take no more connections, end idle ones, let busy ones end; fires when all are gone.

        Waits as long as calls take: the caller sets a deadline, and calls `abort_all` after it.
        """
        self._draining = True
        for connection in tuple(self.connections):
            connection.drain()
        if not self.connections:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._drained.remove)
        self._drained.append(waiter)
        return waiter

    def abort_all(self) -> None:
        """Cut every connection off."""
        for connection in tuple(self.connections):
            connection.cut()
