"""
Garbage collection in pauses that nobody notices.

Python frees most things when they are let go of; what is left are cycles, and to find them the
collector walks through everything there is, with the reactor standing still: a fifth of a second
with 100 000 sessions.  What survives a long walk is therefore set aside (``gc.freeze``) at its
end: the next one only sees what came since.  A thing set aside is still freed when it is let go
of, but for cycles; so everything is looked through again now and then, when that was long ago.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from typing_extensions import override

from mcpgate.telemetry.meters import Meters

PAUSE_S: Final = 0.01
THAW_S: Final = 6 * 3600.0


class Garbage(Service):
    """
    Looks after the collector of the whole process: only for a gate that has it to itself.

    :param pause_s: what survives a walk that took longer is set aside.
    :param thaw_s: after so long everything is looked through again.
    :param collector: the module ``gc``; ``seconds`` times its pauses.
    """

    def __init__(
        self,
        clock: IReactorTime,
        meters: Meters,
        *,
        pause_s: float = PAUSE_S,
        thaw_s: float = THAW_S,
        collector: Any = gc,
        seconds: Callable[[], float] = perf_counter,
    ) -> None:
        self.setName("garbage")
        self._clock = clock
        self._meters = meters
        self._pause_s = pause_s
        self._thaw_s = thaw_s
        self._gc = collector
        self._seconds = seconds
        self._began_s = 0.0
        self._next: IDelayedCall | None = None

    @override
    def startService(self) -> None:
        """Set aside what was imported and built: it stays as long as the process."""
        super().startService()
        self._look_through()
        self._gc.callbacks.append(self._walked)

    @override
    def stopService(self) -> None:
        """Leave the collector as it was.  Idempotent: a start that failed stops twice."""
        if not self.running:
            return
        super().stopService()
        self._gc.callbacks.remove(self._walked)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._gc.unfreeze()

    def _look_through(self) -> None:
        self._gc.unfreeze()
        self._gc.collect()
        self._gc.freeze()
        self._next = self._clock.callLater(self._thaw_s, self._look_through)

    def _walked(self, phase: str, info: dict[str, int]) -> None:
        # Called in the middle of anything, on any thread.
        if info["generation"] != 2:
            return
        if phase == "start":
            self._began_s = self._seconds()
            return
        took_s = self._seconds() - self._began_s
        self._meters.longest_collection_s = max(self._meters.longest_collection_s, took_s)
        if took_s > self._pause_s:
            self._gc.freeze()
