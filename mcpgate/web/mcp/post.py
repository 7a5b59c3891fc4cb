"""What the MCP endpoint hands to the speakers of the transports, and what it asks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from mcpgate.gate.sessions import Session
from mcpgate.interfaces import IInbound, ILease
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.model import Caller, Isolation, Owner, Principal, ServerSpec

SESSION = b"mcp-session-id"
VERSION = b"mcp-protocol-version"


def owner_of(spec: ServerSpec, principal: Principal, session_id: str) -> Owner:
    """Tell whose instance serves this session."""
    if spec.isolation is Isolation.SHARED:
        return Owner(Isolation.SHARED)
    if spec.isolation is Isolation.PER_KEY:
        return Owner(Isolation.PER_KEY, principal.key_digest)
    digest = blake2b(session_id.encode(), digest_size=16).hexdigest()
    return Owner(Isolation.PER_SESSION, f"{principal.key_digest}/{digest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """
    One POST, checked and decoded, on its way to a speaker.

    :ivar body: the bytes as received.
    :ivar requests: the requests in it that want answers, in order.
    :ivar others: notifications and responses in it.
    :ivar batch: it was an array.
    :ivar release: called once for each request when it is answered: gives its slot back.
    """

    inbound: IInbound
    caller: Caller
    spec: ServerSpec
    body: bytes
    requests: tuple[Request, ...]
    others: tuple[Notification | Response | ErrorResponse, ...]
    batch: bool
    accepts: tuple[bool, bool]
    release: Callable[[], None]


class Speaker(Protocol):
    """How sessions are carried over one transport."""

    def initialize(self, post: Post, session: Session) -> None:
        """Answer ``initialize`` for a session just made; end the session if that fails."""

    def call(self, post: Post, session: Session) -> None:
        """Answer a POST that holds at least one request."""

    def tell(self, post: Post, session: Session) -> None:
        """Take notifications and responses; answer 202."""

    def listen(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        session: Session,
        release: Callable[[], None],
    ) -> None:
        """Answer GET with the session's event stream; ``release`` gives the stream's slot back."""

    def ready(self, spec: ServerSpec, session: Session) -> ILease | None:
        """Lease the session's instance if it runs."""

    def end(self, caller: Caller, spec: ServerSpec, session: Session) -> None:
        """Let the server know, if it cares, that the session is over."""
