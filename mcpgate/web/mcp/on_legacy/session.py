"""
One legacy session that the gate holds for modern clients, who know no sessions.

It is a session like any other to whoever speaks to the server: started, replayed and ended the
same way.  Only its client is the gate: it answers what the server asks, by whichever call is in
work, and hears the session's event stream for all listens of its principal.

This is over 500 lines since what calls and listens use, and what the server says, is one session's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from mcpgate.errors import BackendDied, GateError
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    encode,
    error_response,
)
from mcpgate.mcp.log_levels import LogLevels
from mcpgate.mcp.methods import (
    CANCELLED,
    INITIALIZED,
    LIST_CHANGED,
    PING,
    PROGRESS,
    RESOURCE_UPDATED,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from mcpgate.mcp.to_modern import METHOD_NOT_FOUND
from mcpgate.model import Caller, ServerSpec
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.upstream.subscriptions import Subscriptions
from mcpgate.web.mcp.errand import Errand, Lines
from mcpgate.web.mcp.over_http.fetch import messages_in
from mcpgate.web.mcp.post import Post, Speaker
from mcpgate.web.mcp.session_state import remember

log = Logger()

# How long the session's event stream stays open when nobody uses the session.
LINGER_S: Final = 30.0
# How long to wait for word whether the server has an event stream at all.
HEARING_S: Final = 2.0
# How long a request waits for the log level it wants.
LEVEL_S: Final = 5.0

Answered = Response | ErrorResponse


class NotOpenedError(Exception):
    """
    The session could not be opened.

    :ivar response: what whoever asked is to be told; its id is not theirs.
    :ivar status: the HTTP status that goes with it.
    """

    def __init__(self, response: ErrorResponse, status: int) -> None:
        super().__init__(response.message)
        self.response = response
        self.status = status


class InWork(Protocol):
    """
    A call that the server has in work.

    :ivar may_ask: the server may be about to ask something within it.
    """

    @property
    def may_ask(self) -> bool:
        """See above."""

    def asked(self, request: Request) -> None:
        """Take a request of the server."""

    def told(self, notification: Notification) -> None:
        """Take progress or a log line."""

    def waits_for(self, request_id: object) -> bool:
        """Tell whether a request of the server with this id waits for an answer."""

    def withdrawn(self, request_id: object) -> None:
        """Take note that the server took a request back."""


class Listener(Protocol):
    """A client's open ``subscriptions/listen``."""

    def hear(self, notification: Notification) -> None:
        """Take a change of a list, or of a resource it subscribed to."""

    def close(self) -> None:
        """End politely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """
    What every session of the gate's needs.

    :ivar sessions: the table they live in; not that of clients' sessions.
    :ivar speaker: gives the speaker of a server, made for that table.
    :ivar mint: gives numbers never used before: ids and progress tokens towards servers.
    """

    clock: IReactorTime
    wheel: DeadlineWheel
    keepalive_s: float
    sessions: SessionTable
    speaker: Callable[[ServerSpec], Speaker]
    mint: Callable[[], int]


def plain(head: RequestHead) -> RequestHead:
    """Give a request's head without what only the modern era writes there."""
    lines = [
        line
        for line in head.fields.lines
        if not line[0].startswith(b"mcp-") and line[0] != b"last-event-id"
    ]
    return replace(head, method="POST", fields=Fields(lines))


class _Ear(Errand):
    """
    The session's GET.

    :param begun: called when its answer begins.
    """

    def __init__(
        self,
        head: RequestHead,
        peer: Peer,
        *,
        told: Callable[[bytes], None],
        ended: Callable[[Errand], None],
        begun: Callable[[], None],
    ) -> None:
        super().__init__(head, peer, "", told=told, ended=ended)
        self._begun = begun

    @override
    def start(self, status: int, fields: Lines, length: int | None) -> None:
        super().start(status, fields, length)
        if status == 200:
            self._begun()


