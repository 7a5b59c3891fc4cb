"""
Serves a `twisted.web` resource tree (the Klein app) to inbounds of any HTTP version.

The tree's own parser never meets the network: it gets a canonical HTTP/1.1 head, written here from
one that passed our checks, and the whole bounded body.  What it answers goes out through the
inbound, so framing, keep-alive, backpressure and the access log are the front door's.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import BadRequest
from mcpgate.http.heads import RequestHead
from mcpgate.http.strictness import connection_tokens
from mcpgate.http.writing import request_head
from mcpgate.interfaces import IInbound
from mcpgate.model import KIB, MIB
from mcpgate.web.forwarding import FORWARDING
from mcpgate.web.refusal import refuse

# Of one connection, not of the request; or written anew.
_NOT_REPLAYED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        # The front door's id goes with every request; a client's own would end up in our log.
        b"x-request-id",
    }
)

# What twisted.web says of itself (R84: no versions), and what the inbound says better.
_NOT_ANSWERED: Final = frozenset(
    {b"connection", b"content-length", b"date", b"server", b"transfer-encoding"}
)


class ResourceServer:
    """
    Hands inbounds to a resource tree.

    :param body_bytes: largest request body; more is answered 413.
    """

    def __init__(self, resource: IResource, *, clock: IReactorTime, body_bytes: int = MIB) -> None:
        self._site = Site(resource, requestFactory=_ReplayedRequest, reactor=clock)
        self._site.displayTracebacks = False
        self._body_bytes = body_bytes

    def serve(self, inbound: IInbound) -> None:
        """Answer the request from the tree; a `FrontFactory` may take this as its dispatcher."""

        def replay(body: bytes) -> None:
            channel = _ReplayChannel(inbound, self._site)
            channel.makeConnection(_InboundTransport(inbound))
            inbound.on_gone(channel.client_gone)
            if not inbound.finished:
                channel.dataReceived(canonical(inbound.head, body, inbound.request_id) + body)

        inbound.read_body(self._body_bytes, replay)


def canonical(head: RequestHead, body: bytes, request_id: str = "") -> bytes:
    """Give the head as the tree's parser shall see it: HTTP/1.1, the body counted."""
    dropped = _NOT_REPLAYED
    if b"connection" in head.fields:
        # Nobody hides that a proxy passed the request on (see `mcpgate.web.pages.tree`).
        dropped = dropped.union(set(connection_tokens(head.fields)) - FORWARDING)
    fields = [field for field in head.fields if field[0] not in dropped]
    if request_id:
        fields.append((b"x-request-id", request_id.encode("ascii")))
    if body or head.has_body:
        fields.append((b"content-length", b"%d" % len(body)))
    target = head.path if head.query is None else b"%b?%b" % (head.path, head.query)
    return request_head(head.method, target, fields)


class _ReplayedRequest(Request):
    """A request whose body is in memory already, never in a temporary file."""

    @override
    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()


class _ReplayChannel(HTTPChannel):
    """One request of the tree; its answer is taken before it is put in HTTP/1.1 framing."""

    timeOut = None  # noqa: N815  # of HTTPChannel
    # Lines were bounded on the wire; these must only not be smaller.
    MAX_LENGTH = 64 * KIB
    totalHeadersSize = 64 * KIB  # noqa: N815  # of HTTPChannel

    def __init__(self, inbound: IInbound, site: Site) -> None:
        super().__init__()
        self.factory = site
        self.site = site
        self.requestFactory = site.requestFactory
        self._inbound = inbound

    @override
    def isSecure(self) -> bool:
        return self._inbound.peer.secure

    @override
    def writeHeaders(
        self,
        version: bytes,
        code: bytes,
        reason: bytes,
        headers: Headers | Iterable[tuple[bytes, bytes]],
    ) -> None:
        assert isinstance(headers, Headers)
        # The inbound does the chunking, where there is any.
        self.requests[0].chunked = 0
        lengths = headers.getRawHeaders(b"content-length")
        fields = [
            (lower, value)
            for name, values in headers.getAllRawHeaders()
            if (lower := name.lower()) not in _NOT_ANSWERED
            for value in values
        ]
        self._inbound.start(int(code), fields, int(lengths[0]) if lengths else None)

    @override
    def requestDone(self, request: Request) -> None:
        self.requests.remove(request)
        self._inbound.finish()

    @override
    def _respondToBadRequestAndDisconnect(self) -> None:
        # Nothing of ours gets here; and if, the words are ours.
        refuse(self._inbound, BadRequest())

    def client_gone(self) -> None:
        """Tell the request, so that ``notifyFinish`` fails."""
        self.connectionLost(Failure(ConnectionLost()))


@implementer(ITransport, IConsumer, IPushProducer)
class _InboundTransport:
    """What the channel takes for its network connection."""

    disconnecting = False

    def __init__(self, inbound: IInbound) -> None:
        self._inbound = inbound

    def write(self, data: bytes) -> None:
        """Add to the body: heads do not come this way."""
        self._inbound.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See `ITransport`."""
        self._inbound.write(b"".join(data))

    def loseConnection(self) -> None:
        """Cut off an answer that is not complete."""
        self._inbound.abort()

    abortConnection = loseConnection

    def getPeer(self) -> IAddress:
        """See `ITransport`."""
        peer = self._inbound.peer
        kind = IPv6Address if ":" in peer.address else IPv4Address
        return kind("TCP", peer.address, peer.port)

    def getHost(self) -> IAddress:
        """See `ITransport`: which of our addresses it was is not told."""
        return IPv4Address("TCP", "", 443 if self._inbound.peer.secure else 80)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Take the channel as source of the answer; it passes pauses on to the request's own."""
        channel = IPushProducer(producer)
        self._inbound.register_flow(channel.pauseProducing, channel.resumeProducing)

    def unregisterProducer(self) -> None:
        """The channel lets go; the answer is over."""

    def pauseProducing(self) -> None:
        """The body was here before the channel was: there is nothing to pause."""

    def resumeProducing(self) -> None:
        """See `pauseProducing`."""

    def stopProducing(self) -> None:
        """See `pauseProducing`."""
