"""
How long a server that crashes is left alone: backoff, then a breaker (R36).

Pure: takes ``now`` and luck, answers seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

LONGEST_BACKOFF_S: Final = 30.0
BREAKER_EXITS: Final = 5
BREAKER_WINDOW_S: Final = 60.0
BREAKER_OPEN_S: Final = 30.0


@dataclass(slots=True)
class Crashes:
    """
    The crashes of one instance.

    After the n-th in a row the next start waits 1, 2, 4 .. 30 s, more or less a fifth; after the
    first one of a copy that was serving it does not wait, since callers do.  After five within a
    minute no start is tried for 30 s; the first one after that is the probe: if it crashes within
    the minute, the breaker opens again.

    :ivar in_a_row: crashes since it last ran for a minute.
    :ivar not_before: clock reading before which no start is tried.
    :ivar open: the breaker is open until ``not_before``: callers are refused, not queued.
    """

    in_a_row: int = 0
    not_before: float = 0.0
    open: bool = False
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=BREAKER_EXITS))

    def note(self, now: float, ran_s: float, luck: float) -> None:
        """
        Count a crash.

        :param ran_s: how long it had been running, 0 when it never became ready.
        :param luck: a random number of [0, 1).
        """
        if ran_s >= BREAKER_WINDOW_S:
            self.in_a_row = 0
            self._recent.clear()
            self.open = False
        self.in_a_row += 1
        self._recent.append(now)
        crowded = len(self._recent) == BREAKER_EXITS and now - self._recent[0] < BREAKER_WINDOW_S
        if crowded or self.open:
            self.open = True
            self.not_before = now + BREAKER_OPEN_S
            return
        if self.in_a_row == 1 and ran_s > 0:
            self.not_before = now
            return
        wait_s = min(LONGEST_BACKOFF_S, 2.0 ** min(self.in_a_row - 1, 10))
        self.not_before = now + wait_s * (0.8 + 0.4 * luck)

    def wait_s(self, now: float) -> float:
        """Tell how long to wait before the next start."""
        return max(0.0, self.not_before - now)

    def refusing(self, now: float) -> bool:
        """Tell whether the breaker is open now."""
        return self.open and now < self.not_before

    def forgive(self) -> None:
        """Start anew: an operator said so, or the server's entry changed."""
        self.in_a_row = 0
        self.not_before = 0.0
        self.open = False
        self._recent.clear()
