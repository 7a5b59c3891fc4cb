"""Lines to and from a child."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.interfaces import IStdioChannel
from mcpgate.runtime.channel import StdioChannel
from mcpgate.telemetry.meters import Meters
from tests.runtime.pipes import FakePipe


class StdioChannelTests(SynchronousTestCase):
    """Both directions, bounded."""

    def setUp(self) -> None:
        """Make a channel with small bounds."""
        self.stdin, self.stdout = FakePipe(), FakePipe()
        self.pipes = {0: self.stdin, 1: self.stdout}
        self.meters = Meters()
        self.channel = StdioChannel(
            self.pipes, name="i", meters=self.meters, queue_bytes=100, line_bytes=10
        )
        self.got: list[bytes] = []

    def test_provides(self) -> None:
        """It is an `IStdioChannel`."""
        verifyObject(IStdioChannel, self.channel)

    def test_send(self) -> None:
        """A line is written with its newline."""
        self.assertTrue(self.channel.send(b"hello"))
        self.assertEqual(self.stdin.written, [b"hello\n"])

    def test_long_line(self) -> None:
        """A long line is handed over in pieces."""
        self.channel.send(b"x" * 200_000)
        self.assertEqual(sum(map(len, self.stdin.written)), 200_001)
        self.assertLessEqual(max(map(len, self.stdin.written)), 65536)

    def test_child_that_does_not_read(self) -> None:
        """While the pipe is full lines wait, up to the bound; then they are refused."""
        self.channel.pauseProducing()
        self.assertTrue(self.channel.send(b"x" * 90))
        self.assertTrue(self.channel.send(b"x" * 90))
        self.assertFalse(self.channel.send(b"x"))
        self.assertEqual(self.stdin.written, [])
        self.channel.resumeProducing()
        self.assertEqual(len(b"".join(self.stdin.written)), 182)
        self.assertTrue(self.channel.send(b"x"))

    def test_stdin_gone(self) -> None:
        """When the child has closed its stdin, lines are lost: its end tells whoever waits."""
        self.channel.pauseProducing()
        self.channel.send(b"x" * 90)
        del self.pipes[0]
        self.channel.stopProducing()
        self.channel.resumeProducing()
        self.assertTrue(self.channel.send(b"x"))
        self.assertEqual(self.stdin.written, [])

    def test_nothing_is_read_before_attach(self) -> None:
        """No line is lost for want of a receiver."""
        self.assertFalse(self.stdout.reading)
        self.channel.attach(self.got.append)
        self.assertTrue(self.stdout.reading)
        self.channel.feed(b"one\ntwo\n")
        self.assertEqual(self.got, [b"one", b"two"])

    def test_pause(self) -> None:
        """A paused receiver gets nothing, later everything, in order."""
        self.channel.attach(self.pause_after_first)
        self.channel.feed(b"one\ntwo\nthree\n")
        self.assertEqual((self.got, self.stdout.reading), ([b"one"], False))
        self.channel.attach(self.got.append)
        self.channel.resume()
        self.assertEqual((self.got, self.stdout.reading), ([b"one", b"two", b"three"], True))

    def pause_after_first(self, line: bytes) -> None:
        """Take one line."""
        self.got.append(line)
        self.channel.pause()

    def test_noise(self) -> None:
        """A line over the bound is dropped and counted; only its two ends are told."""
        self.channel.attach(self.got.append)
        self.channel.feed(b"x" * 11 + b"\nok\n")
        self.assertEqual(
            (self.got, self.meters.events["stdio_noise"]),
            ([b"x" * 11 + b"\0" + b"x" * 11, b"ok"], 1),
        )

    def test_receiver_with_a_bug(self) -> None:
        """A line that trips the receiver does not cost the others."""

        def trip(line: bytes) -> None:
            self.got.append(line)
            raise ZeroDivisionError

        self.channel.attach(trip)
        self.channel.feed(b"one\ntwo\n")
        self.assertEqual(self.got, [b"one", b"two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_drain(self) -> None:
        """The rest of a dead child is read, paused or not, listened to or not."""
        self.channel.attach(self.got.append)
        self.channel.pause()
        self.channel.feed(b"last\n")
        self.channel.drain()
        self.assertEqual((self.got, self.stdout.reading), ([b"last"], True))
        nobody = StdioChannel({1: FakePipe()}, name="i", meters=self.meters)
        nobody.drain()
        nobody.feed(b"unheard\n")
        closed = StdioChannel({}, name="i", meters=self.meters)
        closed.pause()
