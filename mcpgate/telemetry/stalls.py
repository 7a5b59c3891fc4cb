"""
How long the reactor answers nobody.

A timer that should come every 50 ms tells by its lateness how long one turn took.  A stall of more
than 250 ms is an event: something blocked that must not.
"""

from __future__ import annotations

from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from mcpgate.telemetry.meters import Meters

log = Logger()

TICK_S: Final = 0.05
STALL_S: Final = 0.25


class StallProbe(Service):
    """
    Watches the reactor it runs on.

    :param clock: the reactor; its ``seconds`` should not jump with the wall clock.
    :ivar lateness_s: of the last tick: how long a callback has to wait now.
    """

    def __init__(
        self,
        clock: IReactorTime,
        meters: Meters,
        *,
        tick_s: float = TICK_S,
        stall_s: float = STALL_S,
    ) -> None:
        self.setName("stall probe")
        self.lateness_s = 0.0
        self._clock = clock
        self._meters = meters
        self._tick_s = tick_s
        self._stall_s = stall_s
        self._next: IDelayedCall | None = None
        self._due = 0.0

    @override
    def startService(self) -> None:
        super().startService()
        self._schedule()

    @override
    def stopService(self) -> None:
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + self._tick_s
        self._next = self._clock.callLater(self._tick_s, self._tick)

    def _tick(self) -> None:
        late_s = max(0.0, self._clock.seconds() - self._due)
        self.lateness_s = late_s
        self._meters.longest_turn_s = max(self._meters.longest_turn_s, late_s)
        if late_s > self._stall_s:
            self._meters.events["reactor_stall"] += 1
            log.warn(
                "The reactor answered nobody for {late_s:.3f} s", ev="reactor_stall", late_s=late_s
            )
        self._schedule()
