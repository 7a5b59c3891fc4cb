"""
Many client sessions on one stdio server: one child, one handshake, ids of the gate's own.

Decides where each message goes; the books are kept beside it: calls in work (`stdio_calls`),
requests towards clients (`stdio_asks`), the handshake (`stdio_handshake`), `subscriptions`.
Starting, stopping and restarting the child, and bounding its lines, is the runtime's business.
Over 500 lines, because all messages of one child pass through the same few tables here.

What has no id is attributed only where that is certain (protocol.md 4.4): to the one call in
work, else by what the message is.  With ``broadcast_logs=False`` the peers are strangers to each
other (a shared server), and what can not be told apart is dropped rather than shown to someone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import (
    BadRequest,
    GateError,
    Overloaded,
    TooLarge,
)
from mcpgate.interfaces import IMessageSink, ISessionPeer, IStdioChannel, IUpstream
from mcpgate.mcp.jsonrpc import (
    DEFAULT_BOUNDS,
    Batch,
    Bounds,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    decode_server_line,
    encode,
    glimpse_answer_id,
)
from mcpgate.mcp.methods import (
    CANCELLED,
    CAPABILITY_FOR,
    INITIALIZE,
    INITIALIZED,
    LIST_CHANGED,
    PING,
    PROGRESS,
    RESOURCE_UPDATED,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from mcpgate.model import Exit
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.upstream.stdio_asks import METHOD_NOT_FOUND, AskTable
from mcpgate.upstream.stdio_calls import CallTable, StdioCall, slow_child
from mcpgate.upstream.stdio_end import closed_by, died_of, fault_of
from mcpgate.upstream.stdio_handshake import Handshake
from mcpgate.upstream.subscriptions import Subscriptions

log = Logger()

_OWN_TIMEOUT_S: Final = 60.0
_LISTED: Final = ("tools", "prompts", "resources")
_WITH_STATE: Final = frozenset({INITIALIZE, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE})


def was_sent(error: GateError) -> bool:
    """
    Tell whether the request may have reached the server; when False it may surely be sent again.

    When True, `mcpgate.mcp.methods.is_repeatable` tells whether it may be sent again (R35).
    """
    return error.data.get("sent") is not False


@implementer(IUpstream)
class StdioUpstream:
    """
    Speaks to one child for many sessions.

    A sink hears its last word exactly once: ``finish`` or ``fail``, perhaps before `call`
    returns; never after `StdioCall.detach`.  Every ``fail`` of ours but a `CallCancelled` and
    what `close` was given carries ``data["sent"]``: see `was_sent`.

    :param ended: fires when the child has ended; one of our own, by ``instance.when_ended()``.
    :param wheel: for every deadline here; shared.
    :param name: the instance's id: begins the ids of requests clients see, and stands in logs.
    :param max_calls: calls in work at once; 0 means no limit.
    :param broadcast_logs: all peers belong to one owner; False when they are strangers.
    :param ask_timeout_s: how long a client may think about a server's request.
    :ivar log_level: the last ``logging/setLevel`` the child accepted, else empty.
    :ivar heard_s: see `IUpstream.heard_s`.
    :ivar unreachable: there is nothing to connect to.
    """

    unreachable: Final = False

    def __init__(
        self,
        channel: IStdioChannel,
        *,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        ended: Deferred[Exit],
        meters: Meters,
        name: str,
        max_calls: int = 64,
        broadcast_logs: bool = True,
        ask_timeout_s: float = 600.0,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self.log_level = ""
        self.heard_s = clock.seconds()
        self._seconds = clock.seconds
        self._asked_s = 0.0
        # Of the question whether it is well: its id.
        self._question = -1
        self._channel = channel
        self._wheel = wheel
        self._meters = meters
        self._name = name
        self._strangers = not broadcast_logs
        self._bounds = bounds
        self._over: Callable[[bool], GateError] | None = None
        self._peers: dict[ISessionPeer, None] = {}
        self._subscriptions: Subscriptions[ISessionPeer] = Subscriptions()
        # Requests of the gate's own: id -> what to call with whether they succeeded.
        self._own: dict[int, tuple[Deadline, Callable[[bool], None]]] = {}
        ids = count(1)
        self._mint: Callable[[], int] = ids.__next__
        self._calls = CallTable(
            self._send, self._mint, clock=clock, wheel=wheel, meters=meters, max_calls=max_calls
        )
        self._asks = AskTable(self._send, wheel=wheel, tag=name, timeout_s=ask_timeout_s)
        self._handshake = Handshake(self._send, self._mint, wheel)
        channel.attach(self._line)
        ended.addCallbacks(self._ended, self._lost).addErrback(
            lambda failure: log.failure("The end of {name} went wrong", failure, name=name)
        )

    # --- Towards the child --------------------------------------------------------------------

    @property
    def initialize_result(self) -> dict[str, object] | None:
        """The child's InitializeResult; None before the handshake."""
        return self._handshake.result

    @property
    def calls_in_work(self) -> int:
        """How many requests the child has not answered, detached ones included."""
        return len(self._calls)

    def handshake(self, params: dict[str, object], timeout_s: float) -> Deferred[dict[str, object]]:
        """
        Initialize the child, once; whoever comes later gets the same InitializeResult.

        ``notifications/initialized`` is sent here.  Fails with `InitializeRefused` when the child
        answers with an error, `BackendTimeout`, `BackendDied`, `BadBackendAnswer` or
        `Overloaded`; then it may be tried again.  Cancelling one waiter leaves it to the others.

        :param timeout_s: counts when this caller is the first; later ones wait no longer.
        """
        if self._over is not None:
            return fail(self._over(False))
        return self._handshake.begin(params, timeout_s)

    def join(self, peer: ISessionPeer) -> None:
        """Let a session get what belongs to no call.  Idempotent."""
        self._peers[peer] = None

    def leave(self, peer: ISessionPeer) -> None:
        """End a session: its calls are cancelled, its subscriptions and requests given up."""
        self._peers.pop(peer, None)
        for uri in self._subscriptions.forget(peer):
            self._request(UNSUBSCRIBE, {"uri": uri}, lambda _: None)
        for call in self._calls:
            if call.peer is peer:
                call.cancel("The session ended.")
        self._asks.forget(peer)

    def call(
        self,
        peer: ISessionPeer,
        request: Request,
        sink: IMessageSink,
        *,
        timeout_s: float,
        max_s: float,
        aside: bool = False,
    ) -> StdioCall:
        """
        Send a client's request.

        The sink gets progress, logs and server requests that belong to it, then the answer under
        the client's own id.  It fails with `BackendTimeout` (the child is told to stop),
        `BackendDied`, `BadBackendAnswer`, `CallCancelled`, and at once with `Overloaded`,
        `InvalidParams`.

        :param timeout_s: without answer or progress for this long, the call fails.
        :param max_s: the same, whatever progress there is.
        :param aside: it is the gate's own question: see `StdioCall.aside`.
        """
        if self._over is not None:
            return self._calls.refuse(peer, request, sink, self._over(False))
        if request.method in _WITH_STATE:
            return self._call_with_state(peer, request, sink, timeout_s, max_s)
        return self._calls.open(peer, request, sink, timeout_s, max_s, aside=aside)

    def cancel(self, peer: ISessionPeer, request_id: int | str, reason: str = "") -> bool:
        """
        Take a call of this peer back; prefer `StdioCall.cancel`, which can not be mistaken.

        Its sink fails with `CallCancelled`: the specification wants no answer, so an event stream
        is just ended, and only where HTTP must have a body that error is it.

        :return: False when the peer has none, or several, of that id in work: nothing is done.
        """
        call = self._calls.find(peer, request_id)
        if call is None:
            return False
        call.cancel(reason)
        return True

    def notify(self, peer: ISessionPeer, notification: Notification) -> None:
        """
        Send a client's notification.

        ``initialized`` is swallowed; ``cancelled`` and ``progress`` reach the child only if they
        are about this peer's own calls and the requests it was asked.

        :raises Overloaded: the child does not read; nothing was sent.
        """
        method = notification.method
        if self._over is not None or method == INITIALIZED:
            return
        params = notification.params or {}
        if method == CANCELLED:
            found, reason = params.get("requestId"), params.get("reason")
            if isinstance(found, int | str):
                self.cancel(peer, found, reason if isinstance(reason, str) else "")
        elif method == PROGRESS:
            self._asks.progressed(peer, notification)
        elif not self._send(notification):
            raise slow_child()

    def answer(self, peer: ISessionPeer, response: Response | ErrorResponse) -> bool:
        """
        Send a client's answer to a request of the child.

        :return: False when this peer was not asked anything under that id.
        :raises Overloaded: the child does not read; the answer may be given again.
        """
        answered = self._asks.answered(peer, response)
        if answered is None:
            raise slow_child()
        return answered

    def subscriptions_of(self, peer: ISessionPeer) -> tuple[str, ...]:
        """Give the resource URIs the peer is subscribed to."""
        return self._subscriptions.uris_of(peer)

    def restore(
        self, peer: ISessionPeer, log_level: str = "", subscriptions: Iterable[str] = ()
    ) -> Deferred[None]:
        """
        Bring what a session had at an earlier child to this one.

        Fires once it is on its way, which is in time: the child reads in order.  Never fails;
        what the child refuses is forgotten.
        """
        if log_level and log_level != self.log_level:
            self._request(SET_LEVEL, {"level": log_level}, self._level_setter(log_level))
        for uri in subscriptions:
            if not self._subscriptions.full(uri) and self._subscriptions.begin(peer, uri):
                self._request(SUBSCRIBE, {"uri": uri}, self._settler(peer, uri))
        return succeed(None)

    def ask_alive(self, timeout_s: float) -> bool:
        """
        See `IUpstream.ask_alive`.

        Nothing is asked before the handshake, which some servers do not survive, nor while the
        child waits for a client.  Where ``ping`` was not answered a list is asked for: there are
        servers that do not know the one, and are well.
        """
        if self._over is not None or len(self._asks):
            return False
        result = self.initialize_result
        if result is None:
            return self._handshake.overdue
        method = _listing(result) if self.heard_s < self._asked_s else PING
        self._asked_s = self._seconds()
        self._question = self._mint()
        # A full queue is no answer either.
        self._send(Request(self._question, method))
        return True

    def lost(self, lines: Iterable[bytes]) -> None:
        """Take note that lines of ours never reached the child: calls among them will say so."""
        for line in lines:
            self._calls.lost(json.loads(line).get("id"))

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`.  Idempotent."""
        self._finish(closed_by(error))

    def _call_with_state(
        self,
        peer: ISessionPeer,
        request: Request,
        sink: IMessageSink,
        timeout_s: float,
        max_s: float,
    ) -> StdioCall:
        params = request.params or {}
        settled: Callable[[bool], None] | None = None
        uri, level = params.get("uri"), params.get("level")
        if request.method == INITIALIZE:
            # A second initialize is an error in several SDKs: the child never sees it.
            if self.initialize_result is not None:
                return self._calls.satisfy(peer, request, sink, self.initialize_result)
            error = BadRequest("The server is not initialized.", data={"sent": False})
            return self._calls.refuse(peer, request, sink, error)
        if request.method == SET_LEVEL:
            settled = self._level_setter(level) if isinstance(level, str) else None
        elif isinstance(uri, str) and request.method == SUBSCRIBE:
            if self._subscriptions.full(uri):
                full = Overloaded("Too many subscriptions.", data={"sent": False})
                return self._calls.refuse(peer, request, sink, full)
            if not self._subscriptions.begin(peer, uri):
                return self._calls.satisfy(peer, request, sink, {})
            settled = self._settler(peer, uri)
        elif isinstance(uri, str) and not self._subscriptions.drop(peer, uri):
            return self._calls.satisfy(peer, request, sink, {})
        return self._calls.open(peer, request, sink, timeout_s, max_s, settled)

    def _level_setter(self, level: str) -> Callable[[bool], None]:
        def settled(accepted: bool) -> None:
            if accepted:
                self.log_level = level

        return settled

    def _settler(self, peer: ISessionPeer, uri: str) -> Callable[[bool], None]:
        return lambda accepted: self._subscriptions.settle(peer, uri, accepted)

    def _send(self, message: Message) -> bool:
        return self._over is None and self._channel.send(encode(message))

    def _request(
        self, method: str, params: dict[str, object], settled: Callable[[bool], None]
    ) -> None:
        """Ask the child something of the gate's own."""
        identity = self._mint()
        if not self._send(Request(identity, method, params)):
            settled(False)
            return

        def due() -> None:
            self._own_answered(identity, False)

        self._own[identity] = (self._wheel.arm(_OWN_TIMEOUT_S, due), settled)

    def _own_answered(self, identity: object, accepted: bool) -> bool:
        found = self._own.pop(identity, None) if isinstance(identity, int) else None
        if found is None:
            return False
        deadline, settled = found
        deadline.cancel()
        settled(accepted)
        return True

    # --- From the child -----------------------------------------------------------------------

    def _line(self, line: bytes) -> None:
        self.heard_s = self._seconds()
        if self._over is not None:
            return
        message = decode_server_line(line, bounds=self._bounds)
        if message is None:
            self._unreadable(line)
            return
        try:
            if isinstance(message, Batch):
                for element in message.messages:
                    self._route(element)
            else:
                self._route(message)
        except Exception:
            # A bug in one session's sink must not take the child from the others.
            log.failure("A message of {name} could not be passed on", name=self._name)

    def _unreadable(self, line: bytes) -> None:
        error = fault_of(line)
        if error is None:
            return
        if not isinstance(error, TooLarge):  # Counted where it was cut.
            self._meters.events["stdio_noise"] += 1
        identity = glimpse_answer_id(line)
        if identity is not None:
            self._calls.broken(identity, error)
            self._handshake.broken(identity)

    def _route(self, message: Message) -> None:
        if isinstance(message, Response | ErrorResponse):
            if not (
                self._calls.answered(message)
                or self._own_answered(message.id, isinstance(message, Response))
                or self._handshake.answered(message)
                or message.id == self._question
            ):
                self._meters.events["stray_reply"] += 1
        elif isinstance(message, Request):
            self._asked(message)
        else:
            self._told(message)

    def _told(self, message: Notification) -> None:
        method = message.method
        if method == PROGRESS:
            self._calls.progressed(message)
        elif method in LIST_CHANGED:
            self._tell(self._peers, message)
        elif method == RESOURCE_UPDATED:
            uri = (message.params or {}).get("uri")
            if isinstance(uri, str):
                self._tell(self._subscriptions.listeners(uri), message)
        elif method == CANCELLED:
            if not self._asks.cancelled(message):
                self._meters.events["stray_reply"] += 1
        else:
            self._tell_whom_it_concerns(message)

    def _tell_whom_it_concerns(self, message: Notification) -> None:
        call = self._calls.only(self._strangers)
        if call is not None:
            # A session may serve several clients: they are no strangers, and yet not one.
            if call.sink is not None and not self._calls.echoes():
                call.sink.deliver(message)
            else:
                call.peer.unsolicited(message)
        elif not self._strangers:
            self._tell(self._peers, message)
        else:
            peer = self._only_peer()
            if peer is None:
                self._meters.events["stdio_unattributed"] += 1
            else:
                peer.unsolicited(message)

    def _tell(self, peers: Iterable[ISessionPeer], message: Notification) -> None:
        for peer in tuple(peers):
            peer.unsolicited(message)

    def _only_peer(self) -> ISessionPeer | None:
        """Among strangers: the one joined peer, if the child can be at work for no other."""
        if len(self._peers) != 1:
            return None
        peer = next(iter(self._peers))
        return peer if self._calls.peers() <= {peer} else None

    def _asked(self, request: Request) -> None:
        if request.method == PING:
            self._send(Response(request.id, {}))
            return
        needed = CAPABILITY_FOR.get(request.method)
        call = self._calls.only(self._strangers)
        if call is not None:
            peer: ISessionPeer | None = call.peer
        elif self._strangers:
            peer = self._only_peer()
        else:
            able = [peer for peer in self._peers if not needed or needed in peer.capabilities]
            peer = able[0] if len(able) == 1 else None
        if peer is None:
            self._meters.events["stdio_unattributed"] += 1
            self._asks.refuse(
                request, METHOD_NOT_FOUND, "The gate can not tell which client is meant."
            )
        elif needed and needed not in peer.capabilities:
            self._asks.refuse(
                request, METHOD_NOT_FOUND, f"The client has no capability '{needed}'."
            )
        else:
            self._asks.show(request, peer, call)

    # --- The end ------------------------------------------------------------------------------

    def _ended(self, exit: Exit) -> None:
        self._finish(died_of(exit, strangers=self._strangers))

    def _lost(self, failure: Failure) -> None:
        log.failure("The end of {name} is not known", failure, name=self._name)
        self._ended(Exit(reason="lost"))

    def _finish(self, make_error: Callable[[bool], GateError]) -> None:
        if self._over is not None:
            return
        self._over = make_error
        self._channel.attach(lambda line: None)
        self._asks.clear()
        for identity in tuple(self._own):
            self._own_answered(identity, False)
        self._handshake.fail(make_error(True))
        for call in self._calls:
            try:
                self._calls.cancel(call, make_error(call.sent), tell=False)
            except Exception:
                log.failure("A call to {name} could not be ended", name=self._name)
        self._peers.clear()


def _listing(result: dict[str, object]) -> str:
    """Give the method of a list the child says it has; ``ping`` when it has none."""
    capabilities = result.get("capabilities")
    if isinstance(capabilities, dict):
        for name in _LISTED:
            if name in capabilities:
                return f"{name}/list"
    return PING
