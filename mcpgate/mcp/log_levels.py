"""
One log level for many requests: a legacy session has one, modern requests have one each.

The session is set to the most talkative level that a request in work wants; each request is shown
what is severe enough for itself.
"""

from __future__ import annotations

from typing import Final

LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
_RANKS: Final = {name: rank for rank, name in enumerate(LEVELS)}


def is_severe(wanted: str, level: object) -> bool:
    """Tell whether a line of ``level`` is for a request that wants ``wanted``; empty: none is."""
    rank = _RANKS.get(level) if isinstance(level, str) else None
    return wanted in _RANKS and rank is not None and rank >= _RANKS[wanted]


class LogLevels:
    """
    The levels that requests in work want of one server.

    :ivar current: what the server was told last; empty before that.
    """

    __slots__ = ("_wanted", "current")

    def __init__(self) -> None:
        self.current = ""
        self._wanted: dict[object, str] = {}

    def begin(self, request: object, level: str) -> str:
        """
        Note that a request wants lines of ``level``.

        :return: the level to set now, or empty when the server has it already.
        """
        self._wanted[request] = level
        wanted = min(self._wanted.values(), key=_RANKS.__getitem__)
        if wanted == self.current:
            return ""
        self.current = wanted
        return wanted

    def end(self, request: object) -> None:
        """Note that a request is over; the level stays until the next one wants another."""
        self._wanted.pop(request, None)

    def refused(self, level: str) -> None:
        """Note that the server did not take a level."""
        if self.current == level:
            self.current = ""
