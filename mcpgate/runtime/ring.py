"""
The last lines a server wrote to stderr, in bounded memory.

However fast it writes, the cost of a chunk is that of finding its last lines: what can not be
kept is not looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mcpgate.model import KIB


def printable(line: bytes) -> str:
    """
    Decode a line for people: control characters (colours, bells, line tricks) become spaces.

    Escape sequences of terminals are left without their ESC, so they do nothing.
    """
    text = line.decode("utf-8", "replace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


class LineRing:
    """
    Keeps the newest lines.

    :param lines: at most this many.
    :param total_bytes: at most this much in all of them.
    :param line_bytes: longer lines keep their beginning.
    :ivar seen_bytes: all that was ever written; ``seen_lines``: how many whole lines.
    """

    def __init__(
        self, *, lines: int = 200, total_bytes: int = 64 * KIB, line_bytes: int = KIB
    ) -> None:
        self.seen_bytes = 0
        self.seen_lines = 0
        self._limit = lines
        self._total = total_bytes
        self._line_bytes = line_bytes
        self._kept: deque[bytes] = deque(maxlen=lines)
        self._size = 0
        self._open = b""

    def feed(self, data: bytes) -> None:
        """Take what was read, whatever its boundaries."""
        self.seen_bytes += len(data)
        self.seen_lines += data.count(b"\n")
        parts = data.rsplit(b"\n", self._limit + 1)
        if len(parts) == 1:
            self._lengthen(data)
            return
        if len(parts) < self._limit + 2:
            self._lengthen(parts[0])
            self._keep(self._open)
        # Else the newest lines fill the ring, and what came before them is not worth a look.
        for line in parts[1:-1]:
            self._keep(line)
        self._open = b""
        self._lengthen(parts[-1])

    def _lengthen(self, data: bytes) -> None:
        room = self._line_bytes - len(self._open)
        if room > 0:
            self._open += data[:room]

    def _keep(self, line: bytes) -> None:
        line = line[: self._line_bytes].rstrip(b"\r")
        if len(self._kept) == self._limit:
            self._size -= len(self._kept[0])
        self._kept.append(line)
        self._size += len(line)
        while self._size > self._total and len(self._kept) > 1:
            self._size -= len(self._kept.popleft())

    def lines(self, hide: Iterable[str] = ()) -> list[str]:
        """
        Give the lines, oldest first, with the one that has no end yet.

        :param hide: texts replaced by ``***``: credentials a server may print.
        """
        return _shown([*self._kept, self._open] if self._open else list(self._kept), hide)

    def after(self, seen: int, hide: Iterable[str] = ()) -> list[str]:
        """Give the whole lines that came after so many, as far as they are kept."""
        new = min(self.seen_lines - seen, len(self._kept))
        return _shown(list(self._kept)[-new:], hide) if new > 0 else []


def _shown(raw: Iterable[bytes], hide: Iterable[str]) -> list[str]:
    shown = [printable(line) for line in raw]
    for secret in hide:
        shown = [line.replace(secret, "***") for line in shown]
    return shown
