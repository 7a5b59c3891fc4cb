"""
Sessions of HTTP servers: each client session bound to one session of the server.

The server's session id stays here.  When the server forgot the session, or another instance
answers now, the handshake is replayed silently and the call is sent again if it surely never ran.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import BackendDied, BackendUnavailable, GateError
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import IHTTPUpstream, IInbound, IInstancePool, ILease
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response, encode
from mcpgate.model import Caller, Isolation, Owner, ServerSpec
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.endpoint import SESSION, VERSION, Post, owner_of
from mcpgate.web.http_call import HTTPCall
from mcpgate.web.http_fetch import Fetched, fetch
from mcpgate.web.http_listen import HTTPListen
from mcpgate.web.refusal import refuse_message, respond_message
from mcpgate.web.session_state import agreed, public, remember

log = Logger()


class HTTPLink:
    """
    What a session keeps while the gate runs.

    :ivar ids: JSON-RPC ids in work: a second one in work gets an id of the gate's towards the
        server, since servers key their streams by id.
    :ivar connecting: those waiting for the handshake that is under way.
    """

    __slots__ = ("connecting", "ids", "listen")

    def __init__(self) -> None:
        self.ids: set[int | str] = set()
        self.connecting: list[Deferred[None]] | None = None
        self.listen: HTTPListen | None = None

    def leave(self, _: object = None) -> None:
        """Close the stream: the session is over."""
        self.close_stream()

    def close_stream(self) -> None:
        """End the stream politely; the client may open another."""
        if self.listen is not None:
            self.listen.stop()


class HTTPSpeaker:
    """See `mcpgate.web.endpoint.Speaker`."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        pool: IInstancePool,
        sessions: SessionTable,
        wheel: DeadlineWheel,
        forwarding: Forwarding,
        keepalive_s: float,
        forget: Callable[[Owner], object],
    ) -> None:
        self.clock = clock
        self.pool = pool
        self.sessions = sessions
        self.wheel = wheel
        self.forwarding = forwarding
        self.keepalive_s = keepalive_s
        self._forget = forget
        self._minted = 0

    # --- Speaker ----------------------------------------------------------------------------

    def initialize(self, post: Post, session: Session) -> None:
        """See `Speaker.initialize`."""
        session.in_use += 1
        request_id = post.requests[0].id

        def done(result: object) -> None:
            session.in_use -= 1
            post.release()
            if isinstance(result, Failure):
                self.sessions.end(session, "initialize failed")
                error = public(result, post.inbound)
                refuse_message(post.inbound, error, request_id, live=False)

        self._initialize(post, session).addBoth(done)

    def call(self, post: Post, session: Session) -> None:
        """See `Speaker.call`."""
        HTTPCall(self, post, session, self.link(session, post.spec)).begin()

    def tell(self, post: Post, session: Session) -> None:
        """See `Speaker.tell`."""
        record = session.record
        if any(
            isinstance(m, Notification) and m.method == "notifications/initialized"
            for m in post.others
        ):
            record.initialized = True
            self.sessions.changed(session)
        lease = self.connected(post.spec, post.caller, session)
        if lease is None:
            # Nothing runs that could care; the handshake is replayed when something does.
            post.inbound.respond(202, [], b"")
            return

        def done(result: object) -> None:
            lease.release()
            if isinstance(result, Fetched) and result.status >= 400:
                log.debug("Server refused a notification: {status}", status=result.status)
            if not post.inbound.finished:
                post.inbound.respond(202, [], b"")

        fields = self.fields(post.inbound, post.caller, post.spec, session)
        self._send(lease, post.spec, session, fields, post.body).addBoth(done)

    def listen(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        session: Session,
        release: Callable[[], None],
    ) -> None:
        """See `Speaker.listen`."""
        session.in_use += 1

        def over() -> None:
            release()
            session.in_use -= 1

        HTTPListen(self, inbound, caller, spec, session, self.link(session, spec), over).begin()

    def end(self, caller: Caller, spec: ServerSpec, session: Session) -> None:
        """See `Speaker.end`."""
        lease = self.connected(spec, caller, session)
        if lease is None or not session.record.upstream_session:
            return
        upstream: IHTTPUpstream = lease.upstream
        ended = fetch(
            upstream,
            "DELETE",
            self.target(spec),
            self._own_fields(spec, session, caller),
            b"",
            pool=caller.principal,
            timeout_s=5.0,
        )
        ended.addErrback(lambda _: None).addBoth(lambda _: lease.release())

    # --- The binding to the server's session ---------------------------------------------------

    def link(self, session: Session, spec: ServerSpec) -> HTTPLink:
        """Give the session's link, made when it is first needed."""
        link = session.extras
        if link is None:
            link = session.extras = HTTPLink()
            session.on_end.append(link.leave)
            if spec.isolation is Isolation.PER_SESSION:
                key = session.record.key
                owner = owner_of(spec, key.principal, key.session_id)
                session.on_end.append(lambda _: self._forget(owner))
        assert isinstance(link, HTTPLink)
        return link

    def connected(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease | None:
        """Lease the instance that knows the session, at once; None when `connect` is needed."""
        owner = owner_of(spec, caller.principal, session.record.key.session_id)
        lease = self.pool.ready(spec, owner)
        if lease is None:
            return None
        if self._knows(lease, spec, session):
            return lease
        lease.release()
        return None

    def _knows(self, lease: ILease, spec: ServerSpec, session: Session) -> bool:
        given_by = session.record.upstream_instance
        # A remote server outlives the gate: what it said to an earlier life still holds.
        return given_by == lease.instance.instance_id or (
            spec.runtime == "remote" and bool(given_by)
        )

    def forgotten(self, session: Session) -> None:
        """Note that the server does not know the session any more."""
        session.record.upstream_instance = ""
        session.record.upstream_session = ""

    @deferred
    async def connect(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        """Lease an instance, started if need be, that knows the session; handshake if need be."""
        owner = owner_of(spec, caller.principal, session.record.key.session_id)
        lease = self.pool.ready(spec, owner) or await self.pool.lease(spec, owner, caller)
        try:
            link = self.link(session, spec)
            while not self._knows(lease, spec, session):
                if link.connecting is not None:
                    turn: Deferred[None] = Deferred()
                    link.connecting.append(turn)
                    await turn
                    continue
                link.connecting = []
                try:
                    await self._handshake(lease, spec, caller, session)
                finally:
                    waiting, link.connecting = link.connecting, None
                    for waiter in waiting:
                        self.clock.callLater(0, waiter.callback, None)
            if link.listen is not None:
                link.listen.attach(lease)
        except BaseException:
            lease.release()
            raise
        return lease

    async def _handshake(
        self, lease: ILease, spec: ServerSpec, caller: Caller, session: Session
    ) -> dict[str, object]:
        params = json.loads(session.record.initialize_params)
        result = await self._shake(lease, spec, caller, session, params)
        record = session.record
        fields = self._own_fields(spec, session, caller)
        replay: list[Message] = (
            [Notification("notifications/initialized")] if record.initialized else []
        )
        if record.log_level:
            replay.append(Request("mcpgate-log", "logging/setLevel", {"level": record.log_level}))
        for number, uri in enumerate(record.subscriptions):
            replay.append(Request(f"mcpgate-sub-{number}", "resources/subscribe", {"uri": uri}))
        for message in replay:
            await self._send(lease, spec, session, fields, encode(message))
        return result

    async def _shake(
        self,
        lease: ILease,
        spec: ServerSpec,
        caller: Caller,
        session: Session,
        params: dict[str, object],
    ) -> dict[str, object]:
        """Send ``initialize``; keep the server's session id.  Only a 2xx answer's id counts."""
        record = session.record
        record.upstream_session = ""
        request = Request("mcpgate-init", "initialize", params)
        fields = [
            (name, value)
            for name, value in self._own_fields(spec, session, caller)
            if name != VERSION
        ]
        answer = await self._send(
            lease, spec, session, fields, encode(request), timeout_s=spec.lifetime.start_s
        )
        response = answer.response_to(request.id)
        if isinstance(response, ErrorResponse):
            raise RefusedInitialize(response)
        if not 200 <= answer.status < 300 or not isinstance(response, Response):
            raise BackendUnavailable(
                f"The server answered initialize with HTTP {answer.status}.",
                data={"status": answer.status},
            )
        record.upstream_session = (answer.fields.get(SESSION) or b"").decode("latin-1")
        record.upstream_instance = lease.instance.instance_id
        self.sessions.changed(session)
        return response.result

    @deferred
    async def _initialize(self, post: Post, session: Session) -> None:
        self.link(session, post.spec)
        request = post.requests[0]
        try:
            result = await self._first_handshake(post, session)
        except RefusedInitialize as refused:
            self.sessions.end(session, "initialize refused")
            said = refused.response
            respond_message(
                post.inbound, ErrorResponse(request.id, said.code, said.message, said.data)
            )
            return
        session.record.revision = agreed(session.record.revision, result.get("protocolVersion"))
        self.sessions.changed(session)
        session_id = session.record.key.session_id.encode("ascii")
        respond_message(post.inbound, Response(request.id, result), [(SESSION, session_id)])

    async def _first_handshake(self, post: Post, session: Session) -> dict[str, object]:
        owner = owner_of(post.spec, post.caller.principal, session.record.key.session_id)
        params = post.requests[0].params or {}
        last_try = False
        while True:
            lease = self.pool.ready(post.spec, owner) or await self.pool.lease(
                post.spec, owner, post.caller
            )
            try:
                return await self._shake(lease, post.spec, post.caller, session, params)
            except BackendDied:
                # An initialize that got no answer left nothing a client could miss.
                if last_try:
                    raise
            finally:
                lease.release()
            last_try = True
            await self.pause()

    def remember(self, session: Session, request: Request) -> None:
        """Keep what has to be replayed when the server forgets the session."""
        if remember(session.record, request):
            self.sessions.changed(session)

    # --- Requests of our own --------------------------------------------------------------------

    def pause(self) -> Deferred[None]:
        """Give a death the moment it needs to be noticed before trying again."""
        return deferLater(self.clock, 0.2, lambda: None)

    def mint(self) -> int:
        """Make a JSON-RPC id no client of the session uses at the moment, in practice."""
        self._minted += 1
        return 1 << 40 | self._minted

    def notify(
        self,
        lease: ILease,
        spec: ServerSpec,
        caller: Caller,
        session: Session,
        message: Notification,
    ) -> None:
        """Send a notification of ours; what comes of it does not matter."""
        fields = self._own_fields(spec, session, caller)
        self._send(lease, spec, session, fields, encode(message)).addErrback(
            lambda failure: log.debug("Notification not delivered: {why}", why=failure.value)
        )

    def target(self, spec: ServerSpec) -> bytes:
        """Give the request target of the server's MCP endpoint."""
        return _target(spec.url, spec.mcp_path)

    def fields(
        self, inbound: IInbound, caller: Caller, spec: ServerSpec, session: Session
    ) -> list[tuple[bytes, bytes]]:
        """Give the fields of a client's message towards the server."""
        fields = self.forwarding.endpoint_request(inbound.head, inbound.peer, spec, caller)
        return fields + self._session_fields(session)

    def _own_fields(
        self, spec: ServerSpec, session: Session, caller: Caller
    ) -> list[tuple[bytes, bytes]]:
        fields = self.forwarding.own_request(spec, caller)
        return fields + self._session_fields(session)

    def _session_fields(self, session: Session) -> list[tuple[bytes, bytes]]:
        record = session.record
        fields = [(VERSION, record.revision.encode("ascii"))]
        if record.upstream_session:
            fields.append((SESSION, record.upstream_session.encode("latin-1")))
        return fields

    def _send(
        self,
        lease: ILease,
        spec: ServerSpec,
        session: Session,
        fields: list[tuple[bytes, bytes]],
        body: bytes,
        timeout_s: float | None = None,
    ) -> Deferred[Fetched]:
        upstream: IHTTPUpstream = lease.upstream
        return fetch(
            upstream,
            "POST",
            self.target(spec),
            fields,
            body,
            pool=session.record.key.principal,
            timeout_s=timeout_s or spec.call_timeout_s,
        )


@lru_cache(maxsize=1024)
def _target(url: str, mcp_path: str) -> bytes:
    if not url:
        return mcp_path.encode("ascii")
    parts = urlsplit(url)
    target = parts.path or "/"
    return (f"{target}?{parts.query}" if parts.query else target).encode("ascii")


class RefusedInitialize(GateError):  # noqa: N818 - as its siblings in errors.py
    """The server answered ``initialize`` with a JSON-RPC error, which is the client's answer."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.message)
        self.response = response
