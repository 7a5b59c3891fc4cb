"""
Many coarse deadlines for the price of one timer.

Connections arm and disarm deadlines all the time; a reactor call each would leave a heap full of
cancelled entries.  The wheel keeps one set per tick and looks at one set per tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()

# How long calls of one tick may take before others have their turn.
_SLICE_S: Final = 0.01


class Deadline:
    """One armed deadline; `cancel` disarms it, at any time, any number of times."""

    __slots__ = ("_call", "_due", "_slots")

    def __init__(self, call: Callable[[], None], slots: dict[int, set[Deadline]], due: int) -> None:
        self._call: Callable[[], None] | None = call
        self._slots = slots
        self._due = due

    def cancel(self) -> None:
        """Disarm."""
        self._call = None
        slot = self._slots.get(self._due)
        if slot is not None:
            slot.discard(self)
            if not slot:
                # Its time may be far away, and no turn looks at a time before the timer began.
                del self._slots[self._due]

    def _expire(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class DeadlineWheel:
    """
    Deadlines of one tick's precision: a call comes at its time or up to one tick later.

    When very many come at once, others have their turn in between.

    No timer runs while nothing is armed.

    :param tick_s: seconds between two looks.
    """

    def __init__(self, clock: IReactorTime, tick_s: float = 0.5) -> None:
        self._clock = clock
        self._tick_s = tick_s
        self._slots: dict[int, set[Deadline]] = {}
        self._overdue: deque[Deadline] = deque()
        self._now = int(clock.seconds() / tick_s)
        self._timer: IDelayedCall | None = None

    def arm(self, delay_s: float, call: Callable[[], None]) -> Deadline:
        """Have ``call`` called in ``delay_s`` seconds unless cancelled before."""
        due = int((self._clock.seconds() + delay_s) / self._tick_s) + 1
        slot = self._slots.get(due)
        if slot is None:
            slot = self._slots[due] = set()
        deadline = Deadline(call, self._slots, due)
        slot.add(deadline)
        if self._timer is None:
            self._now = int(self._clock.seconds() / self._tick_s)
            self._timer = self._clock.callLater(self._tick_s, self._turn)
        return deadline

    def _turn(self) -> None:
        self._timer = None
        began_s = self._clock.seconds()
        now = int(began_s / self._tick_s)
        overdue = self._overdue
        for due in range(self._now, now + 1):
            overdue.extend(self._slots.pop(due, ()))
        until_s = began_s + _SLICE_S
        while overdue:
            try:
                overdue.popleft()._expire()
            except Exception:
                log.failure("A deadline's call failed")
            if overdue and self._clock.seconds() >= until_s:
                break
        # Only now: a call that stood still and then armed has moved it past slots not looked at.
        self._now = now + 1
        if overdue:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.callLater(0, self._turn)
            return
        if self._timer is not None:
            return  # A call armed the next one, and the timer with it.
        if self._slots:
            self._timer = self._clock.callLater(self._tick_s, self._turn)

    def stop(self) -> None:
        """Forget every deadline."""
        self._slots.clear()
        self._overdue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
