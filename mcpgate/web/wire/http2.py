"""
HTTP/2 for those who switch it on: makes its connections, counts them, drains them.

The counterpart of `mcpgate.web.wire.front.FrontFactory` for what ALPN calls ``h2``; requests go to
the same dispatch as the same `IInbound`.  Needs the ``h2`` library, which is imported only here,
when a factory is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from wsgiref.handlers import format_date_time

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime
from zope.interface import implementer

from mcpgate.interfaces import IInbound, ISlots
from mcpgate.model import KIB, MIB
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.front import BodyBudget, Places

if TYPE_CHECKING:
    from mcpgate.web.wire.http2_connection import HTTP2Connection

_ALL = ("connections", "")

MAX_STREAMS = 100
STREAM_WINDOW = 64 * KIB - 1
# What all uploads of a connection may have sent without anybody taking it.
CONNECTION_WINDOW = MIB


class HTTP2Missing(Exception):  # noqa: N818 - named as the reader sees it
    """HTTP/2 is switched on but can not be spoken."""


@implementer(IProtocolFactory)
class HTTP2Factory:
    """
    See the module.  Parameters are those of `FrontFactory`; share ``slots`` and ``budget`` with it.

    :raises HTTP2Missing: the ``h2`` library is not installed.
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
        secure: bool = True,
        slots: ISlots | None = None,
        wall: Callable[[], float] | None = None,
        budget: BodyBudget | None = None,
    ) -> None:
        try:
            from mcpgate.web.wire.http2_connection import (  # noqa: PLC0415 - an optional library
                HTTP2Connection,
            )
        except ImportError as error:
            raise HTTP2Missing(
                "http2 is switched on but the h2 library is not installed. "
                "Install it with: pip install 'mcpgate[http2]', or switch http2 off."
            ) from error
        self._protocol = HTTP2Connection
        self.clock = clock
        self.wheel = wheel
        self.bounds = bounds
        self.dispatch = dispatch
        self.make_request_id = make_request_id
        self.meters = meters
        self.secure = secure
        self.connections: set[HTTP2Connection] = set()
        self._record = record
        self._slots: ISlots = slots if slots is not None else Places()
        self._wall = wall if wall is not None else clock.seconds
        budget = budget if budget is not None else BodyBudget(bounds.bodies_bytes)
        self.hold = budget.hold
        self._drained: list[Deferred[None]] = []
        self._draining = False
        self._date_s = -1
        self._date = b""

    def doStart(self) -> None:
        """See `IProtocolFactory`."""

    def doStop(self) -> None:
        """See `IProtocolFactory`."""

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """See `IProtocolFactory`; None (closed at once) over a cap (R28) and while draining."""
        address = str(getattr(addr, "host", ""))
        bounds = self.bounds
        if self._draining or not self._slots.acquire(_ALL, bounds.connections):
            self.meters.events["connections_refused"] += 1
            return None
        if address and not self._slots.acquire(
            ("connections", address), bounds.connections_per_address
        ):
            self._slots.release(_ALL)
            self.meters.events["connections_refused"] += 1
            return None
        return self._protocol(self, address)

    def opened(self, connection: HTTP2Connection) -> None:
        """Count a connection in."""
        self.connections.add(connection)
        self.meters.connections += 1
        self.meters.connections_total += 1

    def closed(self, connection: HTTP2Connection) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        self.meters.connections -= 1
        self._slots.release(_ALL)
        if connection.place:
            self._slots.release(("connections", connection.place))
        if not self.connections:
            waiting, self._drained = self._drained, []
            for waiter in waiting:
                waiter.callback(None)

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

    def drain(self) -> Deferred[None]:
        """See `FrontFactory.drain`."""
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
