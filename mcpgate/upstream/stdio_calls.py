"""
Calls in work at one stdio server: ids of the gate's own towards the child, the client's back.

Every request gets a fresh integer id; the client's id and progress token never reach the child,
so nothing a client chooses (real ones send ``id: 1`` for everything) can touch another's call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IReactorTime

from mcpgate.errors import (
    BackendTimeout,
    CallCancelled,
    GateError,
    InvalidParams,
    Overloaded,
)
from mcpgate.interfaces import IMessageSink, ISessionPeer
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.mcp.methods import CANCELLED
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel

_GHOST_S = 600.0
# What was given up so lately may still have something to say.
_ECHO_S = 10.0
_MAX_GHOSTS = 1024


class StdioCall:
    """
    One request in work; what `StdioUpstream.call` gives back.

    :ivar done: answered, failed or cancelled: the sink has heard its last word, unless detached.
    :ivar sent: it may have reached the child.
    :ivar aside: the gate's own: what the child says of itself meanwhile is about another call.
    """

    __slots__ = (
        "_calls",
        "active_s",
        "aside",
        "asks",
        "client_id",
        "client_token",
        "deadline",
        "done",
        "ends_s",
        "id",
        "peer",
        "sent",
        "settled",
        "sink",
        "timeout_s",
    )

    def __init__(
        self, calls: CallTable, peer: ISessionPeer, client_id: int | str, sink: IMessageSink
    ) -> None:
        self._calls = calls
        self.peer = peer
        self.client_id = client_id
        self.sink: IMessageSink | None = sink
        self.id = 0
        self.client_token: int | str | None = None
        self.asks = 0
        self.active_s = self.ends_s = self.timeout_s = 0.0
        self.deadline: Deadline | None = None
        self.settled: Callable[[bool], None] | None = None
        self.done = False
        self.sent = True
        self.aside = False

    def detach(self) -> None:
        """
        Let the call run on without its client (a legacy client's connection was lost).

        The child is told nothing; what it answers is dropped; the deadlines go on.
        """
        self.sink = None

    def cancel(self, reason: str = "") -> None:
        """Take the call back: the child is told, the sink fails with `CallCancelled`."""
        self._calls.cancel(self, CallCancelled(reason))


class CallTable:
    """
    The calls in work.

    :param send: writes a message to the child; False when its queue is full.
    :param mint: gives the next id.
    :param max_calls: calls in work at once; 0 means no limit.
    """

    def __init__(
        self,
        send: Callable[[Message], bool],
        mint: Callable[[], int],
        *,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        meters: Meters,
        max_calls: int,
    ) -> None:
        self._send = send
        self._mint = mint
        self._clock = clock
        self._wheel = wheel
        self._meters = meters
        self._max_calls = max_calls
        self._calls: dict[int, StdioCall] = {}
        self._aside = 0
        # Given up here, perhaps still at work in the child: id -> for whom, and when we stop
        # counting it.  Oldest first.
        self._ghosts: dict[int, tuple[ISessionPeer, float]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[StdioCall]:
        return iter(tuple(self._calls.values()))

    def open(
        self,
        peer: ISessionPeer,
        request: Request,
        sink: IMessageSink,
        timeout_s: float,
        max_s: float,
        settled: Callable[[bool], None] | None = None,
        *,
        aside: bool = False,
    ) -> StdioCall:
        """
        Send a request to the child.

        Refusals are told to the sink at once, with ``error.data["sent"]`` False.

        :param settled: called with whether the child answered with a result.
        :param aside: see `StdioCall.aside`.
        """
        call = StdioCall(self, peer, request.id, sink)
        call.settled = settled
        call.aside = aside
        if self._max_calls and len(self._calls) >= self._max_calls:
            return _refuse(
                call,
                Overloaded(
                    f"The server is working on {self._max_calls} calls already.",
                    retry_after_s=1.0,
                    data={"sent": False},
                ),
            )
        identity = self._mint()
        params = request.params
        meta = params.get("_meta") if params is not None else None
        if params is not None and isinstance(meta, dict) and "progressToken" in meta:
            token = meta["progressToken"]
            if type(token) is not int and type(token) is not str:
                # A 7.0 would come back from some servers as 7: the token of another call.
                return _refuse(
                    call,
                    InvalidParams(
                        "progressToken must be a string or an integer.", data={"sent": False}
                    ),
                )
            call.client_token = token
            params = {**params, "_meta": {**meta, "progressToken": identity}}
        if not self._send(Request(identity, request.method, params)):
            return _refuse(call, slow_child())
        call.id = identity
        call.active_s = self._clock.seconds()
        call.timeout_s = timeout_s
        call.ends_s = call.active_s + max_s
        call.deadline = self._wheel.arm(min(timeout_s, max_s), lambda: self._due(call))
        self._calls[identity] = call
        self._aside += aside
        return call

    def refuse(
        self, peer: ISessionPeer, request: Request, sink: IMessageSink, error: GateError
    ) -> StdioCall:
        """Fail a call at once; nothing is sent."""
        return _refuse(StdioCall(self, peer, request.id, sink), error)

    def satisfy(
        self, peer: ISessionPeer, request: Request, sink: IMessageSink, result: dict[str, object]
    ) -> StdioCall:
        """Answer a call at once, from what is known here; nothing is sent."""
        call = StdioCall(self, peer, request.id, sink)
        call.done = True
        call.sink = None
        sink.finish(Response(request.id, result))
        return call

    def get(self, identity: object) -> StdioCall | None:
        """Give the call the child knows by this id; None when it is of none in work."""
        return self._calls.get(identity) if type(identity) is int else None

    def lost(self, identity: object) -> None:
        """Take note that a request never reached the child."""
        call = self.get(identity)
        if call is not None:
            call.sent = False

    def answered(self, message: Response | ErrorResponse) -> bool:
        """Give an answer of the child to whom it belongs; False when it is of no call here."""
        identity = message.id
        if type(identity) is not int:
            return False
        call = self._calls.get(identity)
        if call is None:
            self._ghosts.pop(identity, None)
            return False
        sink = self._close(call, isinstance(message, Response))
        if sink is None:
            return True
        if isinstance(message, Response):
            sink.finish(Response(call.client_id, message.result))
        else:
            sink.finish(ErrorResponse(call.client_id, message.code, message.message, message.data))
        return True

    def broken(self, identity: int, error: GateError) -> None:
        """Fail the call that an unreadable answer belongs to, if there is one."""
        call = self._calls.get(identity)
        if call is not None:
            sink = self._close(call, False)
            if sink is not None:
                sink.fail(error)

    def progressed(self, message: Notification) -> None:
        """Give progress to the call it belongs to; it counts as a sign of life."""
        params = message.params or {}
        token = params.get("progressToken")
        call = self._calls.get(token) if type(token) is int else None
        if call is None or call.client_token is None:
            self._meters.events["stray_reply"] += 1
            return
        call.active_s = self._clock.seconds()
        if call.sink is not None:
            call.sink.deliver(
                Notification(message.method, {**params, "progressToken": call.client_token})
            )

    def only(self, strangers: bool) -> StdioCall | None:
        """
        Give the call that something without an id must belong to; None when that can not be told.

        :param strangers: the peers are different people: count also what was given up here and
            the child may still be working on.
        """
        if len(self._calls) - self._aside != 1:
            return None
        call = next(call for call in self._calls.values() if not call.aside)
        if strangers and self.peers() != {call.peer}:
            return None
        return call

    def peers(self) -> set[ISessionPeer]:
        """Give everyone the child may be working for."""
        now = self._clock.seconds()
        while self._ghosts:
            oldest = next(iter(self._ghosts))
            if self._ghosts[oldest][1] > now:
                break
            del self._ghosts[oldest]
        found = {peer for peer, _ in self._ghosts.values()}
        found.update(call.peer for call in self._calls.values() if not call.aside)
        return found

    def echoes(self) -> bool:
        """Tell whether a line without an id may be of a call that was given up a moment ago."""
        now = self._clock.seconds()
        return any(until - _GHOST_S + _ECHO_S > now for _, until in self._ghosts.values())

    def find(self, peer: ISessionPeer, client_id: object) -> StdioCall | None:
        """
        Find the peer's call with the client's id.

        None also when it has several of that id in work: which one is meant can not be told.
        """
        found = [
            call
            for call in self._calls.values()
            if call.peer is peer
            and call.client_id == client_id
            and type(call.client_id) is type(client_id)
        ]
        return found[0] if len(found) == 1 else None

    def cancel(self, call: StdioCall, error: GateError, *, tell: bool = True) -> None:
        """End a call before its answer; the child is told, unless ``tell`` is False."""
        if call.done:
            return
        sink = self._close(call, False)
        if tell:
            if len(self._ghosts) >= _MAX_GHOSTS:
                del self._ghosts[next(iter(self._ghosts))]
            self._ghosts[call.id] = (call.peer, self._clock.seconds() + _GHOST_S)
            # A full queue loses this: the child then works in vain, and its answer is dropped.
            self._send(Notification(CANCELLED, {"requestId": call.id, "reason": error.detail}))
        if sink is not None:
            sink.fail(error)

    def _close(self, call: StdioCall, succeeded: bool) -> IMessageSink | None:
        del self._calls[call.id]
        self._aside -= call.aside
        call.done = True
        if call.deadline is not None:
            call.deadline.cancel()
        if call.settled is not None:
            call.settled(succeeded)
        sink, call.sink = call.sink, None
        return sink

    def _due(self, call: StdioCall) -> None:
        # Progress only notes its time; here is where the deadline moves.  While the client is
        # being asked something (a person fills in a form), only the hard end counts.
        until = call.ends_s
        if not call.asks:
            until = min(until, call.active_s + call.timeout_s)
        left_s = until - self._clock.seconds()
        if left_s > 0.001:
            call.deadline = self._wheel.arm(left_s, lambda: self._due(call))
            return
        self.cancel(call, BackendTimeout(data={"sent": True}))


def _refuse(call: StdioCall, error: GateError) -> StdioCall:
    call.done = True
    if call.settled is not None:
        call.settled(False)
    sink, call.sink = call.sink, None
    if sink is not None:
        sink.fail(error)
    return call


def slow_child() -> Overloaded:
    """Make the failure for a full queue towards the child (R40)."""
    return Overloaded(
        "The server does not read its input.", retry_after_s=1.0, data={"sent": False}
    )
