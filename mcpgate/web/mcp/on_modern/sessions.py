"""
Sessions of legacy clients on servers of the modern era (protocol.md 4.3).

The session is the gate's alone: the server knows of none.  So what the session's record keeps is
all there is to it, and a restart of gate or server is noticed by nobody.  Requests go to the
server one by one, each with the whole context; what the server asks meanwhile is asked of the
client within its request, and what it tells unasked comes from a listen of the session's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.errors import (
    BackendTimeout,
    BackendUnavailable,
    BadRequest,
    CallCancelled,
    GateError,
    InvalidParams,
    MethodNotFound,
)
from mcpgate.gate.eras import EraBook
from mcpgate.gate.sessions import Session
from mcpgate.interfaces import IInbound, ILease, IMessageSink
from mcpgate.mcp import to_legacy
from mcpgate.mcp.evidence import Finding, of_discover
from mcpgate.mcp.headers import annotation_fault
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.mcp.log_levels import LEVELS
from mcpgate.mcp.methods import CANCELLED, INITIALIZED, PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE
from mcpgate.mcp.modern import stamped
from mcpgate.model import Caller, InstanceKey, Owner, Principal, ServerSpec, Transport
from mcpgate.timing.deferreds import deferred
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.modern.ask import NotModern
from mcpgate.web.mcp.modern.post import ModernAsker
from mcpgate.web.mcp.on_modern.asking import ask_once
from mcpgate.web.mcp.on_modern.call import BridgedCall
from mcpgate.web.mcp.on_modern.era_watch import EraWatch
from mcpgate.web.mcp.on_modern.link import BridgedLink
from mcpgate.web.mcp.on_modern.listen import BridgedListen, Filter
from mcpgate.web.mcp.post import Post, owner_of
from mcpgate.web.mcp.session_state import MAX_SUBSCRIPTIONS, public
from mcpgate.web.mcp.speaking import Link, SpeakerBase

log = Logger()

DISCOVER: Final = "server/discover"
LISTEN: Final = "subscriptions/listen"

# How long a DiscoverResult is believed at most, whatever its server says.
MAX_TTL_S: Final = 3600.0
MAX_DISCOVERED: Final = 1000


class _Line:
    """See `mcpgate.web.mcp.on_modern.listen.Line`."""

    def __init__(
        self,
        speaker: BridgedSpeaker,
        spec: ServerSpec,
        caller: Caller,
        session: Session,
        link: BridgedLink,
    ) -> None:
        self._speaker = speaker
        self._spec = spec
        self._caller = caller
        self._session = session
        self._link = link
        self.start_wait_s = spec.lifetime.start_wait_s

    def listen(self, wanted: Filter, sink: IMessageSink) -> Callable[[], None]:
        """See `Line.listen`."""
        params = stamped({"notifications": wanted}, self._link.said())
        request = Request(self._link.mint_ask(), LISTEN, params)
        return self._speaker.ask(self._spec, self._caller, request, sink)

    def runs(self) -> bool:
        """See `Line.runs`."""
        return self._speaker.runs(self._spec, self._session)

    def say(self, message: Message) -> None:
        """See `Line.say`."""
        self._link.say(message)


class BridgedSpeaker(SpeakerBase):
    """
    See `mcpgate.web.mcp.post.Speaker`.

    :param asker: how modern servers are spoken to.
    :param eras: gets to know what is found out.
    :param watch: hears of servers that answer as if they were not modern any more.
    :param make_tag: gives what tells the questions of one link from those of another.
    :param stop: stops an instance.
    """

    def __init__(
        self,
        *,
        asker: ModernAsker,
        eras: EraBook,
        watch: EraWatch,
        make_tag: Callable[[], str],
        stop: Callable[[InstanceKey], Deferred[None]],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self._asker = asker
        self._eras = eras
        self._watch = watch
        self._make_tag = make_tag
        self._stop = stop
        # Private to each principal, whatever the server says of its scope.
        self._discovered: dict[tuple[Principal, str], tuple[float, dict[str, object]]] = {}

    # --- Speaker ----------------------------------------------------------------------------

    @override
    @deferred
    async def open(self, post: Post, session: Session) -> dict[str, object]:
        self._watch.used(post.spec, post.caller)
        link = self.link(session, post.spec, post.caller)
        found = await self._discover(post.spec, post.caller, link, source=post.inbound)
        return to_legacy.initialize_result(found, session.record.revision, post.spec.name)

    @override
    def call(self, post: Post, session: Session) -> None:
        self._pass_on(post, session)
        answer = self.answer(post, session=session)
        for request in post.requests:
            self.take(post, session, request, answer)

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
        link = self.link(session, spec, caller)

        def left() -> None:
            # Unless a newer stream takes its place in this very moment.
            self.clock.callLater(0, self._keep_listening, link)

        if self.stand(inbound, session, link, release, left):
            self.served(spec, caller, session)

    def end(self, caller: Caller, spec: ServerSpec, session: Session) -> None:
        """See `Speaker.end`; the link leaves when the table ends the session."""

    @override
    @deferred
    async def connect(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        return await self.lease(spec, caller, session)

    @override
    def greeting(self, session: Session) -> dict[str, object] | None:
        link = session.extras
        if not isinstance(link, BridgedLink) or link.discovered is None:
            return None
        return to_legacy.initialize_result(
            link.discovered, session.record.revision, session.record.server
        )

    # --- The way to the server --------------------------------------------------------------

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
        """See `ModernAsker.ask`; a process that was started for the other era makes way first."""
        if spec.transport is Transport.STDIO:
            self._make_way(spec, caller)
        return self._asker.ask(
            spec, caller, request, sink, source=source, params_fields=params_fields
        )

    def _make_way(self, spec: ServerSpec, caller: Caller) -> None:
        owner = owner_of(spec, caller.principal, "")
        lease = self._leases.ready(spec, owner)
        if lease is None:
            return
        legacy = isinstance(lease.upstream, StdioUpstream)
        lease.release()
        if legacy:
            self._stop(InstanceKey(spec.name, owner))

    @override
    def bind(self, session: Session, spec: ServerSpec, link: Link) -> None:
        # The server knows of no sessions: its instance is nobody's that ends with one.
        session.extras = link
        session.on_end.append(link.leave)

    @override
    def _owner(self, spec: ServerSpec, session: Session) -> Owner:
        return owner_of(spec, session.record.key.principal, "")

    # --- What the server can do -------------------------------------------------------------

    async def _discover(
        self,
        spec: ServerSpec,
        caller: Caller,
        link: BridgedLink,
        *,
        source: IInbound | None = None,
    ) -> dict[str, object]:
        """Give the server's DiscoverResult, while it may still be believed the last one."""
        key = (caller.principal, spec.name)
        kept = self._discovered.get(key)
        if kept is not None and kept[0] > self.clock.seconds():
            link.discovered = kept[1]
            return kept[1]
        asked = Request(link.mint_ask(), DISCOVER, stamped({}, link.said()))
        # It is this era's handshake, and may wait as long as the other's: for a start, then for
        # the answer.
        life = spec.lifetime
        try:
            waiting = ask_once(self, spec, caller, asked, source=source)
            answer = await waiting.addTimeout(life.start_wait_s + life.start_s, self.clock)
        except TimeoutError:
            raise BackendTimeout("The server did not answer server/discover in time.") from None
        except GateError as error:
            self.doubt(spec, caller, error)
            raise
        finding = of_discover(200, answer)
        if finding is not Finding.MODERN or not isinstance(answer, Response):
            self._discovered.pop(key, None)
            if finding is Finding.NOT_MODERN:
                self._watch.refuted(spec, caller)
            why = answer.message if isinstance(answer, ErrorResponse) else "it is of another era"
            raise BackendUnavailable(f"The server could not be discovered: {why}")
        self._eras.note(spec, modern=True)
        link.discovered = answer.result
        ttl_ms = answer.result.get("ttlMs")
        if isinstance(ttl_ms, int | float) and ttl_ms > 0:
            until = self.clock.seconds() + min(ttl_ms / 1000, MAX_TTL_S)
            self._discovered.pop(key, None)
            self._discovered[key] = (until, answer.result)
            if len(self._discovered) > MAX_DISCOVERED:
                del self._discovered[next(iter(self._discovered))]
        return answer.result

    def listed(self, spec: ServerSpec, link: BridgedLink, result: dict[str, object]) -> None:
        """Take note of a list of tools on its way, and leave out those nobody may call."""
        tools = result.get("tools")
        if not isinstance(tools, list) or spec.transport is not Transport.HTTP:
            return
        good = []
        for tool in tools:
            schema = tool.get("inputSchema") if isinstance(tool, dict) else None
            fault = annotation_fault(schema)
            if fault:
                # ``server/tools``: a client over HTTP must leave such a tool out.
                log.warn(
                    "{server} offers a tool that is left out: {why}", server=spec.name, why=fault
                )
            else:
                good.append(tool)
        result["tools"] = good
        link.learn(good)

    def doubt(self, spec: ServerSpec, caller: Caller, error: ErrorResponse | GateError) -> None:
        """Have it looked at again whether a server is modern, if its error speaks against it."""
        if isinstance(error, GateError):
            against = isinstance(error, NotModern)
        else:
            # Sessions that are missing, and what else servers of the other era complain of.
            legacy = -32019 <= error.code <= -32000 or error.code == BadRequest.code
            against = legacy or error.code == to_legacy.UNSUPPORTED_REVISION
        if against:
            self._discovered.pop((caller.principal, spec.name), None)
            self._watch.doubted(spec, caller)

    # --- Requests -----------------------------------------------------------------------------

    def take(self, post: Post, session: Session, request: Request, answer: Answer) -> None:
        """Answer one request of a POST as its share of the answer; gives its slot back."""
        method = request.method
        if method == PING:
            self._done(post, request, answer, {})
        elif method == SET_LEVEL:
            level = (request.params or {}).get("level")
            if level not in LEVELS:
                self._refused(post, request, answer, InvalidParams("There is no such level."))
                return
            done = Response(request.id, {})
            self.remember(session, request, done)
            self._done(post, request, answer, {})
        elif method in (SUBSCRIBE, UNSUBSCRIBE):
            self._subscription(post, session, request, answer)
        elif not to_legacy.is_asked(method):
            self._refused(post, request, answer, MethodNotFound())
        else:
            BridgedCall(self, post, session, request, answer).begin()

    def _done(
        self, post: Post, request: Request, answer: Answer, result: dict[str, object]
    ) -> None:
        post.release()
        answer.complete(Response(request.id, result))

    def _refused(self, post: Post, request: Request, answer: Answer, error: GateError) -> None:
        post.release()
        answer.fail(error, request.id)

    def _subscription(self, post: Post, session: Session, request: Request, answer: Answer) -> None:
        session.in_use += 1
        work = Deferred.fromCoroutine(self._subscribe(post, session, request))

        def done(_: None) -> None:
            self.remember(session, request, Response(request.id, {}))
            answer.complete(Response(request.id, {}))

        def failed(failure: Failure) -> None:
            answer.fail(public(failure, post.inbound), request.id)

        def over(_: object) -> None:
            session.in_use -= 1
            post.release()

        work.addCallbacks(done, failed).addBoth(over)

    async def _subscribe(self, post: Post, session: Session, request: Request) -> None:
        """
        Change what the session listens to.

        :raises GateError: it can not be had, and nothing was changed.
        """
        spec, caller = post.spec, post.caller
        uri = (request.params or {}).get("uri")
        if not isinstance(uri, str):
            raise InvalidParams("A subscription needs a uri.")
        link = self.link(session, spec, caller)
        found = link.discovered
        if found is None:
            found = await self._discover(spec, caller, link, source=post.inbound)
            if session.ended:
                raise CallCancelled("The session has ended.")  # Nobody would end its listen.
        if not to_legacy.can(found, "resources", "subscribe"):
            raise MethodNotFound("The server has no subscriptions.")
        listen = self._listen_of(link, spec, caller, session)
        if request.method == UNSUBSCRIBE:
            if link.uris.pop(uri, False) is None:
                await listen.want(link.wanted())
            return
        if uri in link.uris and uri in _uris(listen.served):
            return
        link.uris[uri] = None
        while len(link.uris) > MAX_SUBSCRIPTIONS:
            del link.uris[next(iter(link.uris))]
        try:
            served = await listen.want(link.wanted())
            if uri not in _uris(served):
                raise InvalidParams("The server does not tell of changes of this resource.")
        except GateError:
            link.uris.pop(uri, None)
            raise

    # --- Listening ------------------------------------------------------------------------------

    def served(self, spec: ServerSpec, caller: Caller, session: Session) -> None:
        """See that the session hears its server, which runs now; whoever calls does not wait."""
        link = self.link(session, spec, caller)
        if session.ended or (link.stream is None and not link.uris):
            return
        if link.discovered is not None or spec.group is not None:
            self._listen_of(link, spec, caller, session).keep(link.wanted())
            return
        if not self.runs(spec, session):
            return  # The first call starts it, and comes here again.
        asking = Deferred.fromCoroutine(self._discover(spec, caller, link))
        asking.addCallback(lambda _: self._keep_if_live(link, spec, caller, session))
        asking.addErrback(
            lambda failure: log.debug("A session could not listen: {why}", why=failure.value)
        )

    def runs(self, spec: ServerSpec, session: Session) -> bool:
        """Tell whether listening to a server starts nothing."""
        if spec.transport in (Transport.REST, Transport.GROUP):
            return True  # The gate itself tells of changes, or of those servers that run.
        lease = self.ready(spec, session)
        if lease is None:
            return False
        lease.release()
        return True

    def _keep_if_live(
        self, link: BridgedLink, spec: ServerSpec, caller: Caller, session: Session
    ) -> None:
        if not session.ended:
            self._listen_of(link, spec, caller, session).keep(link.wanted())

    def _keep_listening(self, link: BridgedLink) -> None:
        """Hear what is still wanted, now that the client has closed its stream."""
        if link.listen is not None and not link.wanted():
            link.listen.stop()

    def _listen_of(
        self, link: BridgedLink, spec: ServerSpec, caller: Caller, session: Session
    ) -> BridgedListen:
        if link.listen is None:
            line = _Line(self, spec, caller, session, link)
            link.listen = BridgedListen(
                line, clock=self.clock, wheel=self.wheel, gap=bool(link.uris)
            )
        return link.listen

    # --- Links ------------------------------------------------------------------------------

    def link(self, session: Session, spec: ServerSpec, caller: Caller) -> BridgedLink:
        """Give the session's link, made when it is first needed."""
        link = session.extras
        if not isinstance(link, BridgedLink):
            self.unbind(session)
            link = BridgedLink(session, self._make_tag(), group=spec.group is not None)
            self.bind(session, spec, link)
        return link

    # --- What the client tells --------------------------------------------------------------

    def _pass_on(self, post: Post, session: Session) -> None:
        for message in post.others:
            self._pass(message, session, self.link(session, post.spec, post.caller))

    def _pass(self, message: Message, session: Session, link: BridgedLink) -> None:
        if isinstance(message, Response | ErrorResponse):
            # Of this session's link: nobody answers for another.
            call = link.asked.get(message.id) if isinstance(message.id, str) else None
            if call is not None:
                call.replied(message)
        elif isinstance(message, Notification) and message.method == INITIALIZED:
            session.record.initialized = True
            self.sessions.changed(session)
        elif isinstance(message, Notification) and message.method == CANCELLED:
            call = link.call_of((message.params or {}).get("requestId"))
            if call is not None:
                call.cancel()
        # Whatever else a client tells has no counterpart in the modern era.


def _uris(served: Filter) -> list[object]:
    uris = served.get("resourceSubscriptions")
    return uris if isinstance(uris, list) else []
