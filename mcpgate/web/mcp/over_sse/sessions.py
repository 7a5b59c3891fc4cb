"""
Sessions of HTTP+SSE servers: as those of stdio servers, over an event stream in place of pipes.

Everything said to such a server goes over the one stream of its owner, opened with the key of
whoever needs it first; so the fields of a single client's request are not passed on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typing_extensions import override
from zope.interface import implementer

from mcpgate.gate.sessions import Session
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import ILease
from mcpgate.model import Caller, ServerSpec
from mcpgate.upstream.sse import SSEUpstream
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.web.mcp.over_stdio.sessions import StdioSpeaker


@implementer(ILease)
class StreamLease:
    """
    See `ILease`: a use of an instance, and of the conversation that is open with it.

    :ivar upstream: that conversation.
    """

    __slots__ = ("_lease", "instance", "upstream")

    def __init__(self, lease: ILease, conversation: StdioUpstream) -> None:
        self.instance: Any = lease.instance
        self.upstream = conversation
        self._lease = lease

    def touch(self) -> None:
        """See `ILease.touch`."""
        self._lease.touch()

    def make_passive(self, stopped: Callable[[], None]) -> None:
        """See `ILease.make_passive`."""
        self._lease.make_passive(stopped)

    def release(self) -> None:
        """See `ILease.release`."""
        self._lease.release()


class SSESpeaker(StdioSpeaker):
    """See `mcpgate.web.mcp.post.Speaker`."""

    def __init__(self, *, forwarding: Forwarding, **common: Any) -> None:
        super().__init__(**common)
        self._forwarding = forwarding

    @override
    def ready(self, spec: ServerSpec, session: Session) -> ILease | None:
        lease = super().ready(spec, session)
        if lease is None:
            return None
        upstream: SSEUpstream = lease.upstream
        if upstream.current is None:
            lease.release()
            return None
        return StreamLease(lease, upstream.current)

    @override
    async def lease(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        lease = await super().lease(spec, caller, session)
        upstream: SSEUpstream = lease.upstream
        try:
            conversation = upstream.open(
                self._forwarding.own_stream(spec, caller),
                self._forwarding.own_request(spec, caller),
            )
        except BaseException:
            lease.release()
            raise
        return StreamLease(lease, conversation)