class GateSession:
    """
    See the module.

    :param levels: the log level of the server, shared with whoever shares its process.
    :ivar initialized: the server's InitializeResult.
    :ivar deaf: the server has no event stream: nothing can be heard unasked.
    :ivar calls: in work at the server.
    """

    def __init__(
        self,
        desk: Desk,
        session: Session,
        caller: Caller,
        spec: ServerSpec,
        source: IInbound,
        initialized: dict[str, object],
        levels: LogLevels,
    ) -> None:
        self.desk = desk
        self.caller = caller
        self.spec = spec
        self.session = session
        self.initialized = initialized
        self.levels = levels
        self.deaf = False
        self.calls: dict[InWork, None] = {}
        self.tokens: dict[int, InWork] = {}
        self._speaker = desk.speaker(spec)
        self._head: RequestHead = plain(source.head)
        self._peer: Peer = source.peer
        self._listeners: dict[Listener, None] = {}
        self._subscriptions: Subscriptions[Listener] = Subscriptions()
        self._ear: _Ear | None = None
        self._hearing: list[Deferred[None]] = []
        self._linger: Deadline | None = None
        session.on_end.append(lambda _: self._over())

    @property
    def capabilities(self) -> dict[str, object]:
        """What the server declared."""
        found = self.initialized.get("capabilities")
        return found if isinstance(found, dict) else {}

    @property
    def over(self) -> bool:
        """Tell whether the session has ended."""
        return self.session.ended

    # --- Use ----------------------------------------------------------------------------------

    def begin(self, call: InWork, token: int | None = None) -> None:
        """Take note of a call that is about to be sent."""
        self.calls[call] = None
        if token is not None:
            self.tokens[token] = call
        self._used()

    def end(self, call: InWork, token: int | None = None) -> None:
        """Take note that a call is over."""
        self.calls.pop(call, None)
        if token is not None:
            self.tokens.pop(token, None)
        self.levels.end(call)
        self._unused()

    def _used(self) -> None:
        self.desk.sessions.touch(self.session)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._ear is None and not self.deaf and not self.over:
            self._listen()

    def _unused(self) -> None:
        if self.calls or self._listeners or self.over or self._linger is not None:
            return
        # The stream counts as use: without it the session may end of idleness, or for room.
        self._linger = self.desk.wheel.arm(LINGER_S, self._stop_listening)

    def _stop_listening(self) -> None:
        self._linger = None
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.give_up()

    def _over(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        for listener in tuple(self._listeners):
            listener.close()

    # --- Towards the server -------------------------------------------------------------------

    def send(
        self,
        request: Request,
        *,
        told: Callable[[Message], None],
        ended: Callable[[], None],
        source: IInbound | None = None,
    ) -> Errand:
        """
        Send a request.

        :param told: gets every message of the answer.
        :param source: the client's request that is behind it.
        """
        errand = Errand(
            self._head if source is None else plain(source.head),
            self._peer if source is None else source.peer,
            str(request.id) if source is None else source.request_id,
            told=lambda data: _each(data, told),
            ended=lambda _: ended(),
            notes=None if source is None else source.notes,
        )
        self.desk.sessions.touch(self.session)
        post = self._post(errand, encode(request), requests=(request,))
        try:
            self._speaker.call(post, self.session)
        except GateError as error:
            told(error_response(request.id, error, errand.request_id))
            errand.give_up()
            ended()
        return errand

    def ask(self, method: str, params: dict[str, object]) -> Deferred[Answered]:
        """Ask something of the gate's own; fails with `BackendDied` when no answer comes."""
        request = Request(self.desk.mint(), method, params)
        answer: Deferred[Answered] = Deferred()

        def told(message: Message) -> None:
            if not isinstance(message, Response | ErrorResponse):
                self.unsolicited(message)
            elif not answer.called:
                answer.callback(message)

        def ended() -> None:
            if not answer.called:
                answer.errback(BackendDied())

        self.send(request, told=told, ended=ended)
        return answer

    def tell(self, message: Notification | Answered) -> None:
        """
        Send what wants no answer; whether it arrives is not known.

        :raises GateError: it surely does not.
        """
        self._send_quietly(message)

    def _send_quietly(self, message: Notification | Answered) -> Deferred[None]:
        arrived: Deferred[None] = Deferred()
        errand = Errand(
            self._head,
            self._peer,
            "",
            told=lambda data: None,
            ended=lambda _: arrived.callback(None),
        )
        post = self._post(errand, encode(message), others=(message,))
        self._speaker.tell(post, self.session)
        return arrived

    def introduce(self) -> Deferred[None]:
        """Tell the server that the handshake is done; fires when it heard."""
        return self._send_quietly(Notification(INITIALIZED))

    def cancel(self, request_id: int, reason: str) -> None:
        """Take a request back."""
        try:
            self.tell(Notification(CANCELLED, {"requestId": request_id, "reason": reason}))
        except GateError as error:
            log.debug("A server was not told of a cancellation: {why}", why=error)

    def _post(
        self,
        errand: Errand,
        body: bytes,
        *,
        requests: tuple[Request, ...] = (),
        others: tuple[Notification | Answered, ...] = (),
    ) -> Post:
        return Post(
            inbound=errand,
            caller=self.caller,
            spec=self.spec,
            body=body,
            requests=requests,
            others=others,
            batch=False,
            accepts=(True, True),
            release=lambda: None,
        )

    @deferred
    async def want_level(self, call: InWork, level: str) -> None:
        """Have the server write lines of a level, if it can; never fails."""
        wanted = self.levels.begin(call, level)
        if not wanted:
            return
        try:
            asking = self.ask(SET_LEVEL, {"level": wanted})
            answer = await asking.addTimeout(LEVEL_S, self.desk.clock)
        except Exception as error:
            log.debug("A log level was not set: {why}", why=error)
            self.levels.refused(wanted)
            return
        if isinstance(answer, ErrorResponse):
            self.levels.refused(wanted)

    # --- Listening ----------------------------------------------------------------------------

    def _listen(self) -> None:
        self._ear = ear = _Ear(
            self._head,
            self._peer,
            told=lambda data: _each(data, self.unsolicited),
            ended=self._ear_ended,
            begun=self._heard_of,
        )
        try:
            self._speaker.listen(ear, self.caller, self.spec, self.session, lambda: None)
        except GateError as error:
            log.debug("A stream could not be opened: {why}", why=error)
            self._ear = None
            self._heard_of()

    def _ear_ended(self, ear: Errand) -> None:
        if ear.status == 405:
            self.deaf = True
        if self._ear is ear:
            self._ear = None
        self._heard_of()

    def _heard_of(self) -> None:
        waiting, self._hearing = self._hearing, []
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)

    def hearing(self) -> Deferred[None]:
        """Fire when it is known whether the server can be heard unasked, or after a while."""
        waiter: Deferred[None] = Deferred()
        if self.deaf or (self._ear is not None and self._ear.started):
            waiter.callback(None)
            return waiter
        self._hearing.append(waiter)
        self.desk.clock.callLater(HEARING_S, self._heard_of)
        return waiter

    def join(self, listener: Listener) -> None:
        """Have a client hear what the server says unasked."""
        self._listeners[listener] = None
        self._used()

    def leave(self, listener: Listener) -> None:
        """End that; what only it was subscribed to is unsubscribed."""
        self._listeners.pop(listener, None)
        for uri in self._subscriptions.forget(listener):
            if not self.over:
                self._unsubscribe(uri)
        self._unused()

    def _unsubscribe(self, uri: str) -> None:
        lease = self._speaker.ready(self.spec, self.session)
        if lease is not None:
            lease.release()
            self.ask(UNSUBSCRIBE, {"uri": uri}).addErrback(lambda _: None)
            return
        # Nobody starts a server to be told that nobody listens; the next one is not told of it.
        request = Request(self.desk.mint(), UNSUBSCRIBE, {"uri": uri})
        if remember(self.session.record, request, Response(request.id, {})):
            self.desk.sessions.changed(self.session)

    @deferred
    async def subscribe(self, listener: Listener, uri: str, within_s: float) -> bool:
        """
        Subscribe a client to a resource; tell whether the server takes it.  Never fails.

        :param within_s: a server that says nothing for so long does not take it.
        """
        if self._subscriptions.full(uri):
            return False
        if not self._subscriptions.begin(listener, uri):
            return True
        try:
            asking = self.ask(SUBSCRIBE, {"uri": uri})
            answer = await asking.addTimeout(within_s, self.desk.clock)
        except (GateError, TimeoutError):
            accepted = False
        else:
            accepted = isinstance(answer, Response)
        self._subscriptions.settle(listener, uri, accepted)
        return accepted

    # --- From the server ----------------------------------------------------------------------

    def unsolicited(self, message: Message) -> None:
        """Take what the server says outside of an answer, or what belongs to no answer."""
        if isinstance(message, Request):
            self._asked(message)
        elif isinstance(message, Notification):
            self._told(message)

    def _asked(self, request: Request) -> None:
        if request.method == PING:
            self.reply(Response(request.id, {}))
            return
        # Some servers do not say within which call they ask.  A call that waits for an answer
        # already is not the one that asks.
        able = [call for call in self.calls if call.may_ask]
        if len(able) == 1:
            able[0].asked(request)
        else:
            self.reply(
                ErrorResponse(
                    request.id, METHOD_NOT_FOUND, "No single request of a client is in progress."
                )
            )

    def reply(self, response: Answered) -> bool:
        """Answer a request of the server; False when the answer surely got lost."""
        try:
            self.tell(response)
        except GateError as error:
            log.debug("A server was not answered: {why}", why=error)
            return False
        return True

    def _told(self, notification: Notification) -> None:
        params = notification.params or {}
        if notification.method in LIST_CHANGED:
            for listener in tuple(self._listeners):
                listener.hear(notification)
        elif notification.method == RESOURCE_UPDATED:
            uri = params.get("uri")
            for listener in self._subscriptions.listeners(uri) if isinstance(uri, str) else ():
                listener.hear(notification)
        elif notification.method == PROGRESS:
            token = params.get("progressToken")
            call = self.tokens.get(token) if type(token) is int else None
            if call is not None:
                call.told(notification)
        elif notification.method == CANCELLED:
            request_id = params.get("requestId")
            for call in tuple(self.calls):
                if call.waits_for(request_id):
                    call.withdrawn(request_id)
        # Log lines outside of an answer are nobody's: no request asked for them.


def _each(data: bytes, told: Callable[[Message], None]) -> None:
    for message in messages_in(data):
        told(message)
