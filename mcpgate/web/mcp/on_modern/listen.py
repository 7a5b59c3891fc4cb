"""
What a modern server tells unasked, for one legacy session: its ``subscriptions/listen``.

A filter can not be changed: for another one a new listen is opened, and the old one is closed
only when the server has acknowledged the new.  So nothing is missed; and what both tell at that
time is told to the client once, after both were heard.

A listen never starts a server: it is opened with the first thing the client asks, and again by
itself when it broke while the server runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import BackendTimeout, BackendUnavailable, CallCancelled, GateError
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp import to_legacy
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.mcp.modern.listen import ACK_S

log = Logger()

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
# What the old and the new listen both tell arrives within so long.
OVERLAP_S: Final = 0.2
AGAIN_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)

Filter = dict[str, object]


class Line(Protocol):
    """
    The way to the server of one session.

    :ivar start_wait_s: how long a start may be waited for.
    """

    start_wait_s: float

    def listen(self, wanted: Filter, sink: IMessageSink) -> Callable[[], None]:
        """Ask to listen; see `ModernAsker.ask`."""

    def runs(self) -> bool:
        """Tell whether the server runs, so that asking starts nothing."""

    def say(self, message: Message) -> None:
        """Tell the client."""


@implementer(IMessageSink)
class _Leg:
    """One listen under way."""

    def __init__(self, listen: BridgedListen, wanted: Filter) -> None:
        self.wanted = wanted
        self.served: Filter | None = None
        self.waiters: list[Deferred[Filter]] = []
        self.take_back: Callable[[], None] = lambda: None
        self.deadline: Deadline | None = None
        self._listen = listen

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        if not isinstance(message, Notification):
            return
        if message.method == ACKNOWLEDGED:
            self._listen.acknowledged(self, to_legacy.honoured(message))
        else:
            self._listen.heard(self, message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        error: GateError = BackendUnavailable("The server does not listen any more.")
        if isinstance(response, ErrorResponse):
            error = BackendUnavailable(f"The server does not listen: {response.message}")
        self._listen.ended(self, error, refused=isinstance(response, ErrorResponse))

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._listen.ended(self, error)

    def settle(self) -> list[Deferred[Filter]]:
        """Disarm; give those who wait."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        waiters, self.waiters = self.waiters, []
        return waiters


