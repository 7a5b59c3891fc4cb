"""
What a container prints and reads, over the engine's attach connection in the reactor.

Without a terminal the engine sends frames: one byte for the stream, three of nothing, four of
length, then that much.  A frame is never held: its parts are passed on as they arrive.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.model import MIB
from mcpgate.runtime.channel import STDIN, STDOUT, StdioChannel
from mcpgate.runtime.ring import LineRing
from mcpgate.telemetry.meters import Meters

log = Logger()

_HEADER_BYTES: Final = 8
_STDERR: Final = 2
_LOG_BYTES_PER_S: Final = MIB


class BrokenFrames(ValueError):  # noqa: N818  # as the field says it
    """The bytes are not frames of the engine."""


class FrameSplitter:
    """
    Calls ``out`` with the number of a stream (1: stdout, 2: stderr) and some of its bytes.

    Holds at most seven bytes.
    """

    def __init__(self, out: Callable[[int, bytes], None]) -> None:
        self._out = out
        self._head = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> None:
        """
        Take what was read, whatever its boundaries.

        :raises BrokenFrames: this is something else.
        """
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left] if at or self._left < end else data
                at += len(piece)
                self._left -= len(piece)
                self._out(self._stream, piece)
                continue
            missing = _HEADER_BYTES - len(self._head)
            self._head += data[at : at + missing]
            at += missing
            if len(self._head) == _HEADER_BYTES:
                head, self._head = self._head, b""
                if head[0] > _STDERR or head[1:4] != b"\0\0\0":
                    raise BrokenFrames("not a frame of the engine")
                self._stream, self._left = head[0], int.from_bytes(head[4:], "big")


@dataclass(frozen=True, slots=True)
class Attached:
    """
    A connection to the streams of a container.

    :ivar handle: its file descriptor; whoever has this closes it.
    :ivar family: of the socket.
    :ivar early: what was read already.
    """

    handle: int
    family: int
    early: bytes

    def close(self) -> None:
        """Let go of the connection."""
        os.close(self.handle)


def attach(client: Any, container_id: str, *, stdin: bool) -> Attached:
    """Attach to a container; blocks.  Nothing of the SDK is left in the way of the bytes."""
    wanted = {"stdin": int(stdin), "stdout": 1, "stderr": 1, "stream": 1, "logs": 0}
    opened = client.attach_socket(container_id, params=wanted)
    plain = getattr(opened, "_sock", None)
    response = getattr(opened, "_response", None)
    if not isinstance(plain, socket.socket) or response is None:
        raise OSError("streams of containers need an engine on a plain socket (unix:// or tcp://)")
    plain.setblocking(False)
    # The answer's head was read through a buffer, which may have got some of what follows.
    early = bytes(response.raw._fp.fp.peek(1))
    handle = os.dup(plain.fileno())
    response.close()
    return Attached(handle, plain.family, early)


@implementer(IHalfCloseableProtocol)
class Streams(Protocol):
    """
    Both ends of a container's streams.

    What it writes to stderr (and stdout, for a server on HTTP) goes to ``ring``.  Who writes more
    than a MiB of that in a second waits for the rest of it, so nobody waits for him (R39).

    :param lost: called once when the connection is over.
    :ivar channel: of a server on stdio, once connected.
    """

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        *,
        name: str,
        stdio: bool,
        ring: LineRing,
        meters: Meters,
        lost: Callable[[], None],
    ) -> None:
        self.channel: StdioChannel | None = None
        self._clock = clock
        self._name = name
        self._stdio = stdio
        self._ring = ring
        self._meters = meters
        self._lost = lost
        self._frames = FrameSplitter(self._received)
        self._pipes: dict[int, Any] = {}
        self._logged = 0
        self._second: IDelayedCall | None = None

    @override
    def connectionMade(self) -> None:
        if self._stdio:
            reader = _Reader(self.transport)
            self._pipes = {STDIN: self.transport, STDOUT: reader}
            self._reader: _Reader | None = reader
            self.channel = StdioChannel(self._pipes, name=self._name, meters=self._meters)
        else:
            self._reader = None

    @override
    def dataReceived(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except BrokenFrames:
            log.error("The streams of {instance} are broken", instance=self._name)
            self.abort()

    def _received(self, stream: int, data: bytes) -> None:
        if self.channel is not None and stream != _STDERR:
            self.channel.feed(data)
            return
        self._ring.feed(data)
        self._logged += len(data)
        if self._second is None:
            self._second = self._clock.callLater(1.0, self._next_second)
        if self._logged > _LOG_BYTES_PER_S:
            self._hold(True)

    def _hold(self, holding: bool) -> None:
        if self._reader is not None:
            self._reader.hold(holding)
        elif holding:
            self.transport.stopReading()
        else:
            self.transport.startReading()

    def _next_second(self) -> None:
        self._second = None
        if self._logged > _LOG_BYTES_PER_S:
            self._meters.events["stdio_noise"] += 1
            self._hold(False)
        self._logged = 0

    def drain(self) -> None:
        """Read to the end, whoever listens: nobody is left who could write more."""
        if self.channel is not None:
            self.channel.drain()
        if self.connected:
            self._logged = 0
            self._hold(False)

    def close_stdin(self) -> None:
        """Let a server on stdio read to the end of its stdin."""
        if self._pipes.pop(STDIN, None) is not None:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def abort(self) -> None:
        """Let go at once."""
        if self.connected:
            self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`: the engine sends no more."""
        self.abort()

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`: it is ours to close, and we know."""

    @override
    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008  # as declared
        self._pipes.clear()
        if self._second is not None:
            self._second.cancel()
            self._second = None
        self._lost()


class _Reader:
    """
    Two who may stop reading from one connection: it is read when neither wants to wait.

    As the channel sees it, the pipe of a child's stdout.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._wanted = True
        self._held = False

    def startReading(self) -> None:  # noqa: N802  # as Twisted's descriptors say it
        """Go on, as far as the channel is concerned."""
        self._wanted = True
        self._set()

    def stopReading(self) -> None:  # noqa: N802  # as above
        """Wait."""
        self._wanted = False
        self._set()

    def hold(self, holding: bool) -> None:
        """Wait for the rest of the second, or go on."""
        self._held = holding
        self._set()

    def _set(self) -> None:
        if self._wanted and not self._held:
            self._transport.startReading()
        else:
            self._transport.stopReading()


def adopt(reactor: Any, attached: Attached, streams: Streams) -> None:
    """Hand a connection to the reactor."""
    try:
        os.set_blocking(attached.handle, False)
        reactor.adoptStreamConnection(
            attached.handle, attached.family, Factory.forProtocol(lambda: streams)
        )
    finally:
        attached.close()
    if attached.early:
        streams.dataReceived(attached.early)
