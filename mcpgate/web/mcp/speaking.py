"""What the speakers of both transports have in common: opening a session, leasing its server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import CallCancelled
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.interfaces import IInbound, IInstancePool, ILease
from mcpgate.mcp.jsonrpc import Message, Notification, Request, Response
from mcpgate.mcp.revisions import REVISIONS
from mcpgate.model import Caller, Isolation, Owner, ServerSpec
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.stdio_handshake import InitializeRefused
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.cold.answers import ColdAnswers
from mcpgate.web.mcp.cold.leases import Leases
from mcpgate.web.mcp.cold.start_report import StartReport
from mcpgate.web.mcp.event_log import EventBudget, EventLog
from mcpgate.web.mcp.on_modern.era_switch import EraSwitch
from mcpgate.web.mcp.post import SESSION, Post, owner_of
from mcpgate.web.mcp.session_state import agreed, public, remember, with_id
from mcpgate.web.mcp.standing import StandingStream
from mcpgate.web.mcp.stream_link import StreamLink

log = Logger()


def last_event_id(inbound: IInbound) -> str:
    """Give the id of the last event a client has heard; empty when it asks for no more."""
    return (inbound.head.fields.get(b"last-event-id") or b"").decode("latin-1")


class Link(Protocol):
    """What a session keeps while the gate runs, in `Session.extras`."""

    def say(self, message: Message) -> None:
        """Say something on the session's event stream, or keep it a while."""

    def leave(self, reason: str) -> None:
        """Let go of everything: the session is over."""

    def close_stream(self) -> None:
        """End the session's event stream politely; the client may open another."""


