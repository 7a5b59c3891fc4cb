"""
Bytes to lines, bounded.

`twisted.protocols.basic.LineReceiver` copies what it holds with every chunk of a long line; this
keeps chunks and joins once.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.model import MIB


class LineSplitter:
    """
    Calls ``line`` with each line that is not empty, without its newline and carriage return.

    :param limit_bytes: a longer line is dropped: not held, not passed on; ``dropped`` is called
        once for it, as soon as it is too long.
    """

    def __init__(
        self,
        line: Callable[[bytes], None],
        dropped: Callable[[], None],
        limit_bytes: int = 4 * MIB,
    ) -> None:
        self._line = line
        self._dropped = dropped
        self._limit = limit_bytes
        self._held: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Take what was read, whatever its boundaries."""
        start = 0
        while True:
            end = data.find(b"\n", start)
            if end < 0:
                break
            self._complete(data[start:end])
            start = end + 1
        if start < len(data):
            self._hold(data[start:] if start else data)

    def _complete(self, tail: bytes) -> None:
        if self._skipping:
            self._skipping = False
            return
        if self._held:
            self._held.append(tail)
            tail = b"".join(self._held)
            self._held = []
            self._size = 0
        if len(tail) > self._limit:
            self._dropped()
            return
        # CRLF of a server on the wrong side of the platform border; CR elsewhere is JSON's
        # white space and none of our business.
        if tail.endswith(b"\r"):
            tail = tail[:-1]
        if tail:
            self._line(tail)

    def _hold(self, data: bytes) -> None:
        if self._skipping:
            return
        self._size += len(data)
        if self._size <= self._limit:
            self._held.append(data)
            return
        self._held = []
        self._size = 0
        self._skipping = True
        self._dropped()
