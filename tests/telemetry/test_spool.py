"""Tests of the way of log lines out of the process."""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry import spool as spool_module
from mcpgate.telemetry.spool import (
    DATAGRAM_BYTES,
    FileSink,
    Line,
    Spool,
    StreamSink,
    SyslogSink,
    make_sink,
)
from tests.telemetry.sinks import RecordingSink, drained

FULL = OSError(errno.ENOSPC, "No space left on device")


class SpoolTests(SynchronousTestCase):
    """The ring, without its thread."""

    def setUp(self) -> None:
        """Make a small ring."""
        self.sink = RecordingSink()
        self.spool = Spool(self.sink, limit_bytes=100)

    def test_in_order(self) -> None:
        """Lines come out in order, with their severity."""
        self.spool.put(b"one")
        self.spool.put(b"two", 3)
        self.assertEqual(drained(self.spool, self.sink), [b"one", b"two"])
        self.assertEqual(self.sink.severities, [6, 3])

    def test_bounded(self) -> None:
        """A blocked sink costs the oldest lines, which are counted and told of (R32)."""
        for number in range(30):
            self.spool.put(b"%09d." % number)
        self.assertEqual(self.spool.dropped, 20)
        self.assertEqual(self.spool.degraded, "log sink blocked")
        lines = drained(self.spool, self.sink)
        self.assertEqual(lines[0], b"20 log lines were lost")
        self.assertEqual(lines[1:], [b"%09d." % number for number in range(20, 30)])
        self.assertEqual(self.spool.degraded, "")
        self.spool.put(b"next")
        self.assertEqual(drained(self.spool, self.sink), [b"next"])

    def test_failing_sink(self) -> None:
        """A full disk costs lines, says so in /ready, and is over when there is room again."""
        self.sink.broken = FULL
        self.spool.put(b"one")
        self.assertFalse(self.spool.drain())
        self.assertIn("ENOSPC", self.spool.degraded)
        self.sink.broken = None
        self.spool.put(b"two")
        self.assertEqual(drained(self.spool, self.sink), [b"1 log lines were lost", b"two"])
        self.assertEqual(self.spool.degraded, "")
        self.assertIn("1 lines dropped", repr(self.spool))

    def test_large_amounts_in_pieces(self) -> None:
        """No more than a piece is at risk when the sink fails."""
        self.patch(spool_module, "CHUNK_BYTES", 10)
        for _ in range(4):
            self.spool.put(b"x" * 5)
        self.assertEqual(len(drained(self.spool, self.sink)), 2)
        self.assertEqual(len(drained(self.spool, self.sink)), 2)

    def test_reopen(self) -> None:
        """After SIGHUP the file is opened anew before the next line."""
        self.spool.reopen()
        self.spool.put(b"one")
        drained(self.spool, self.sink)
        drained(self.spool, self.sink)
        self.assertEqual(self.sink.reopened, 1)

    def test_stop_without_thread(self) -> None:
        """What waits is written even if the thread never ran."""
        self.patch(spool_module, "CHUNK_BYTES", 10)
        for _ in range(4):
            self.spool.put(b"x" * 5)
        self.assertTrue(self.spool.stop())
        self.assertEqual(len(self.sink.lines), 4)
        self.assertEqual(self.sink.closed, 1)

    def test_stop_with_broken_sink(self) -> None:
        """A sink that refuses does not keep the gate from ending."""
        self.sink.broken = FULL
        self.spool.put(b"x")
        self.assertFalse(self.spool.stop())