class SpeakerBase(ABC):
    """
    The common part of `mcpgate.web.mcp.post.Speaker`.

    :param forget: called with a per-session owner when its session has ended.
    :param budget: of what all speakers keep for clients that lost their connection.
    :param charge_start: takes what a cold start costs its caller; raises `RateLimited`.
    :param cold: answers for servers that do not run; None: everybody waits for theirs.
    :param switch: takes sessions whose server refuses ``initialize``; None: they end.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        pool: IInstancePool,
        sessions: SessionTable,
        wheel: DeadlineWheel,
        keepalive_s: float,
        forget: Callable[[Owner], object],
        budget: EventBudget,
        charge_start: Callable[[Caller], None] = lambda caller: None,
        cold: ColdAnswers | None = None,
        switch: EraSwitch | None = None,
    ) -> None:
        self.clock = clock
        self.sessions = sessions
        self.wheel = wheel
        self.keepalive_s = keepalive_s
        self._cold = cold
        self._switch = switch
        self._leases = Leases(pool, charge_start)
        self._budget = budget
        self._forget = forget

    # --- Opening --------------------------------------------------------------------------------

    def initialize(self, post: Post, session: Session) -> None:
        """See `Speaker.initialize`."""
        session.in_use += 1
        record = session.record
        request_id = post.requests[0].id
        if self._switch is not None:
            self._switch.used(post.spec, post.caller)
        answer = self.answer(post, [(SESSION, record.key.session_id.encode("ascii"))])

        def opened(result: dict[str, object]) -> None:
            record.revision = agreed(record.revision, result.get("protocolVersion"))
            self.sessions.changed(session)
            answer.complete(Response(request_id, {**result, "protocolVersion": record.revision}))

        def failed(failure: Failure) -> None:
            self.sessions.end(session, "initialize failed")
            if isinstance(failure.value, InitializeRefused):
                # The server's own words; without the id of a session that is none.
                answer.without_fields()
                answer.complete(with_id(failure.value.response, request_id))
            else:
                answer.refuse(public(failure, post.inbound), request_id)

        def over(_: object) -> None:
            session.in_use -= 1
            post.release()

        told = None if self._cold is None else self._cold.greeting(self, post, session)
        opening = self.open(post, session) if told is None else succeed(told)
        if self._switch is not None:
            opening.addErrback(self._open_elsewhere, self._switch, post, session)
        opening.addCallback(opened)
        opening.addErrback(failed).addBoth(over)
        opening.addErrback(lambda failure: log.failure("Opening a session failed", failure))

    @abstractmethod
    def open(self, post: Post, session: Session) -> Deferred[dict[str, object]]:
        """Shake hands for a new session; gives the server's InitializeResult."""

    # --- Servers of the other era -----------------------------------------------------------------

    @staticmethod
    def _open_elsewhere(
        failure: Failure, switch: EraSwitch, post: Post, session: Session
    ) -> Deferred[dict[str, object]]:
        return Deferred.fromCoroutine(switch.opened(failure, post, session))

    def shaken(self, spec: ServerSpec, result: dict[str, object]) -> None:
        """
        Take note that a server answered ``initialize``.

        :raises NegotiatedModern: with a revision that has no sessions, and it may be modern.
        """
        if self._switch is not None:
            self._switch.shaken(spec, result)

    def handed_over(
        self,
        failure: Failure,
        post: Post,
        session: Session,
        requests: tuple[Request, ...],
        answer: Answer,
        failed: Callable[[Failure], None],
    ) -> bool:
        """See `EraSwitch.handed_over`."""
        return self._switch is not None and self._switch.handed_over(
            failure, post, session, requests, answer, failed
        )

    async def check_era(self, spec: ServerSpec, session: Session, lease: ILease) -> None:
        """
        See that an instance was made for the legacy era.

        :raises BackendUnavailable: it was not, and is stopped; whoever asks again has another.
        """
        if self._switch is not None:
            await self._switch.check_legacy(spec, session, lease)

    # --- While the server does not run ----------------------------------------------------------

    @abstractmethod
    def call(self, post: Post, session: Session) -> None:
        """See `Speaker.call`."""

    @abstractmethod
    def connect(self, spec: ServerSpec, caller: Caller, session: Session) -> Deferred[ILease]:
        """Lease an instance, started if need be, that knows the session."""

    @abstractmethod
    def greeting(self, session: Session) -> dict[str, object] | None:
        """Give the InitializeResult the session's server gave; None when it is not known."""

    def say(self, session: Session, message: Notification) -> None:
        """Tell a session's client something on its event stream; kept a while for its next one."""
        link = session.extras
        if link is not None:
            cast(Link, link).say(message)

    def answered_cold(self, post: Post, session: Session) -> bool:
        """Answer what can be answered although the server does not run; False when it goes on."""
        return self._cold is not None and self._cold.answers(self, post, session)

    def lists_changed(self, spec: ServerSpec, session: Session) -> None:
        """Take note that the server said its lists are others now."""
        if self._cold is not None:
            self._cold.lists_changed(spec, session)

    def while_starting(
        self,
        waiting: Deferred[ILease],
        answer: Answer,
        spec: ServerSpec,
        requests: Iterable[Request],
    ) -> Deferred[ILease]:
        """Report progress to clients who asked for it, while their server is waited for."""
        report = StartReport(answer, spec.name, requests, self.wheel)
        return waiting.addBoth(report.over)

    # --- For calls ------------------------------------------------------------------------------

    def answer(
        self,
        post: Post,
        fields: list[tuple[bytes, bytes]] | None = None,
        *,
        session: Session | None = None,
    ) -> Answer:
        """
        Make what answers a POST.

        :param session: whose log keeps what is said, where all events are of the gate's making.
        """
        log = self.event_log(session) if session is not None else None
        return Answer(
            post.inbound,
            wheel=self.wheel,
            keepalive_s=self.keepalive_s,
            accepts=post.accepts,
            ids=[request.id for request in post.requests],
            batch=post.batch,
            fields=fields,
            log=log,
            primed=session is not None and REVISIONS[session.record.revision].priming_event,
        )

    def event_log(self, session: Session) -> EventLog | None:
        """Give the session's log, made when it is first needed; None where nothing is resumed."""
        revision = REVISIONS.get(session.record.revision)
        if session.ended or not session.kept or revision is None or not revision.resume:
            return None
        log = session.events
        if not isinstance(log, EventLog):
            log = session.events = EventLog(self.wheel, self._budget)
            session.on_end.append(log.clear)
        return log

    def resumed(self, inbound: IInbound, session: Session, release: Callable[[], None]) -> bool:
        """Answer a GET that wants the rest of an answer; False for one of the standing stream."""
        given = last_event_id(inbound)
        log = self.event_log(session)
        return bool(given) and log is not None and log.resume(inbound, given, release)

    def stand(
        self,
        inbound: IInbound,
        session: Session,
        link: StreamLink,
        release: Callable[[], None],
        left: Callable[[], None] = lambda: None,
    ) -> bool:
        """
        Answer a GET with the session's standing stream; False when the client is gone already.

        :param release: gives back what the GET holds, when the stream is over.
        :param left: called after that, if no newer stream had taken its place.
        """

        def ended(stream: StandingStream) -> None:
            release()
            session.in_use -= 1
            if link.stream is stream:
                link.stream = None
                left()

        session.in_use += 1
        stream = StandingStream(
            inbound,
            wheel=self.wheel,
            keepalive_s=self.keepalive_s,
            ended=ended,
            drained=link.flush,
        )
        if stream.over:
            return False
        link.opened(stream, last_event_id(inbound))
        return True

    def remember(self, session: Session, request: Request, answer: object) -> None:
        """Keep what has to be replayed to a server that forgot the session."""
        if remember(session.record, request, answer):
            self.sessions.changed(session)

    # --- Leases and links -----------------------------------------------------------------------

    def ready(self, spec: ServerSpec, session: Session) -> ILease | None:
        """Lease the session's instance if it runs."""
        return self._leases.ready(spec, self._owner(spec, session))

    def answering(self, spec: ServerSpec, session: Session) -> ILease | None:
        """Lease the session's instance if it has come up: it runs, and is known to answer."""
        return self.ready(spec, session)

    async def lease(self, spec: ServerSpec, caller: Caller, session: Session) -> ILease:
        """
        Lease the session's instance, started if need be.

        :raises CallCancelled: the session has ended: nothing may be started for it any more.
        """
        if session.ended:
            raise CallCancelled("The session has ended.")
        lease = await self._leases.get(spec, self._owner(spec, session), caller)
        if session.ended:
            lease.release()
            raise CallCancelled("The session has ended.")
        return lease

    def bind(self, session: Session, spec: ServerSpec, link: Link) -> None:
        """Give a session its link, and see that both end together."""
        session.extras = link
        if isinstance(link, StreamLink):
            link.log = self.event_log(session)
        session.on_end.append(link.leave)
        if spec.isolation is Isolation.PER_SESSION:
            owner = self._owner(spec, session)
            session.on_end.append(lambda _: self._forget(owner))

    def unbind(self, session: Session) -> None:
        """Have a session leave the link of another speaker: its server's era has changed."""
        link, session.extras = session.extras, None
        if link is None:
            return
        leave = cast(Link, link).leave
        session.on_end = [callback for callback in session.on_end if callback != leave]
        leave("era")
        # A server's own session belonged to that link.
        session.record.upstream_session = session.record.upstream_instance = ""

    def _owner(self, spec: ServerSpec, session: Session) -> Owner:
        key = session.record.key
        return owner_of(spec, key.principal, key.session_id)
