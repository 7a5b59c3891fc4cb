"""
Sessions of stdio servers: many client sessions of one owner on one child.

The child is shaken hands with once; each session joins it when it first calls, and again, with the
handshake, log level and subscriptions replayed, after the child or the gate was restarted.  The
client notices nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from typing_extensions import override
from zope.interface import implementer

from mcpgate.gate.sessions import Session
from mcpgate.interfaces import IInbound, ILease, ISessionPeer
from mcpgate.mcp.jsonrpc import Message, Notification
from mcpgate.mcp.methods import CANCELLED, INITIALIZED, LIST_CHANGED
from mcpgate.mcp.revisions import LATEST_LEGACY
from mcpgate.model import Caller, Isolation, ServerSpec
from mcpgate.timing.deferreds import deferred
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.web.mcp.over_stdio.call import StdioPassage
from mcpgate.web.mcp.post import Post
from mcpgate.web.mcp.speaking import SpeakerBase
from mcpgate.web.mcp.stream_link import StreamLink

log = Logger()


@implementer(ISessionPeer)
class StdioLink(StreamLink):
    """
    What a session keeps while the gate runs: its stream, and the child it has joined.

    :ivar upstream: the child joined; None before the first call and after the child ended.
    :ivar connecting: calls that wait for a child.
    :param changed: called when the child says that its lists are others now.
    """

    __slots__ = ("_changed", "capabilities", "connecting", "upstream")

    def __init__(self, capabilities: dict[str, object], changed: Callable[[], None]) -> None:
        super().__init__()
        self.capabilities = capabilities
        self._changed = changed
        self.upstream: StdioUpstream | None = None
        self.connecting: dict[StdioPassage, None] = {}

    def unsolicited(self, message: Message) -> None:
        """See `ISessionPeer.unsolicited`."""
        if isinstance(message, Notification) and message.method in LIST_CHANGED:
            self._changed()
        self.say(message)

    def cancel_connecting(self, request_id: object) -> bool:
        """Take a call back that waits for its child; False when there is none, or several."""
        found = [
            call
            for call in self.connecting
            if call.request.id == request_id and type(call.request.id) is type(request_id)
        ]
        if len(found) != 1:
            return False
        found[0].cancel()
        return True

    def leave(self, _: str) -> None:
        """Let go of the child and the stream: the session is over."""
        for call in tuple(self.connecting):
            call.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.leave(self)
        self.close_stream()


class StdioSpeaker(SpeakerBase):
    """See `mcpgate.web.mcp.post.Speaker`."""

    # --- Speaker ----------------------------------------------------------------------------

    @override
    @deferred
    async def open(self, post: Post, session: Session) -> dict[str, object]:
        lease = await self.lease(post.spec, post.caller, session)
        try:
            return await self._join(post.spec, session, lease)
        finally:
            lease.release()

    @override
    def call(self, post: Post, session: Session) -> None:
        if self.answered_cold(post, session):
            return
        try:
            self._pass_on(post, session)
        except BaseException:
            for _ in post.requests:
                post.release()
            raise
        answer = self.answer(post, session=session)
        for request in post.requests:
            StdioPassage(self, post, session, request, answer).begin()

    def tell(self, post: Post, session: Session) -> None:
        """See `Speaker.tell`."""
        self._pass_on(post, session)
        post.inbound.respond(202, [], b"")

    def listen(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        session: Session,
        release: Callable[[], None],
    ) -> None:
        """See `Speaker.listen`."""
        if self.resumed(inbound, session, release):
            return
        if not self.stand(inbound, session, self.link(session, spec), release):
            return
        running = self.ready(spec, session)
        if running is not None:
            self._join_running(running, spec, session)

    def end(self, caller: Caller, spec: ServerSpec, session: Session) -> None:
        """See `Speaker.end`; the link leaves when the table ends the session."""

    # --- Links ------------------------------------------------------------------------------

    def link(self, session: Session, spec: ServerSpec) -> StdioLink:
        """Give the session's link, made when it is first needed."""
        link = session.extras
        if not isinstance(link, StdioLink):
            self.unbind(session)
            link = StdioLink(session.capabilities, partial(self.lists_changed, spec, session))
            self.bind(session, spec, link)
        return link

    def joined(self, spec: ServerSpec, session: Session) -> ILease | None:
        """Lease the child the session has joined, at once; None when it has to `connect`."""
        lease = self.ready(spec, session)
        if lease is None:
            return None
        link = session.extras
        if isinstance(link, StdioLink) and link.upstream is lease.upstream:
            return lease
        lease.release()
        return None

    @override
    def answering(self, spec: ServerSpec, session: Session) -> ILease | None:
        lease = self.ready(spec, session)
        if lease is None:
            return None
        upstream: StdioUpstream = lease.upstream
        if upstream.initialize_result is None:
            # There is a process, which may take long yet until it reads anything.
            lease.release()
            return None
        return lease

    @override
    def greeting(self, session: Session) -> dict[str, object] | None:
        link = session.extras
        upstream = link.upstream if isinstance(link, StdioLink) else None
        return None if upstream is None else upstream.initialize_result

    @override
    @deferred
    async def connect(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        lease = await self.lease(spec, caller, session)
        try:
            await self._join(spec, session, lease)
        except BaseException:
            lease.release()
            raise
        return lease

    async def _join(self, spec: ServerSpec, session: Session, lease: ILease) -> dict[str, object]:
        await self.check_era(spec, session, lease)
        link = self.link(session, spec)
        upstream: StdioUpstream = lease.upstream
        record = session.record
        params = json.loads(record.initialize_params)
        # Sessions of other revisions share the handshake, so it asks for the newest.
        own = spec.isolation is Isolation.PER_SESSION
        params["protocolVersion"] = record.revision if own else LATEST_LEGACY.name
        result: dict[str, object] = await upstream.handshake(params, spec.lifetime.start_s)
        self.shaken(spec, result)
        if link.upstream is not upstream and not session.ended:
            link.upstream = upstream
            upstream.join(link)
            upstream.restore(link, log_level=record.log_level, subscriptions=record.subscriptions)
            record.upstream_instance = lease.instance.instance_id
            self.sessions.changed(session)
        return result

    def _join_running(self, lease: ILease, spec: ServerSpec, session: Session) -> None:
        """Let a session that only listens hear a child that others use."""
        joining = Deferred.fromCoroutine(self._join(spec, session, lease))
        joining.addErrback(
            lambda failure: log.debug("A session could not join: {why}", why=failure.value)
        )
        joining.addBoth(lambda _: lease.release())

    def _pass_on(self, post: Post, session: Session) -> None:
        """
        Hand notifications and responses to the child, if it runs: none is worth a start.

        :raises Overloaded: the child does not read.
        """
        if not post.others:
            return
        link = self.link(session, post.spec)
        lease = self.joined(post.spec, session)
        try:
            for message in post.others:
                self._pass(message, session, link, lease)
        finally:
            if lease is not None:
                lease.release()

    def _pass(
        self, message: Message, session: Session, link: StdioLink, lease: ILease | None
    ) -> None:
        if not isinstance(message, Notification):
            if lease is not None:
                lease.upstream.answer(link, message)
        elif message.method == INITIALIZED:
            # The child heard it from the gate, right after its handshake.
            session.record.initialized = True
            self.sessions.changed(session)
        elif message.method == CANCELLED and link.cancel_connecting(
            (message.params or {}).get("requestId")
        ):
            pass
        elif lease is not None:
            lease.upstream.notify(link, message)
