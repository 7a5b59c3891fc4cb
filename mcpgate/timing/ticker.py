"""
Work done every so often.

Unlike `twisted.application.internet.TimerService` a ticker outlives its callable's failures: it
logs, counts and goes on, and never runs twice at once.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

log = Logger()


class Ticker(Service):
    """
    Calls ``work`` every ``interval_s`` seconds while running.

    The next call is due ``interval_s`` after the last one ended, so slow work never overlaps.

    :ivar failures: how many calls raised or failed so far.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval_s: float,
        work: Callable[[], object],
        *,
        name: str,
    ) -> None:
        self.setName(name)
        self.failures = 0
        self._clock = clock
        self._interval_s = interval_s
        self._work = work
        self._next: IDelayedCall | None = None
        self._current: Deferred[object] = succeed(None)

    @override
    def startService(self) -> None:
        super().startService()
        self._schedule()

    @override
    def stopService(self) -> Deferred[object]:
        """Stop, and wait for work that is under way."""
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return self._current

    def _schedule(self) -> None:
        if self.running:
            self._next = self._clock.callLater(self._interval_s, self._tick)

    def _tick(self) -> None:
        self._next = None
        ended: Deferred[object] = Deferred()
        self._current = ended

        def failed(failure: Failure) -> None:
            self.failures += 1
            log.failure("Periodic work {name} failed", failure=failure, name=self.name)

        def over(_: object) -> None:
            self._current = succeed(None)
            self._schedule()
            ended.callback(None)

        maybeDeferred(self._work).addErrback(failed).addBoth(over)
