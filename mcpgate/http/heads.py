"""The head of a request or response, after it passed the strict checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mcpgate.http.fields import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """
    A request's head.

    :ivar method: upper case as received, e.g. ``POST``.
    :ivar path: origin-form path, raw (still percent-encoded), begins with ``/``.
    :ivar query: what follows the first ``?``, without it; None when there is no ``?``.
    :ivar version: ``(1, 1)``, ``(1, 0)`` or ``(2, 0)``.
    :ivar fields: all fields, `host` among them (h2: made from ``:authority``).
    :ivar content_length: declared length in bytes; None when chunked or without a body.
    :ivar chunked: the body comes in chunks (HTTP/2: of unknown length).
    :ivar upgrade: lower-case token of ``Upgrade`` when ``Connection`` lists it, else empty.
    :ivar memo: where each room keeps, under its name, what it worked out from this head, once it
        has come a second time on its connection; None until then.
    """

    method: str
    path: bytes
    query: bytes | None
    version: tuple[int, int]
    fields: Fields
    content_length: int | None = None
    chunked: bool = False
    upgrade: bytes = b""
    memo: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def came_again(self) -> None:
        """Have what is worked out from now on kept."""
        if self.memo is None:
            object.__setattr__(self, "memo", {})

    @property
    def has_body(self) -> bool:
        """Tell whether body bytes will follow."""
        return self.chunked or bool(self.content_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """
    A response's head.

    :ivar content_length: declared length; None when chunked or ended by the connection's end.
    :ivar memo: as in `RequestHead`, once the server has sent it a second time; to anybody.
    """

    status: int
    reason: bytes
    version: tuple[int, int]
    fields: Fields
    content_length: int | None = None
    chunked: bool = False
    memo: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def came_again(self) -> None:
        """Have what is worked out from now on kept."""
        if self.memo is None:
            object.__setattr__(self, "memo", {})


@dataclass(frozen=True, slots=True)
class Peer:
    """
    The other end of a client connection.

    :ivar address: numeric address of the client after PROXY protocol and trusted proxies; empty
        for unix sockets.
    :ivar secure: the client's own connection was TLS (here, or at a trusted proxy).
    :ivar port: client's port, 0 when unknown.
    :ivar prefix: what a trusted proxy has taken off the front of the path, ``/tools``; to be put
        before paths that the client is told.
    """

    address: str
    secure: bool
    port: int = 0
    prefix: bytes = b""
