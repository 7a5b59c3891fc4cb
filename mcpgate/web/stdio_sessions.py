"""
Sessions of stdio servers: many client sessions of one owner on one child.

The child is shaken hands with once; each session joins it when it first calls, and again, with the
handshake, log level and subscriptions replayed, after the child or the gate was restarted.  The
client notices nothing of it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendDied, GateError
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.interfaces import IInbound, IInstancePool, ILease, ISessionPeer
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import Message, Notification, Request, Response, encode
from mcpgate.mcp.methods import INITIALIZED, is_repeatable
from mcpgate.mcp.revisions import LATEST_LEGACY
from mcpgate.model import Caller, Isolation, Owner, ServerSpec
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.stdio import StdioUpstream, was_sent
from mcpgate.upstream.stdio_handshake import InitializeRefused
from mcpgate.web.answer import Answer, CallSink
from mcpgate.web.endpoint import SESSION, Post, owner_of
from mcpgate.web.refusal import refuse_message
from mcpgate.web.session_state import agreed, public, remember, with_id
from mcpgate.web.standing import StandingStream

log = Logger()

# A server may speak right after the handshake, before the client has opened its stream.
BACKLOG_MESSAGES = 32
BACKLOG_BYTES = 64 * 1024


@implementer(ISessionPeer)
class StdioLink:
    """
    What a session keeps while the gate runs: its stream, and the child it has joined.

    :ivar upstream: the child joined; None before the first call and after the child ended.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "capabilities", "stream", "upstream")

    def __init__(self, capabilities: dict[str, object]) -> None:
        self.capabilities = capabilities
        self.upstream: StdioUpstream | None = None
        self.stream: StandingStream | None = None
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0

    def unsolicited(self, message: Message) -> None:
        """See `ISessionPeer.unsolicited`."""
        event = sse_event(encode(message))
        if self.stream is not None:
            self.stream.send(event)
            return
        self._backlog.append(event)
        self._backlog_bytes += len(event)
        while len(self._backlog) > BACKLOG_MESSAGES or self._backlog_bytes > BACKLOG_BYTES:
            self._backlog_bytes -= len(self._backlog.popleft())

    def opened(self, stream: StandingStream) -> None:
        """Take the stream of a GET; an older one is ended."""
        if self.stream is not None:
            self.stream.close()
        self.stream = stream
        while self._backlog:
            stream.send(self._backlog.popleft())
        self._backlog_bytes = 0

    def close_stream(self) -> None:
        """End the stream politely; the client may open another."""
        if self.stream is not None:
            self.stream.close()

    def leave(self, _: object = None) -> None:
        """Let go of the child and the stream: the session is over."""
        if self.upstream is not None:
            self.upstream.leave(self)
            self.upstream = None
        if self.stream is not None:
            self.stream.close()


class _StdioCall:
    """One request on its way through a child, with at most one new try (R35)."""

    __slots__ = (
        "_answer",
        "_lease",
        "_link",
        "_post",
        "_request",
        "_retried",
        "_session",
        "_sink",
        "_speaker",
    )

    def __init__(
        self,
        speaker: StdioSpeaker,
        post: Post,
        session: Session,
        request: Request,
        answer: Answer,
    ) -> None:
        self._speaker = speaker
        self._post = post
        self._session = session
        self._request = request
        self._answer = answer
        self._link = speaker.link(session, post.spec)
        self._lease: ILease | None = None
        self._retried = False
        self._sink = CallSink(answer, request.id, self._ended)

    def begin(self) -> None:
        post = self._post
        lease = self._speaker.joined(post.spec, post.caller, self._session)
        if lease is not None:
            self._send(lease)
            return
        connecting = self._speaker.connect(post.spec, post.caller, self._session)
        connecting.addCallback(self._send).addErrback(self._not_connected)

    def _send(self, lease: ILease) -> None:
        self._lease = lease
        spec = self._post.spec
        upstream: StdioUpstream = lease.upstream
        upstream.call(
            self._link,
            self._request,
            self._sink,
            timeout_s=spec.call_timeout_s,
            max_s=spec.call_timeout_max_s,
        )

    def _not_connected(self, failure: Failure) -> None:
        self._sink.fail(public(failure, self._post.inbound))

    def _ended(self, error: GateError | None) -> bool:
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if isinstance(error, BackendDied) and self._may_retry(error):
            self._retried = True
            # In the next turn, when everybody has heard that the child is gone.
            self._speaker.clock.callLater(0, self.begin)
            return True
        self._post.release()
        self._session.in_use -= 1
        if error is None:
            self._speaker.remember(self._session, self._request)
        return False

    def _may_retry(self, error: BackendDied) -> bool:
        if self._retried or self._answer.over:
            return False
        repeatable = is_repeatable(self._request.method) and not self._sink.delivered
        return repeatable or not was_sent(error)


