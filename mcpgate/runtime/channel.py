"""
Lines to and from a child's stdin and stdout.

Neither direction holds much: stdout is not read while the receiver is paused, and stdin takes no
more lines while too much waits for a child that does not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.interfaces import IStdioChannel
from mcpgate.model import KIB, MIB
from mcpgate.runtime.lines import LineSplitter
from mcpgate.telemetry.meters import Meters

log = Logger()

STDIN: Final = 0
STDOUT: Final = 1

_PIECE_BYTES: Final = 64 * KIB


@implementer(IStdioChannel, IPushProducer)
class StdioChannel:
    """
    See `IStdioChannel`.

    Stdout is not read before `attach`, so no line is lost.  What is noise (a line over the
    bound) is dropped and counted as ``stdio_noise``; what is not JSON, the upstream decides.

    :param pipes: the process transport's: file descriptor to reader or writer.
    :param queue_bytes: `send` refuses while more than this waits.
    :param line_bytes: longest line passed on.
    """

    def __init__(
        self,
        pipes: dict[int, Any],
        *,
        name: str,
        meters: Meters,
        queue_bytes: int = MIB,
        line_bytes: int = 4 * MIB,
    ) -> None:
        self._pipes = pipes
        self._name = name
        self._meters = meters
        self._limit = queue_bytes
        self._queue: deque[memoryview] = deque()
        self._waiting = 0
        self._full = False
        self._paused = False
        self._received: Callable[[bytes], None] | None = None
        self._splitter = LineSplitter(self._line, self._noise, line_bytes, remnant=self._line)
        # Lines that were complete in the last chunk read, while the receiver is paused.
        self._kept: deque[bytes] = deque()
        self._set_reading()
        writer = pipes.get(STDIN)
        if writer is not None:
            writer.registerProducer(self, True)

    # --- Towards the child --------------------------------------------------------------------

    def send(self, line: bytes) -> bool:
        """
        See `IStdioChannel.send`.

        When the child's stdin is closed a line is taken, and lost: mostly the child has just died,
        and its end tells whoever waits for an answer.
        """
        if STDIN not in self._pipes:
            return True
        if self._waiting > self._limit:
            return False
        if not self._full and not self._queue and len(line) < _PIECE_BYTES:
            self._pipes[STDIN].write(line + b"\n")
            return True
        data = memoryview(line + b"\n")
        for start in range(0, len(data), _PIECE_BYTES):
            self._queue.append(data[start : start + _PIECE_BYTES])
        self._waiting += len(data)
        self._flush()
        return True

    def _flush(self) -> None:
        writer = self._pipes.get(STDIN)
        while self._queue and not self._full and writer is not None:
            piece = self._queue.popleft()
            self._waiting -= len(piece)
            writer.write(bytes(piece))

    def pauseProducing(self) -> None:
        """Hold back: the pipe's buffer is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Go on: the child has read."""
        self._full = False
        self._flush()

    def stopProducing(self) -> None:
        """Forget what waits: the child's stdin is gone."""
        self._queue.clear()
        self._waiting = 0

    # --- From the child -----------------------------------------------------------------------

    def attach(self, received: Callable[[bytes], None]) -> None:
        """See `IStdioChannel.attach`."""
        self._received = received
        self._release()

    def pause(self) -> None:
        """See `IStdioChannel.pause`."""
        self._paused = True
        self._set_reading()

    def resume(self) -> None:
        """See `IStdioChannel.resume`."""
        self._paused = False
        self._release()

    def drain(self) -> None:
        """Read to the end, paused or not: the child is dead and the pipe's rest is small."""
        self._paused = False
        if self._received is None:
            self._received = _ignore
        self._release()

    def feed(self, data: bytes) -> None:
        """Take what was read from stdout."""
        self._splitter.feed(data)

    def _release(self) -> None:
        while self._kept and self._flows():
            self._pass_on(self._kept.popleft())
        self._set_reading()

    def _flows(self) -> bool:
        return not self._paused and self._received is not None

    def _set_reading(self) -> None:
        reader = self._pipes.get(STDOUT)
        if reader is None:
            return
        if self._flows():
            reader.startReading()
        else:
            reader.stopReading()

    def _line(self, line: bytes) -> None:
        if self._kept or not self._flows():
            self._kept.append(line)
        else:
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        assert self._received is not None
        try:
            self._received(line)
        except Exception:
            # A border: one line that trips the receiver must not cost the child its pipe.
            log.failure("A line of {instance} was not taken", instance=self._name)

    def _noise(self) -> None:
        self._meters.events["stdio_noise"] += 1
        log.warn("Dropped a line of {instance}: too long", instance=self._name)


def _ignore(line: bytes) -> None:
    """Drop what a child said that nobody ever listened to."""
