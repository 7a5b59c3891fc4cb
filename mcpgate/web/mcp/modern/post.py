"""What the modern endpoint hands to those who speak to servers for it, and what it asks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mcpgate.errors import (
    BadRequest,
    Forbidden,
    GateError,
    HeaderMismatch,
    InvalidParams,
    MethodNotFound,
    MissingCapability,
    NotAcceptable,
    ParseError,
    Unauthenticated,
    UnsupportedRevision,
)
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.methods import DISCOVER
from mcpgate.mcp.modern import Context
from mcpgate.model import Caller, ServerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModernPost:
    """
    One modern request, checked: headers and body agree, the limits are charged.

    :ivar body: the bytes as received.
    :ivar accepts: whether the answer may be JSON, and whether an event stream.
    :ivar release: called once when the request is answered or its client has gone: gives its
        slot (of a listen: its stream) back.
    """

    inbound: IInbound
    caller: Caller
    spec: ServerSpec
    body: bytes
    request: Request
    context: Context
    accepts: tuple[bool, bool]
    release: Callable[[], None]


class ModernAsker(Protocol):
    """How one modern request is put to a server that speaks the modern era, whoever asks."""

    def ask(
        self,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        *,
        source: IInbound | None = None,
        params_fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> Callable[[], None]:
        """
        Put a request to the server of this caller, started if need be; over HTTP or stdio.

        The sink hears notifications that belong to the request, then the response under the
        request's own id (an ``input_required`` result is one), or `IMessageSink.fail`.  For
        ``subscriptions/listen`` there is no deadline, and the acknowledgement is delivered too.

        :param request: with the whole context in its ``_meta``; ids need be unique to nobody.
        :param source: the client's request that is behind it, for forwarded fields and the log.
        :param params_fields: ``Mcp-Param-*`` fields, encoded.
        :return: takes the request back: the server is told, the sink hears nothing more.
        """


class ModernSpeaker(Protocol):
    """
    How modern requests are carried to the servers of one era.

    Both methods see to it that the inbound is answered and ``release`` called, whatever happens.
    A client that goes (`IInbound.on_gone`) has cancelled its request: the server is told.
    """

    def call(self, post: ModernPost) -> None:
        """Answer any request but ``subscriptions/listen``; ``server/discover`` among them."""

    def listen(self, post: ModernPost) -> None:
        """Answer ``subscriptions/listen`` with a stream."""


# What the specification gives a status of its own; everything else is told within HTTP 200.
_DEMANDED = (
    BadRequest,
    Forbidden,
    HeaderMismatch,
    InvalidParams,
    MethodNotFound,
    MissingCapability,
    NotAcceptable,
    ParseError,
    Unauthenticated,
    UnsupportedRevision,
)
_STATUS = {-32601: 404, -32020: 400, -32021: 400, -32022: 400}


def keeps_status(error: GateError, method: str) -> bool:
    """
    Tell whether a refusal of a request is told with its HTTP status too.

    Clients give their whole session up on 429 or 503; but one that only asks whether the era is
    spoken here must see that nobody could tell (protocol.md 2.9).
    """
    return isinstance(error, _DEMANDED) or method == DISCOVER


def status_of(code: int) -> int:
    """Give the HTTP status of an error that a server answered with."""
    return _STATUS.get(code, 200)