class BridgedListen:
    """
    The listen of one session.

    :param gap: something may have been missed already: an earlier life of the gate listened.
    :ivar wanted: the filter to listen with; empty: nothing is to be heard.
    """

    def __init__(
        self, line: Line, *, clock: IReactorTime, wheel: DeadlineWheel, gap: bool = False
    ) -> None:
        self.wanted: Filter = {}
        self._line = line
        self._clock = clock
        self._wheel = wheel
        # Oldest first; all but the last are only kept until a newer one is acknowledged.
        self._legs: list[_Leg] = []
        self._held: dict[tuple[str, object], Notification] = {}
        self._flushing: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._failures = 0
        self._gap = gap
        self._refused = False

    @property
    def served(self) -> Filter:
        """What the server has acknowledged last."""
        return next((leg.served for leg in reversed(self._legs) if leg.served is not None), {})

    # --- For the session --------------------------------------------------------------------------

    def want(self, wanted: Filter) -> Deferred[Filter]:
        """
        Listen with this filter; fires with what the server honours of it.

        Fails with a `GateError`; then what was heard before is heard still.
        """
        waiter: Deferred[Filter] = Deferred()
        self._refused = False
        if not wanted:
            self.stop()
            waiter.callback({})
            return waiter
        self.wanted = wanted
        newest = self._legs[-1] if self._legs else None
        if newest is not None and newest.wanted == wanted:
            if newest.served is not None:
                waiter.callback(newest.served)
            else:
                newest.waiters.append(waiter)
            return waiter
        self._open(waiter)
        return waiter

    def keep(self, wanted: Filter) -> None:
        """Listen with this filter if that takes no start of the server; nobody waits for it."""
        self.wanted = wanted
        if not wanted:
            self.stop()
        elif not (self._legs or self._refused) and self._line.runs():
            self._open(None)

    def stop(self) -> None:
        """Hear nothing any more."""
        self.wanted = {}
        self._held.clear()
        for timer in (self._again, self._flushing):
            if timer is not None and timer.active():
                timer.cancel()
        self._again = self._flushing = None
        legs, self._legs = self._legs, []
        for leg in legs:
            waiters = leg.settle()
            leg.take_back()
            for waiter in waiters:
                waiter.errback(CallCancelled("The session does not listen any more."))

    # --- From the server --------------------------------------------------------------------------

    def acknowledged(self, leg: _Leg, served: Filter) -> None:
        """Take note that a listen is heard: older ones are not needed any more."""
        if leg not in self._legs or leg.served is not None:
            return
        leg.served = served
        self._failures = 0
        place = self._legs.index(leg)
        older, self._legs = self._legs[:place], self._legs[place:]
        # Whoever waits for an older filter has what he wanted in the newer one.
        waiters = [waiter for each in (*older, leg) for waiter in each.settle()]
        for each in older:
            each.take_back()
        if self._gap:
            self._gap = False
            for message in to_legacy.missed(served):
                self._line.say(message)
        if self._held and len(self._legs) == 1 and self._flushing is None:
            self._flushing = self._clock.callLater(OVERLAP_S, self._flush)
        for waiter in waiters:
            waiter.callback(served)

    def heard(self, leg: _Leg, message: Notification) -> None:
        """Pass on an event."""
        plain = to_legacy.heard(message) if leg in self._legs else None
        if plain is None:
            return
        if len(self._legs) > 1 or self._flushing is not None:
            self._held[plain.method, (plain.params or {}).get("uri")] = plain
        else:
            self._line.say(plain)

    def ended(self, leg: _Leg, error: GateError, *, refused: bool = False) -> None:
        """Take note that a listen is over, and not because we said so."""
        if leg not in self._legs:
            return
        newest = leg is self._legs[-1]
        self._legs.remove(leg)
        waiters = leg.settle()
        if len(self._legs) < 2:
            self._flush()
        if newest and self._legs:
            # The older one goes on as if nothing else had been wanted.
            self.wanted = self._legs[-1].wanted
        elif newest:
            log.debug("A listen ended: {why}", why=error.detail)
            # A server that does not know the method does not learn it by being asked again.
            self._refused = refused and leg.served is None
            if leg.served is not None:
                self._gap = True
            if self.wanted and not self._refused:
                self._later()
        for waiter in waiters:
            waiter.errback(error)

    # --- Inside -----------------------------------------------------------------------------------

    def _open(self, waiter: Deferred[Filter] | None) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        leg = _Leg(self, self.wanted)
        if waiter is not None:
            leg.waiters.append(waiter)
        self._legs.append(leg)
        # A start on the way is no silence.
        start_s = 0.0 if self._line.runs() else self._line.start_wait_s
        leg.deadline = self._wheel.arm(start_s + ACK_S, lambda: self._silent(leg))
        try:
            take_back = self._line.listen(leg.wanted, leg)
        except GateError as error:
            self.ended(leg, error)
            return
        leg.take_back = take_back
        if leg not in self._legs:
            # Replaced while it was being asked.
            take_back()

    def _silent(self, leg: _Leg) -> None:
        leg.take_back()
        self.ended(leg, BackendTimeout("The server did not acknowledge in time."))

    def _later(self) -> None:
        wait_s = AGAIN_S[min(self._failures, len(AGAIN_S) - 1)]
        self._failures += 1
        self._again = self._clock.callLater(wait_s, self._retry)

    def _retry(self) -> None:
        self._again = None
        # While the server does not run, the next call of the client is what opens it again.
        if self.wanted and not self._legs and self._line.runs():
            self._open(None)

    def _flush(self) -> None:
        if self._flushing is not None and self._flushing.active():
            self._flushing.cancel()
        self._flushing = None
        held, self._held = self._held, {}
        for message in held.values():
            self._line.say(message)
