"""
How long the reactor answers nobody, and where it stood meanwhile.

A timer that should come every 50 ms tells by its lateness how long one turn took.  A stall of more
than 250 ms is an event: something blocked that must not.  While a stall lasts, only another thread
can say what the reactor's is doing: the watchdog does, once for each.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from pathlib import PurePath
from threading import Event, Thread, get_ident
from types import FrameType
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from mcpgate.telemetry.meters import TURN_BUCKETS_S, Meters

log = Logger()

TICK_S: Final = 0.05
STALL_S: Final = 0.25
#: The recent past that is told of: so many parts of a second each.
RECENT_PARTS: Final = 60

STUCK_S: Final = 1.0
_LOOK_S: Final = 0.25
_HALF: Final = 6


class StallProbe(Service):
    """
    Watches the reactor it runs on.

    :param clock: the reactor; its ``seconds`` should not jump with the wall clock.
    :ivar lateness_s: of the last tick: how long a callback has to wait now.
    :ivar ticks: so far; for the watchdog.
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
        self.ticks = 0
        self._clock = clock
        self._meters = meters
        self._tick_s = tick_s
        self._stall_s = stall_s
        self._next: IDelayedCall | None = None
        self._due = 0.0
        # The longest turn of each second of the last minute, those without one left out.
        self._recent: deque[tuple[int, float]] = deque()

    @override
    def startService(self) -> None:
        super().startService()
        self._meters.recent_turn_s = self.recent_s
        self._schedule()

    @override
    def stopService(self) -> None:
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def recent_s(self) -> float:
        """Give the longest turn of the last minute."""
        self._forget(int(self._clock.seconds()))
        return max((late_s for _, late_s in self._recent), default=0.0)

    def _forget(self, second: int) -> None:
        while self._recent and self._recent[0][0] <= second - RECENT_PARTS:
            self._recent.popleft()

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + self._tick_s
        self._next = self._clock.callLater(self._tick_s, self._tick)

    def _tick(self) -> None:
        self.ticks += 1
        now = self._clock.seconds()
        late_s = max(0.0, now - self._due)
        self.lateness_s = late_s
        meters = self._meters
        meters.lag_s = late_s
        meters.lags_s += late_s
        meters.lag_buckets[bisect_left(TURN_BUCKETS_S, late_s)] += 1
        meters.longest_turn_s = max(meters.longest_turn_s, late_s)
        self._note(int(now), late_s)
        if late_s > self._stall_s:
            meters.events["reactor_stall"] += 1
            log.warn(
                "The reactor answered nobody for {late_s:.3f} s", ev="reactor_stall", late_s=late_s
            )
        self._schedule()

    def _note(self, second: int, late_s: float) -> None:
        recent = self._recent
        if recent and recent[-1][0] == second:
            if late_s > recent[-1][1]:
                recent[-1] = (second, late_s)
            return
        self._forget(second)
        recent.append((second, late_s))


class Watchdog(Service):
    """
    Writes down where the reactor's thread stands when the probe has not ticked for too long.

    A thread of its own looks four times a second; once for each stall it logs the innermost calls,
    while the stall lasts, so that they are known even if it never ends.  Started in the reactor's
    thread, like every service.

    :param stuck_s: for so long the reactor may answer nobody before it is asked for.
    :param seconds: a clock that does not jump; ``frames`` gives what every thread does.
    """

    def __init__(
        self,
        probe: StallProbe,
        *,
        stuck_s: float = STUCK_S,
        seconds: Callable[[], float] = time.monotonic,
        frames: Callable[[], dict[int, FrameType]] = sys._current_frames,
    ) -> None:
        self.setName("watchdog")
        self._probe = probe
        self._stuck_s = stuck_s
        self._seconds = seconds
        self._frames = frames
        self._over = Event()
        self._whose = 0
        self._ticks = -1
        self._since_s = 0.0
        self._looked_s = 0.0
        self._told = False

    @override
    def startService(self) -> None:
        super().startService()
        self._whose = get_ident()
        self._ticks = -1
        self._looked_s = self._seconds()
        over = self._over = Event()
        Thread(target=self._loop, args=(over,), name="watchdog", daemon=True).start()

    @override
    def stopService(self) -> None:
        super().stopService()
        self._over.set()

    def _loop(self, over: Event) -> None:
        while not over.wait(_LOOK_S):
            self.look()

    def look(self) -> None:
        """Look once.  Called by the thread."""
        now_s, ticks = self._seconds(), self._probe.ticks
        # Where we were late ourselves, the whole process, or the machine, stood still.
        late = now_s - self._looked_s > self._stuck_s / 2 + _LOOK_S
        self._looked_s = now_s
        if ticks != self._ticks or late:
            self._ticks = ticks
            self._since_s = now_s
            self._told = False
            return
        if self._told or now_s - self._since_s < self._stuck_s:
            return
        self._told = True
        inner, outer = calls(self._frames().get(self._whose))
        log.warn(
            "The reactor has answered nobody for {stuck_s:.1f} s and is at: {stack} < {callers}",
            ev="reactor_stuck",
            stuck_s=now_s - self._since_s,
            stack=inner,
            callers=outer,
        )


def calls(frame: FrameType | None) -> tuple[str, str]:
    """
    Name the innermost calls of a stack, the last first: no arguments, no values.

    In two halves, since a field of the log is cut after 256 characters.
    """
    told: list[str] = []
    while frame is not None and len(told) < 2 * _HALF:
        code = frame.f_code
        told.append(f"{code.co_name} {PurePath(code.co_filename).name}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(told[:_HALF]), " < ".join(told[_HALF:])
