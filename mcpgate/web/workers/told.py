"""
What a worker tells the owner of a request beside the request itself: one field of its head.

Pure.  The field is the first one of each head on the link between the two; a client that sends one
of this name is not heard: a worker drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer

FIELD: Final = b"x-mcpgate-worker"

_NOBODY: Final = b"-"


@dataclass(frozen=True, slots=True)
class Told:
    """
    What the owner can not see for itself.

    :ivar channel: number of what serves the listener the client came to.
    :ivar request_id: made by the worker.
    :ivar protocol: what the client speaks, as the access log has it.
    :ivar hostless: the client named no ``Host``; the one on the link means nothing.
    """

    channel: int
    peer: Peer
    request_id: str
    protocol: str = "HTTP/1.1"
    hostless: bool = False


def write_told(told: Told) -> bytes:
    """Give the field's value."""
    peer = told.peer
    return b"%d %d %d %d %b %b %b" % (
        told.channel,
        peer.secure,
        told.hostless,
        peer.port,
        told.protocol.encode("ascii"),
        told.request_id.encode("ascii"),
        peer.address.encode("ascii") or _NOBODY,
    )


def read_told(fields: Fields) -> Told:
    """
    Read what was told.

    :raises ValueError: nothing was, or not in this form.
    """
    if fields.count(FIELD) != 1:
        raise ValueError("the field is missing, or there twice")
    channel, secure, hostless, port, protocol, request_id, address = (
        fields.get(FIELD) or b""
    ).split(b" ")
    host = "" if address == _NOBODY else address.decode("ascii")
    return Told(
        channel=int(channel),
        peer=Peer(host, secure == b"1", int(port)),
        request_id=request_id.decode("ascii"),
        protocol=protocol.decode("ascii"),
        hostless=hostless == b"1",
    )
