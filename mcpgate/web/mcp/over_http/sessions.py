"""
Sessions of HTTP servers: each client session bound to one session of the server.

The server's session id stays here.  When the server forgot the session, or another instance
answers now, the handshake is replayed silently and the call is sent again if it surely never ran.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.errors import BackendDied, BackendUnavailable
from mcpgate.gate.sessions import Session
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import IInbound, ILease
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response, encode
from mcpgate.mcp.methods import CANCELLED, INITIALIZE, INITIALIZED, SET_LEVEL, SUBSCRIBE
from mcpgate.model import Caller, ServerSpec
from mcpgate.timing.deferreds import deferred
from mcpgate.upstream.stdio_handshake import InitializeRefused
from mcpgate.web.mcp.batches import Batch, tell_each
from mcpgate.web.mcp.over_http.call import HTTPCall
from mcpgate.web.mcp.over_http.fetch import Fetched, fetch, session_is_lost, too_late
from mcpgate.web.mcp.over_http.link import HTTPLink
from mcpgate.web.mcp.over_http.listen import HTTPListen
from mcpgate.web.mcp.post import SESSION, VERSION, Post
from mcpgate.web.mcp.speaking import SpeakerBase

log = Logger()

FAREWELL_S = 5.0

Fields = list[tuple[bytes, bytes]]


class HTTPSpeaker(SpeakerBase):
    """See `mcpgate.web.mcp.post.Speaker`."""

    def __init__(self, *, forwarding: Forwarding, **common: Any) -> None:
        super().__init__(**common)
        self._forwarding = forwarding
        self._minted = 0

    # --- Speaker ----------------------------------------------------------------------------

    @override
    @deferred
    async def open(self, post: Post, session: Session) -> dict[str, object]:
        link = self.link(session, post.spec, post.caller)
        last_try = False
        while True:
            lease = await self.lease(post.spec, post.caller, session)
            try:
                return await self._shake(lease, post.spec, post.caller, session, link)
            except BackendDied:
                # An initialize that got no answer left nothing a client could miss.
                if last_try:
                    raise
            finally:
                lease.release()
            last_try = True
            await self.pause()

    @override
    def call(self, post: Post, session: Session) -> None:
        if self.answered_cold(post, session):
            return
        if post.batch:
            Batch(
                post,
                self.answer(post),
                tell=lambda single: self.tell(single, session),
                call=lambda single: self.call(single, session),
            ).begin()
            return
        HTTPCall(self, post, session, self.link(session, post.spec, post.caller)).begin()

    def tell(self, post: Post, session: Session) -> None:
        """See `Speaker.tell`."""
        if post.batch:
            tell_each(post, lambda single: self.tell(single, session))
            post.inbound.respond(202, [], b"")
            return
        record = session.record
        (message,) = post.others
        method = message.method if isinstance(message, Notification) else ""
        if method == INITIALIZED:
            if record.initialized:
                # The server heard it already: from the gate, or from another client.
                post.inbound.respond(202, [], b"")
                return
            record.initialized = True
            self.sessions.changed(session)
        link = self.link(session, post.spec, post.caller)
        body = post.body
        if isinstance(message, Notification) and method == CANCELLED:
            body = self._cancelled(message, link)
        # While nothing runs nobody could care; the handshake is replayed when something does.
        lease = self.connected(post.spec, session) if body else None
        if lease is None:
            post.inbound.respond(202, [], b"")
            return
        shakes = link.shakes

        def done(result: object) -> None:
            lease.release()
            if isinstance(result, Failure):
                log.debug("Message not delivered: {why}", why=result.value)
            elif isinstance(result, Fetched) and result.status >= 400:
                log.debug("Server refused a message: {status}", status=result.status)
                if session_is_lost(result.status, result.body):
                    self.forgotten(session, link, shakes)
            if not post.inbound.finished:
                post.inbound.respond(202, [], b"")

        fields = self.fields(post.inbound, post.caller, post.spec, session)
        self._send(lease, post.spec, session, fields, body).addBoth(done)

    def _cancelled(self, message: Notification, link: HTTPLink) -> bytes:
        """
        End the call that is cancelled; give what the server has to be told, perhaps nothing.

        The server knows it by the id it had on the way up.
        """
        params = message.params or {}
        call = link.call_of(params.get("requestId"))
        upstream_id = call.cancelled() if call is not None else None
        if upstream_id is None:
            return b""
        return encode(Notification(CANCELLED, {**params, "requestId": upstream_id}))

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

        link = self.link(session, spec, caller)
        HTTPListen(self, inbound, caller, spec, session, link, over).begin()

    def end(self, caller: Caller, spec: ServerSpec, session: Session) -> None:
        """See `Speaker.end`; the link tells the server when the table ends the session."""
        self.link(session, spec, caller)

    def _depart(self, spec: ServerSpec, caller: Caller, session: Session) -> None:
        """Have the server forget a session that has ended, if it runs and knows one."""
        lease = self.connected(spec, session) if session.record.upstream_session else None
        if lease is None:
            return
        fields = self._own_fields(spec, session, caller)
        ended = fetch(
            lease.upstream,
            "DELETE",
            self.target(spec),
            fields,
            b"",
            pool=caller.principal,
            timeout_s=FAREWELL_S,
        )
        ended.addTimeout(FAREWELL_S, self.clock)
        ended.addErrback(lambda _: None).addBoth(lambda _: lease.release())

    # --- The binding to the server's session ---------------------------------------------------

    def link(self, session: Session, spec: ServerSpec, caller: Caller) -> HTTPLink:
        """Give the session's link, made when it is first needed."""
        link = session.extras
        if not isinstance(link, HTTPLink):
            self.unbind(session)
            link = HTTPLink(lambda: self._depart(spec, caller, session))
            self.bind(session, spec, link)
        return link

    def connected(self, spec: ServerSpec, session: Session) -> ILease | None:
        """Lease the instance that knows the session, at once; None when `connect` is needed."""
        lease = self.ready(spec, session)
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

    def is_introduced(self, session: Session) -> bool:
        """
        Tell whether the server need not hear ``initialized`` from the gate.

        A client that never returns its session id can not be relied on to send it.
        """
        return session.record.initialized or session.record.id_returned

    def forgotten(self, session: Session, link: HTTPLink, shakes: int) -> None:
        """
        Note that the server does not know the session any more.

        :param shakes: the link's, when what tells so was sent: there may be a newer session.
        """
        if link.shakes == shakes:
            session.record.upstream_instance = ""
            session.record.upstream_session = ""

    @override
    def greeting(self, session: Session) -> dict[str, object] | None:
        link = session.extras
        return link.greeting if isinstance(link, HTTPLink) else None

    @override
    @deferred
    async def connect(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        lease = await self.lease(spec, caller, session)
        try:
            link = self.link(session, spec, caller)
            while not (self._knows(lease, spec, session) and self.is_introduced(session)):
                if link.connecting is not None:
                    turn: Deferred[None] = Deferred()
                    link.connecting.append(turn)
                    await turn
                else:
                    await self._introduce(lease, spec, caller, session, link)
            if link.listen is not None:
                link.listen.attach(lease)
        except BaseException:
            lease.release()
            raise
        return lease

    async def _introduce(
        self, lease: ILease, spec: ServerSpec, caller: Caller, session: Session, link: HTTPLink
    ) -> None:
        """Bring the server to where the session is, for all who wait for it."""
        waiting = link.connecting = []
        failure: Failure | None = None
        try:
            if not self._knows(lease, spec, session):
                await self._handshake(lease, spec, caller, session, link)
            if not self.is_introduced(session):
                session.record.initialized = True
                self.sessions.changed(session)
                introduction = encode(Notification(INITIALIZED))
                fields = self._own_fields(spec, session, caller)
                within_s = _handshake_s(spec)
                await self._send(lease, spec, session, fields, introduction, within_s)
        except BaseException:
            failure = Failure()
            raise
        finally:
            link.connecting = None
            for waiter in waiting:
                self.clock.callLater(0, waiter.callback, failure)

    async def _handshake(
        self, lease: ILease, spec: ServerSpec, caller: Caller, session: Session, link: HTTPLink
    ) -> None:
        await self._shake(lease, spec, caller, session, link)
        record = session.record
        fields = self._own_fields(spec, session, caller)
        replay: list[Message] = [Notification(INITIALIZED)] if record.initialized else []
        if record.log_level:
            replay.append(Request("mcpgate-log", SET_LEVEL, {"level": record.log_level}))
        for number, uri in enumerate(record.subscriptions):
            replay.append(Request(f"mcpgate-sub-{number}", SUBSCRIBE, {"uri": uri}))
        for message in replay:
            await self._send(lease, spec, session, fields, encode(message), _handshake_s(spec))

    async def _shake(
        self, lease: ILease, spec: ServerSpec, caller: Caller, session: Session, link: HTTPLink
    ) -> dict[str, object]:
        """Send ``initialize``; keep the server's session id.  Only a 2xx answer's id counts."""
        record = session.record
        record.upstream_session = ""
        params = {**json.loads(record.initialize_params), "protocolVersion": record.revision}
        request = Request("mcpgate-init", INITIALIZE, params)
        answer = await self._send(
            lease,
            spec,
            session,
            self._forwarding.own_request(spec, caller),
            encode(request),
            timeout_s=spec.lifetime.start_s,
        )
        response = answer.response_to(request.id)
        if isinstance(response, ErrorResponse):
            raise InitializeRefused(response)
        if not 200 <= answer.status < 300 or not isinstance(response, Response):
            raise BackendUnavailable(
                f"The server answered initialize with HTTP {answer.status}.",
                data={"status": answer.status},
            )
        record.upstream_session = (answer.fields.get(SESSION) or b"").decode("latin-1")
        record.upstream_instance = lease.instance.instance_id
        link.shakes += 1
        link.greeting = response.result
        self.sessions.changed(session)
        self.shaken(spec, response.result)
        return response.result

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
        return target_of(spec)

    def fields(
        self, inbound: IInbound, caller: Caller, spec: ServerSpec, session: Session
    ) -> Fields:
        """Give the fields of a client's message towards the server."""
        fields = self._forwarding.endpoint_request(inbound.head, inbound.peer, spec, caller)
        return fields + _session_fields(session)

    def rest_fields(
        self, caller: Caller, spec: ServerSpec, session: Session, event_id: str
    ) -> Fields:
        """Give the fields of a GET for what came after an event."""
        fields = self._forwarding.own_stream(spec, caller) + _session_fields(session)
        return [*fields, (b"last-event-id", event_id.encode())]

    def _own_fields(self, spec: ServerSpec, session: Session, caller: Caller) -> Fields:
        return self._forwarding.own_request(spec, caller) + _session_fields(session)

    def _send(
        self,
        lease: ILease,
        spec: ServerSpec,
        session: Session,
        fields: Fields,
        body: bytes,
        timeout_s: float | None = None,
    ) -> Deferred[Fetched]:
        within_s = timeout_s or spec.call_timeout_s
        sending = fetch(
            lease.upstream,
            "POST",
            self.target(spec),
            fields,
            body,
            pool=session.record.key.principal,
            timeout_s=within_s,
        )
        # In all: SDK servers begin an event stream at once, and write comments until they answer.
        return sending.addTimeout(within_s, self.clock, too_late)


def _handshake_s(spec: ServerSpec) -> float:
    """Tell how long a server may take for each message that belongs to its handshake."""
    return min(spec.lifetime.start_s, spec.call_timeout_s)


def _session_fields(session: Session) -> Fields:
    record = session.record
    fields = [(VERSION, record.revision.encode("ascii"))]
    if record.upstream_session:
        fields.append((SESSION, record.upstream_session.encode("latin-1")))
    return fields


def target_of(spec: ServerSpec) -> bytes:
    """Give the request target of a server's MCP endpoint."""
    return _target(spec.url, spec.mcp_path)


@lru_cache(maxsize=1024)
def _target(url: str, mcp_path: str) -> bytes:
    if not url:
        return mcp_path.encode("ascii")
    parts = urlsplit(url)
    target = parts.path or "/"
    return (f"{target}?{parts.query}" if parts.query else target).encode("ascii")