class StdioSpeaker:
    """See `mcpgate.web.endpoint.Speaker`."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        pool: IInstancePool,
        sessions: SessionTable,
        wheel: DeadlineWheel,
        keepalive_s: float,
        forget: Callable[[Owner], object],
    ) -> None:
        self.clock = clock
        self._pool = pool
        self._sessions = sessions
        self._wheel = wheel
        self._keepalive_s = keepalive_s
        self._forget = forget

    # --- Speaker ----------------------------------------------------------------------------

    def initialize(self, post: Post, session: Session) -> None:
        """See `Speaker.initialize`."""
        session.in_use += 1
        answer = self._answer(post, [(SESSION, session.record.key.session_id.encode("ascii"))])
        request_id = post.requests[0].id

        def done(result: object) -> None:
            session.in_use -= 1
            post.release()
            if isinstance(result, Failure):
                error = public(result, post.inbound)
                self._sessions.end(session, "initialize failed")
                if isinstance(error, InitializeRefused):
                    answer.complete(with_id(error.response, request_id))
                elif post.inbound.started:
                    answer.fail(error, request_id)
                else:
                    refuse_message(post.inbound, error, request_id, live=False)

        self._initialize(post, session, answer).addBoth(done)

    def call(self, post: Post, session: Session) -> None:
        """See `Speaker.call`."""
        answer = self._answer(post, [])
        session.in_use += len(post.requests)
        self._pass_on(post, session)
        for request in post.requests:
            _StdioCall(self, post, session, request, answer).begin()

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
        link = self.link(session, spec)

        def ended(stream: StandingStream) -> None:
            release()
            session.in_use -= 1
            if link.stream is stream:
                link.stream = None

        session.in_use += 1
        link.opened(
            StandingStream(inbound, wheel=self._wheel, keepalive_s=self._keepalive_s, ended=ended)
        )

    def end(self, caller: Caller, spec: ServerSpec, session: Session) -> None:
        """See `Speaker.end`; the link leaves when the table ends the session."""

    # --- Links ------------------------------------------------------------------------------

    def link(self, session: Session, spec: ServerSpec) -> StdioLink:
        """Give the session's link, made when it is first needed."""
        link = session.extras
        if link is None:
            link = session.extras = StdioLink(session.capabilities)
            session.on_end.append(link.leave)
            if spec.isolation is Isolation.PER_SESSION:
                key = session.record.key
                owner = owner_of(spec, key.principal, key.session_id)
                session.on_end.append(lambda _: self._forget(owner))
        assert isinstance(link, StdioLink)
        return link

    def joined(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease | None:
        """Lease the child the session has joined, at once; None when it has to `connect`."""
        owner = owner_of(spec, caller.principal, session.record.key.session_id)
        lease = self._pool.ready(spec, owner)
        if lease is None:
            return None
        link = session.extras
        if isinstance(link, StdioLink) and link.upstream is lease.upstream:
            return lease
        lease.release()
        return None

    @deferred
    async def connect(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        """Lease a child, started if need be, and join it."""
        owner = owner_of(spec, caller.principal, session.record.key.session_id)
        lease = self._pool.ready(spec, owner) or await self._pool.lease(spec, owner, caller)
        try:
            await self._join(spec, session, lease)
        except BaseException:
            lease.release()
            raise
        return lease

    async def _join(self, spec: ServerSpec, session: Session, lease: ILease) -> dict[str, object]:
        link = self.link(session, spec)
        upstream: StdioUpstream = lease.upstream
        record = session.record
        params = json.loads(record.initialize_params)
        if spec.isolation is not Isolation.PER_SESSION:
            # Sessions of other revisions will share this handshake: ask for the newest.
            params["protocolVersion"] = LATEST_LEGACY.name
        result: dict[str, object] = await upstream.handshake(params, spec.lifetime.start_s)
        if link.upstream is not upstream:
            link.upstream = upstream
            upstream.join(link)
            upstream.restore(link, log_level=record.log_level, subscriptions=record.subscriptions)
        return result

    @deferred
    async def _initialize(self, post: Post, session: Session, answer: Answer) -> None:
        owner = owner_of(post.spec, post.caller.principal, session.record.key.session_id)
        lease = self._pool.ready(post.spec, owner) or await self._pool.lease(
            post.spec, owner, post.caller
        )
        try:
            result = await self._join(post.spec, session, lease)
        finally:
            lease.release()
        session.record.revision = agreed(session.record.revision, result.get("protocolVersion"))
        session.record.upstream_instance = lease.instance.instance_id
        self._sessions.changed(session)
        answer.complete(
            Response(post.requests[0].id, {**result, "protocolVersion": session.record.revision})
        )

    # --- What the session must remember -------------------------------------------------------

    def remember(self, session: Session, request: Request) -> None:
        """Keep what has to be replayed to another child."""
        if remember(session.record, request):
            self._sessions.changed(session)

    def _pass_on(self, post: Post, session: Session) -> None:
        """
        Hand notifications and responses to the child, if it runs: none is worth a start.

        :raises Overloaded: the child does not read.
        """
        lease = self.joined(post.spec, post.caller, session) if post.others else None
        try:
            for message in post.others:
                if isinstance(message, Notification) and message.method == INITIALIZED:
                    session.record.initialized = True
                    self._sessions.changed(session)
                elif lease is None:
                    continue
                elif isinstance(message, Notification):
                    lease.upstream.notify(self.link(session, post.spec), message)
                else:
                    lease.upstream.answer(self.link(session, post.spec), message)
        finally:
            if lease is not None:
                lease.release()

    def _answer(self, post: Post, fields: list[tuple[bytes, bytes]]) -> Answer:
        return Answer(
            post.inbound,
            wheel=self._wheel,
            keepalive_s=self._keepalive_s,
            accepts=post.accepts,
            expected=len(post.requests),
            batch=post.batch,
            fields=fields,
            completed=lambda: None,
        )
