"""
Modern requests of many callers on one stdio server (2026-07-28): no handshake, no sessions.

Every request carries what the child must know of its client, so nothing is kept here but the
requests in work: under ids of the gate's own, with progress tokens to match (`CallTable`).  What
belongs to a ``subscriptions/listen`` is told apart by the id it names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import GateError, TooLarge
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
from mcpgate.mcp.methods import CANCELLED, LISTEN, LOG_MESSAGE, PROGRESS
from mcpgate.mcp.modern import META_LOG_LEVEL, META_SUBSCRIPTION, meta_of
from mcpgate.model import Exit, Principal
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.questions import discover
from mcpgate.upstream.stdio_asks import METHOD_NOT_FOUND
from mcpgate.upstream.stdio_calls import CallTable, StdioCall
from mcpgate.upstream.stdio_end import closed_by, died_of, fault_of

log = Logger()

# A listen has no deadline: until then nothing of here runs.
_FOR_EVER_S: Final = 100 * 365 * 86400.0
_MAX_LISTENS: Final = 1024


@implementer(ISessionPeer)
@dataclass(frozen=True, slots=True)
class ModernPeer:
    """
    Whoever asks, as the child's books know him.  See `ISessionPeer`.

    :ivar capabilities: nothing is asked back in this era.
    """

    principal: Principal
    capabilities: dict[str, object] = field(default_factory=dict, compare=False)

    def unsolicited(self, message: Message) -> None:
        """See `ISessionPeer.unsolicited`; there is no stream for it."""


@implementer(IUpstream)
class ModernStdioUpstream:
    """
    Speaks to one child of the modern era.

    The failures a sink hears carry ``data["sent"]``, as those of `StdioUpstream`.

    :param ended: fires when the child has ended; one of our own, by ``instance.when_ended()``.
    :param name: the instance's id, for logs.
    :param max_calls: calls in work at once; 0 means no limit.
    :param strangers: the callers are strangers to each other: what can not be told apart is
        dropped rather than shown to someone.
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
        strangers: bool = False,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self.heard_s = clock.seconds()
        self._seconds = clock.seconds
        # Of the question whether it is well: its id.
        self._question = -1
        self._channel = channel
        self._meters = meters
        self._name = name
        self._strangers = strangers
        self._bounds = bounds
        self._over: Callable[[bool], GateError] | None = None
        mint = self._mint = count(1).__next__

        def table(limit: int) -> CallTable:
            return CallTable(
                self._send, mint, clock=clock, wheel=wheel, meters=meters, max_calls=limit
            )

        self._calls = table(max_calls)
        self._listens = table(_MAX_LISTENS)
        # Calls that asked for log lines.
        self._logged: dict[int, StdioCall] = {}
        channel.attach(self._line)
        ended.addCallbacks(self._ended, self._lost).addErrback(
            lambda failure: log.failure("The end of {name} went wrong", failure, name=name)
        )

    @property
    def calls_in_work(self) -> int:
        """How many requests the child has not answered, listens left out."""
        return len(self._calls)

    # --- Towards the child --------------------------------------------------------------------

    def call(
        self,
        principal: Principal,
        request: Request,
        sink: IMessageSink,
        *,
        timeout_s: float,
        max_s: float,
    ) -> StdioCall:
        """
        Send a request, ``subscriptions/listen`` among them.

        The sink hears what belongs to it, then the answer under the request's own id, or fails as
        with `StdioUpstream.call`.

        :param timeout_s: without answer or progress for this long, the call fails; a listen
            never does.
        :param max_s: the same, whatever progress there is.
        """
        peer = ModernPeer(principal)
        if self._over is not None:
            return self._calls.refuse(peer, request, sink, self._over(False))
        if request.method == LISTEN:
            return self._listens.open(peer, request, sink, _FOR_EVER_S, _FOR_EVER_S)
        wants_logs = META_LOG_LEVEL in meta_of(request)
        made: list[StdioCall] = []

        def settled(_: bool) -> None:
            if made:
                self._logged.pop(made[0].id, None)

        call = self._calls.open(
            peer, request, sink, timeout_s, max_s, settled if wants_logs else None
        )
        if wants_logs and not call.done:
            made.append(call)
            self._logged[call.id] = call
        return call

    def ask_alive(self, timeout_s: float) -> bool:
        """See `IUpstream.ask_alive`."""
        if self._over is not None:
            return False
        self._question = self._mint()
        # A full queue is no answer either.
        self._send(discover(self._question))
        return True

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`.  Idempotent."""
        self._finish(closed_by(error))

    def _send(self, message: Message) -> bool:
        return self._over is None and self._channel.send(encode(message))

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
            for element in message.messages if isinstance(message, Batch) else (message,):
                self._route(element)
        except Exception:
            # A bug in one caller's sink must not take the child from the others.
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
            self._listens.broken(identity, error)

    def _route(self, message: Message) -> None:
        if isinstance(message, Response | ErrorResponse) and message.id == self._question:
            return
        if isinstance(message, Response):
            if not self._calls.answered(message):
                self._listen_answered(message)
        elif isinstance(message, ErrorResponse):
            if not (self._calls.answered(message) or self._listens.answered(message)):
                self._meters.events["stray_reply"] += 1
        elif isinstance(message, Request):
            # Not legal in this era; a child that asks all the same must not wait for ever.
            self._send(
                ErrorResponse(message.id, METHOD_NOT_FOUND, "This revision has no such requests.")
            )
        else:
            self._told(message)

    def _listen_answered(self, message: Response) -> None:
        listen = self._listens.get(message.id)
        result = message.result
        if listen is not None:
            result = {**result, **_renamed(result, listen.client_id)}
        if not self._listens.answered(Response(message.id, result)):
            self._meters.events["stray_reply"] += 1

    def _told(self, message: Notification) -> None:
        params = message.params or {}
        meta = params.get("_meta")
        if message.method == PROGRESS:
            self._calls.progressed(message)
        elif isinstance(meta, dict) and META_SUBSCRIPTION in meta:
            listen = self._listens.get(meta[META_SUBSCRIPTION])
            if listen is None:
                self._meters.events["stray_reply"] += 1
            elif listen.sink is not None:
                told = {**params, **_renamed(params, listen.client_id)}
                listen.sink.deliver(Notification(message.method, told))
        elif message.method == CANCELLED:
            self._torn_down(params.get("requestId"))
        elif message.method == LOG_MESSAGE:
            self._logged_line(message)
        else:
            self._meters.events["stdio_unattributed"] += 1

    def _torn_down(self, identity: object) -> None:
        """End a listen the child has ended without an answer."""
        listen = self._listens.get(identity)
        if listen is not None:
            self._listens.answered(Response(listen.id, {}))

    def _logged_line(self, message: Notification) -> None:
        """Give a log line to the call it must be of; the child does not say which."""
        call = next(iter(self._logged.values()), None)
        alone = len(self._logged) == 1 and call is not None
        if alone and self._strangers:
            alone = self._calls.only(True) is call
        if alone and call is not None and call.sink is not None:
            call.sink.deliver(message)
        else:
            self._meters.events["stdio_unattributed"] += 1

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
        for table in (self._calls, self._listens):
            for call in table:
                try:
                    table.cancel(call, make_error(True), tell=False)
                except Exception:
                    log.failure("A call to {name} could not be ended", name=self._name)


def _renamed(holder: dict[str, object], client_id: int | str) -> dict[str, object]:
    """Give the ``_meta`` of a message of a subscription, under the id its listener knows."""
    meta = holder.get("_meta")
    return {"_meta": {**(meta if isinstance(meta, dict) else {}), META_SUBSCRIPTION: client_id}}