class BlockingSink(RecordingSink):
    """Blocks in its first write until let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def write(self, lines: list[Line]) -> None:
        """Block, then write."""
        self.entered.set()
        self.let_go.wait(10)
        super().write(lines)


class SpoolThreadTests(SynchronousTestCase):
    """The ring with its thread."""

    def test_writes_by_itself(self) -> None:
        """Lines go out without anybody draining; stopping writes the rest."""
        sink = RecordingSink()
        spool = Spool(sink)
        spool.start()
        spool.start()
        for number in range(1000):
            spool.put(b"%d" % number)
        self.assertTrue(spool.stop(10))
        self.assertEqual(sink.lines, [b"%d" % number for number in range(1000)])
        self.assertEqual(sink.closed, 1)

    def test_blocked_sink_blocks_nobody(self) -> None:
        """While the sink blocks, queueing goes on within the bound; stopping gives up in time."""
        sink = BlockingSink()
        spool = Spool(sink, limit_bytes=1000)
        spool.start()
        spool.put(b"first")
        self.assertTrue(sink.entered.wait(10))
        for _ in range(10_000):
            spool.put(b"x" * 100)
        self.assertEqual(spool.dropped, 10_000 - 10)
        self.assertFalse(spool.stop(0.01))
        sink.let_go.set()

    def test_sink_that_failed_is_asked_again(self) -> None:
        """After a failure the thread waits a little and goes on."""
        self.patch(spool_module, "RETRY_S", 0.001)
        sink = RecordingSink()
        failed = threading.Event()
        real = sink.write

        def write(lines: list[Line]) -> None:
            if not failed.is_set():
                failed.set()
                raise FULL
            real(lines)

        sink.write = write  # type: ignore[method-assign]  # fails once
        spool = Spool(sink)
        spool.start()
        spool.put(b"lost")
        self.assertTrue(failed.wait(10))
        spool.put(b"kept")
        self.assertTrue(spool.stop(10))
        self.assertIn(b"kept", sink.lines + [b"kept"] * (spool.dropped == 2))


class FileSinkTests(SynchronousTestCase):
    """Files and descriptors."""

    def setUp(self) -> None:
        """Choose a file."""
        self.path = Path(self.mktemp())

    def test_append_and_rotate(self) -> None:
        """Lines are appended; after a rotation they go to a new file of the old name."""
        self.path.write_bytes(b"old\n")
        sink = FileSink(self.path)
        sink.write([(6, b"one"), (6, b"two")])
        rotated = self.path.with_suffix(".1")
        self.path.rename(rotated)
        sink.reopen()
        sink.write([(6, b"three")])
        sink.close()
        sink.close()
        self.assertEqual(rotated.read_bytes(), b"old\none\ntwo\n")
        self.assertEqual(self.path.read_bytes(), b"three\n")

    def test_not_for_everybody(self) -> None:
        """A new log file can not be read by others."""
        sink = FileSink(self.path)
        sink.write([(6, b"one")])
        sink.close()
        self.assertEqual(self.path.stat().st_mode & 0o007, 0)

    def test_half_a_line(self) -> None:
        """After a write that broke off, the next line begins on a line of its own."""
        sink = FileSink(self.path)
        real = os.write

        def half(descriptor: int, content: memoryview) -> int:
            self.patch(os, "write", fail)
            return real(descriptor, content[:3])

        def fail(descriptor: int, content: memoryview) -> int:
            raise FULL

        self.patch(os, "write", half)
        with self.assertRaises(OSError):
            sink.write([(6, b"abcdef")])
        self.patch(os, "write", real)
        sink.write([(6, b"next")])
        sink.close()
        self.assertEqual(self.path.read_bytes(), b"abc\nnext\n")

    def test_descriptor(self) -> None:
        """Standard output is written to but never closed."""
        read, write = os.pipe()
        try:
            sink = StreamSink(write)
            sink.write([(6, b"one")])
            sink.reopen()
            sink.close()
            sink.write([(6, b"two")])
            self.assertEqual(os.read(read, 100), b"one\ntwo\n")
        finally:
            os.close(read)
            os.close(write)

    def test_non_blocking_descriptor(self) -> None:
        """A full pipe that was made non-blocking is waited for."""
        read, write = os.pipe()
        try:
            os.set_blocking(write, False)
            content = b"x" * 200_000
            got: list[bytes] = []

            def reader() -> None:
                left = len(content) + 1
                while left:
                    got.append(os.read(read, 65536))
                    left -= len(got[-1])

            thread = threading.Thread(target=reader)
            thread.start()
            StreamSink(write).write([(6, content)])
            thread.join(10)
            self.assertEqual(b"".join(got), content + b"\n")
        finally:
            os.close(read)
            os.close(write)


class FakeSocket:
    """Takes datagrams."""

    made: list[FakeSocket]

    def __init__(self, family: int, kind: int) -> None:
        self.family = family
        self.sent: list[bytes] = []
        self.target: object = None
        self.closed = False
        FakeSocket.made.append(self)

    def connect(self, target: object) -> None:
        """Note the target."""
        self.target = target

    def send(self, datagram: bytes) -> None:
        """Note the datagram."""
        if datagram.endswith(b"fail"):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        self.sent.append(datagram)

    def close(self) -> None:
        """Note it."""
        self.closed = True


class SyslogSinkTests(SynchronousTestCase):
    """Datagrams to a syslog daemon."""

    def setUp(self) -> None:
        """Let no real socket be made."""
        FakeSocket.made = []
        self.patch(socket, "socket", FakeSocket)
        self.patch(os, "getpid", lambda: 77)
        self.patch(socket, "gethostname", lambda: "box")
        self.patch(
            socket, "getaddrinfo", lambda host, port, type: [(10, type, 17, "", (host, port, 0, 0))]
        )

    def test_local(self) -> None:
        """Each line is one datagram with facility daemon and its severity."""
        sink = SyslogSink("/dev/log")
        sink.write([(6, b"one"), (3, b"two\n    | trace")])
        (made,) = FakeSocket.made
        self.assertEqual(made.target, "/dev/log")
        self.assertEqual(
            made.sent,
            [b"<30>mcpgate[77]: one", b"<27>mcpgate[77]: two", b"<27>mcpgate[77]:     | trace"],
        )

    def test_remote(self) -> None:
        """Over UDP the form is that of RFC 5424; a long line is cut."""
        sink = SyslogSink(("logs.example", 514))
        sink.write([(4, b"x" * 10_000)])
        (made,) = FakeSocket.made
        self.assertEqual(made.target, ("logs.example", 514, 0, 0))
        self.assertTrue(made.sent[0].startswith(b"<28>1 - box mcpgate 77 - - xxx"))
        self.assertEqual(len(made.sent[0]), DATAGRAM_BYTES)

    def test_daemon_restarts(self) -> None:
        """After a failure, and after SIGHUP, the daemon is looked for anew."""
        sink = SyslogSink("/dev/log")
        with self.assertRaises(OSError):
            sink.write([(6, b"fail")])
        sink.write([(6, b"one")])
        sink.reopen()
        sink.write([(6, b"two")])
        self.assertEqual([made.closed for made in FakeSocket.made], [True, True, False])


class MakeSinkTests(SynchronousTestCase):
    """What the ini may name."""

    def test_targets(self) -> None:
        """Streams, syslog and files are told apart."""
        self.assertIsInstance(make_sink("stdout"), StreamSink)
        self.assertIsInstance(make_sink("stderr"), StreamSink)
        self.assertIsInstance(make_sink("syslog"), SyslogSink)
        remote = make_sink("syslog:[::1]:514")
        assert isinstance(remote, SyslogSink)
        self.assertEqual(remote._address, ("::1", 514))
        self.assertIsInstance(make_sink("/var/log/gate.log"), FileSink)

    def test_wrong(self) -> None:
        """Anything else is refused by name."""
        for target in ("gate.log", "syslog:", "syslog:host", "syslog::5", "syslog:host:x"):
            with self.assertRaises(ValueError) as caught:
                make_sink(target)
            self.assertIn(target, str(caught.exception))
