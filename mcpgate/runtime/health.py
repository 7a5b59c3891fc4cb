"""
Whether a running copy still answers, and when its silence is long enough to end it.

Pure: takes clock readings and what was seen, gives verdicts.  Silence alone is no death: a server
that computes, or waits for something else within a call, may answer nobody meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcpgate.model import Usage

WORKING: Final = 0.01
"""Who uses this part of one processor, or more, is at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """
    How long a server may be silent.

    :ivar failures: questions in a row that may stay unanswered before it can be given up.
    :ivar call_s: what is at work on a call may take so long; ``busy_s``: what visibly works.
    """

    failures: int
    call_s: float
    busy_s: float


@dataclass(slots=True)
class Health:
    """
    What is known of one copy.

    :ivar missed: questions in a row that nothing was heard after.
    :ivar silent_since: clock reading of the first of them.
    :ivar busy: between the last two of them it was seen at work.
    """

    missed: int = 0
    silent_since: float = 0.0
    busy: bool = False
    _looked_at: float = 0.0
    _cpu_s: float | None = None
    _lines: int = 0

    def answered(self) -> bool:
        """Take note of a sign of life; tells whether it was missed."""
        missed, self.missed, self.busy = self.missed, 0, False
        return missed > 0

    def note_silence(self, now: float, asked_s: float, usage: Usage, lines: int) -> None:
        """
        Take note that nothing was heard since ``asked_s``.

        :param lines: how many it has written to its log so far.
        """
        if self.missed:
            self.busy = lines > self._lines or self._works(now, usage.cpu_s)
        else:
            self.silent_since = asked_s
        self.missed += 1
        self._looked_at, self._cpu_s, self._lines = now, usage.cpu_s, lines

    def _works(self, now: float, cpu_s: float | None) -> bool:
        if cpu_s is None or self._cpu_s is None:
            return False
        used_s = cpu_s - self._cpu_s
        return used_s > 0 and used_s >= WORKING * (now - self._looked_at)

    def given_up(self, now: float, patience: Patience, *, in_work: bool) -> bool:
        """
        Tell whether it is to be taken for dead.

        What it had in work when the silence began has had all the time a call may take by then;
        what came later waits behind that, and is no excuse.

        :param in_work: somebody waits for an answer of it.
        """
        if self.missed < patience.failures:
            return False
        silent_s = now - self.silent_since
        if self.busy:
            return silent_s >= patience.busy_s
        return not in_work or silent_s >= patience.call_s
