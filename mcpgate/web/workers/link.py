"""
The owner's end: requests that workers have received, each with who sent it.

An HTTP/1.1 front as any other, on a socket that only the gate's own user can open.  Bounds on
clients (their number, how slowly they send and read) are the workers' to keep; here a connection
is a worker's, kept and used for one client's request after another's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.interfaces import IAddress
from typing_extensions import override

from mcpgate.errors import BadRequest
from mcpgate.http.fields import Fields
from mcpgate.http.heads import RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.connection import HTTP1Connection
from mcpgate.web.wire.front import FrontFactory
from mcpgate.web.workers.told import FIELD, read_told

Dispatch = Callable[[IInbound], None]

# The deadlines of clients are the workers' to watch; a worker that is gone is seen at once.
_DAY_S = 86400.0
# Room in a head for what the worker adds to what it took from the client: its own field, Host out
# of ``:authority``, Content-Length; and for HTTP/2, which counts no separators.
_TOLD_BYTES = 1024
_TOLD_FIELDS = 4


def link_bounds(bounds: Bounds) -> Bounds:
    """Give the bounds of a worker's connections, where ``bounds`` hold for clients."""
    wire = replace(
        bounds.wire,
        head_bytes=bounds.wire.head_bytes + _TOLD_BYTES,
        fields=bounds.wire.fields + _TOLD_FIELDS,
    )
    return replace(
        bounds,
        wire=wire,
        head_s=_DAY_S,
        body_rate=0.0,
        idle_s=_DAY_S,
        stalled_s=_DAY_S,
        requests=0,
        lifetime_s=_DAY_S,
        connections=0,
        connections_per_address=0,
    )


class LinkConnection(HTTP1Connection):
    """A connection of a worker."""

    __slots__ = ()

    @override
    def _begin(self, head: RequestHead) -> None:
        front = self._front
        assert isinstance(front, LinkFactory)
        try:
            told = read_told(head.fields)
            dispatch = front.channels[told.channel]
        except (ValueError, IndexError):
            self._refuse(BadRequest("This socket is for the gate's own workers."))
            return
        dropped = (FIELD, b"host") if told.hostless else (FIELD,)
        fields = Fields(line for line in head.fields.lines if line[0] not in dropped)
        self._serve(
            replace(head, fields=fields),
            told.peer,
            told.request_id,
            dispatch,
            protocol=told.protocol,
            channel=told.channel,
        )


class LinkFactory(FrontFactory):
    """
    Makes `LinkConnection`; parameters are those of `FrontFactory`, the bounds those of clients.

    :ivar channels: what serves each listener, by the number workers know it by.
    """

    def __init__(self, *, bounds: Bounds, record: Callable[[AccessEntry], None], **rest: Any):
        super().__init__(
            dispatch=_nobody, bounds=link_bounds(bounds), record=record, secure=False, **rest
        )
        self.channels: Sequence[Dispatch] = ()

    @override
    def buildProtocol(self, addr: IAddress) -> LinkConnection:
        return LinkConnection(self)

    @override
    def opened(self, connection: HTTP1Connection) -> None:
        # Clients are counted by their workers.
        self.connections.add(connection)

    @override
    def closed(self, connection: HTTP1Connection) -> None:
        self.connections.discard(connection)

    @property
    def busy(self) -> int:
        """How many requests of workers are in work."""
        return sum(1 for connection in self.connections if connection.busy)


def _nobody(inbound: IInbound) -> None:
    raise AssertionError("each request of a worker names its channel")
