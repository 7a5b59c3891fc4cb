"""
The way of log lines out of the process: a ring, one thread, a sink (R32).

The reactor only appends to the ring.  However long the sink blocks or fails, the ring stays
within its bound; the oldest lines are dropped and counted, and a line says how many.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Thread
from typing import Final, Protocol

from typing_extensions import override

from mcpgate.model import KIB, MIB

RING_BYTES: Final = 8 * MIB
CHUNK_BYTES: Final = 256 * KIB
RETRY_S: Final = 1.0
DATAGRAM_BYTES: Final = 8192

#: A line without its newline, and its syslog severity (RFC 5424, 6.2.1).
Line = tuple[int, bytes]


class Sink(Protocol):
    """Where lines go.  Every method is called on the spool's thread and may block."""

    def write(self, lines: list[Line]) -> None:
        """
        Write whole lines.

        :raises OSError: they, or some of them, were not written.
        """

    def reopen(self) -> None:
        """Open the file anew: it was renamed."""

    def close(self) -> None:
        """Let go."""


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Somebody made the terminal or pipe non-blocking; this thread may wait.
            select.select([], [descriptor], [], RETRY_S)


class StreamSink:
    """A descriptor that is open already: stdout, stderr."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, lines: list[Line]) -> None:
        """See `Sink.write`."""
        _write_all(self._descriptor, b"".join(line + b"\n" for _, line in lines))

    def reopen(self) -> None:
        """Do nothing: there is no name to open."""

    def close(self) -> None:
        """Do nothing: it is not ours."""


class FileSink:
    """A file that is only appended to; made with mode 0640."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._torn = False

    def write(self, lines: list[Line]) -> None:
        """See `Sink.write`."""
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)
        # A disk that was full may have taken half a line.
        start = b"\n" if self._torn else b""
        self._torn = True
        _write_all(self._descriptor, start + b"".join(line + b"\n" for _, line in lines))
        self._torn = False

    def reopen(self) -> None:
        """See `Sink.reopen`."""
        self.close()
        self._torn = False

    def close(self) -> None:
        """See `Sink.close`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SyslogSink:
    """
    A syslog daemon: the local one by its socket (RFC 3164 as libc writes it), or one by UDP
    (RFC 5424).

    :param address: a path, or host and port.
    """

    def __init__(self, address: str | tuple[str, int], facility: int = 3) -> None:
        self._address = address
        self._facility = facility
        self._socket: socket.socket | None = None

    def write(self, lines: list[Line]) -> None:
        """See `Sink.write`.  A line too long for a datagram is cut."""
        try:
            connected = self._connect()
            for severity, text in lines:
                for line in text.split(b"\n"):
                    connected.send(self._frame(severity, line)[:DATAGRAM_BYTES])
        except OSError:
            # The daemon may have been restarted: its socket is another one now.
            self.close()
            raise

    def _frame(self, severity: int, line: bytes) -> bytes:
        priority = self._facility * 8 + severity
        if isinstance(self._address, str):
            return b"<%d>mcpgate[%d]: %s" % (priority, os.getpid(), line)
        host = socket.gethostname().encode("ascii", "replace") or b"-"
        return b"<%d>1 - %s mcpgate %d - - %s" % (priority, host, os.getpid(), line)

    def _connect(self) -> socket.socket:
        if self._socket is None:
            if isinstance(self._address, str):
                family, target = socket.AF_UNIX, self._address
                self._socket = socket.socket(family, socket.SOCK_DGRAM)
                self._socket.connect(target)
            else:
                found = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)
                self._socket = socket.socket(found[0][0], socket.SOCK_DGRAM)
                self._socket.connect(found[0][4])
        return self._socket

    def reopen(self) -> None:
        """See `Sink.reopen`."""
        self.close()

    def close(self) -> None:
        """See `Sink.close`."""
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()


class Spool:
    """
    The ring and its thread.

    :param lost: makes the line that tells how many were lost.
    :ivar dropped: lines lost since the start.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        limit_bytes: int = RING_BYTES,
        lost: Callable[[int], bytes] = lambda count: b"%d log lines were lost" % count,
    ) -> None:
        self.dropped = 0
        self._sink = sink
        self._limit_bytes = limit_bytes
        self._lost = lost
        self._changed = Condition()
        self._ring: deque[Line] = deque()
        self._bytes = 0
        self._reported = 0
        self._reason = ""
        self._reopen = False
        self._stopping = False
        self._thread: Thread | None = None

    @property
    def degraded(self) -> str:
        """Tell why lines do not get out, or nothing: for ``/ready``."""
        if self._reason:
            return self._reason
        return "log sink blocked" if self._bytes > self._limit_bytes // 2 else ""

    def put(self, line: bytes, severity: int = 6) -> None:
        """Queue a line; from any thread, never blocking, never failing."""
        self.put_all([line], severity)

    def put_all(self, lines: list[bytes], severity: int = 6) -> None:
        """Queue several lines, as `put` does."""
        with self._changed:
            for line in lines:
                self._ring.append((severity, line))
                self._bytes += len(line)
            while self._bytes > self._limit_bytes:
                self._bytes -= len(self._ring.popleft()[1])
                self.dropped += 1
            self._changed.notify()

    def reopen(self) -> None:
        """Have the file opened anew before the next line: SIGHUP after a rotation."""
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def start(self) -> None:
        """Start the thread.  A daemon: a sink that blocks for ever does not keep us alive."""
        if self._thread is None:
            self._stopping = False
            self._thread = Thread(target=self._loop, name="log", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Write what waits; False if the sink did not take it in time.  Blocks so long."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        thread, self._thread = self._thread, None
        if thread is None:
            self._loop()
            return not self._reason
        thread.join(timeout_s)
        return not thread.is_alive()

    def drain(self) -> bool:
        """Write some of what waits, here and now; False when the sink refused."""
        lines: list[Line] = []
        taken = 0
        with self._changed:
            while self._ring and taken < CHUNK_BYTES:
                lines.append(self._ring.popleft())
                taken += len(lines[-1][1])
            self._bytes -= taken
            reopen, self._reopen = self._reopen, False
            lost = self.dropped - self._reported
        try:
            if reopen:
                self._sink.reopen()
            if lost:
                self._sink.write([(4, self._lost(lost))])
                self._reported += lost
            if lines:
                self._sink.write(lines)
        except OSError as error:
            # Some of them may be out; what is sure is that not all are.
            self.dropped += len(lines)
            self._reason = f"log sink failed: {errno.errorcode.get(error.errno or 0, 'error')}"
            return False
        self._reason = ""
        return True

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (self._ring or self._reopen or self._stopping):
                    self._changed.wait()
            written = self.drain()
            with self._changed:
                if self._stopping and (not written or not self._ring):
                    break
                if not written:
                    # A failing sink is asked once a second, not once a line.
                    self._changed.wait_for(lambda: self._stopping, RETRY_S)
        self._sink.close()

    @override
    def __repr__(self) -> str:
        return f"<Spool {self._bytes} bytes wait, {self.dropped} lines dropped>"


def make_sink(target: str) -> Sink:
    """
    Make the sink the ini names.

    :param target: ``stdout``, ``stderr``, ``syslog``, ``syslog:HOST:PORT`` or a path.
    :raises ValueError: it is none of these.
    """
    if target in ("stdout", "stderr"):
        return StreamSink(1 if target == "stdout" else 2)
    if target == "syslog":
        return SyslogSink("/dev/log")
    if target.startswith("syslog:"):
        host, colon, port = target.removeprefix("syslog:").rpartition(":")
        if not (colon and host and port.isdigit()):
            raise ValueError(f"{target!r} is not syslog:HOST:PORT")
        return SyslogSink((host.strip("[]"), int(port)))
    if not os.path.isabs(target):
        raise ValueError(f"{target!r} is not stdout, stderr, syslog or an absolute path")
    return FileSink(Path(target))
