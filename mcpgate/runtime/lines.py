"""
Bytes to lines, bounded.

`twisted.protocols.basic.LineReceiver` copies what it holds with every chunk of a long line; this
keeps chunks and joins once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcpgate.model import MIB

# Of each end of a line that is too long.
END_BYTES: Final = 512


class LineSplitter:
    """
    Calls ``line`` with each line that is not empty, without its newline and carriage return.

    :param limit_bytes: a longer line is dropped: not held, not passed on; ``dropped`` is called
        once for it, as soon as it is too long.
    :param remnant: called when such a line has ended with its two ends, a NUL between them: enough
        to tell whose answer it would have been.
    """

    def __init__(
        self,
        line: Callable[[bytes], None],
        dropped: Callable[[], None],
        limit_bytes: int = 4 * MIB,
        remnant: Callable[[bytes], None] | None = None,
    ) -> None:
        self._line = line
        self._dropped = dropped
        self._limit = limit_bytes
        self._held: list[bytes] = []
        self._size = 0
        self._skipping = False
        self._remnant = remnant
        self._head = b""
        self._tail = b""

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
            self._cut(self._head, self._tail + tail)
            return
        if self._held:
            self._held.append(tail)
            tail = b"".join(self._held)
            self._held = []
            self._size = 0
        if len(tail) > self._limit:
            self._dropped()
            self._cut(tail, tail)
            return
        # CRLF of a server on the wrong side of the platform border; CR elsewhere is JSON's
        # white space and none of our business.
        if tail.endswith(b"\r"):
            tail = tail[:-1]
        if tail:
            self._line(tail)

    def _hold(self, data: bytes) -> None:
        if self._skipping:
            self._tail = (self._tail + data)[-END_BYTES:]
            return
        self._size += len(data)
        self._held.append(data)
        if self._size <= self._limit:
            return
        self._head = b"".join(self._held)[:END_BYTES]
        self._tail = data[-END_BYTES:]
        self._held = []
        self._size = 0
        self._skipping = True
        self._dropped()

    def _cut(self, head: bytes, tail: bytes) -> None:
        if self._remnant is not None:
            self._remnant(head[:END_BYTES] + b"\0" + tail[-END_BYTES:])
