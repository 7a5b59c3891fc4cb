"""Tests of mcpgate.runtime.docker.stdio: frames and streams."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import MIB
from mcpgate.runtime.docker.stdio import BrokenFrames, FrameSplitter, Streams, attach
from mcpgate.runtime.ring import LineRing
from mcpgate.telemetry.meters import Meters


def frame(stream: int, data: bytes) -> bytes:
    """Make a frame as the engine does."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class FrameTests(SynchronousTestCase):
    """`FrameSplitter`."""

    @given(
        st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=40)), max_size=8),
        st.lists(st.integers(1, 30), max_size=20),
    )
    @settings(max_examples=100)
    def test_any_boundaries(self, frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
        """Wherever the bytes are cut, each stream gets its own, in order."""
        got: dict[int, bytes] = {0: b"", 1: b"", 2: b""}

        def out(stream: int, data: bytes) -> None:
            got[stream] += data

        splitter = FrameSplitter(out)
        data = b"".join(frame(*each) for each in frames)
        for cut in cuts:
            splitter.feed(data[:cut])
            data = data[cut:]
        splitter.feed(data)
        for stream, data in got.items():
            self.assertEqual(data, b"".join(d for s, d in frames if s == stream))

    def test_something_else(self) -> None:
        """What is no frame is refused."""
        for data in (b"HTTP/1.1", b"\x03\0\0\0\0\0\0\1", b"\x01\0\1\0\0\0\0\1"):
            with self.assertRaises(BrokenFrames):
                FrameSplitter(lambda *_: None).feed(data)

    def test_holds_nothing(self) -> None:
        """A frame of four gigabytes is passed on as it comes."""
        got: list[int] = []
        splitter = FrameSplitter(lambda _, data: got.append(len(data)))
        splitter.feed(b"\1\0\0\0\xff\xff\xff\xff" + b"x" * 1000)
        splitter.feed(b"x" * 1000)
        self.assertEqual(got, [1000, 1000])


class Pipe(StringTransport):
    """A transport as Streams wants it."""

    reading = True
    half_closed = False

    def startReading(self) -> None:  # noqa: N802  # Twisted's
        """Read."""
        self.reading = True

    def stopReading(self) -> None:  # noqa: N802  # Twisted's
        """Do not."""
        self.reading = False

    def loseWriteConnection(self) -> None:
        """Close one half."""
        self.half_closed = True


class StreamsTests(SynchronousTestCase):
    """`Streams`."""

    def make(self, *, stdio: bool = True) -> Streams:
        """Make one, connected."""
        self.clock = Clock()
        self.ring = LineRing()
        self.meters = Meters()
        self.lost: list[int] = []
        self.pipe = Pipe()
        streams = Streams(
            self.clock,
            name="x",
            stdio=stdio,
            ring=self.ring,
            meters=self.meters,
            lost=lambda: self.lost.append(1),
        )
        streams.makeConnection(self.pipe)
        return streams

    def lose(self, streams: Streams) -> None:
        """Break the connection."""
        streams.connectionLost(Failure(ConnectionDone()))

    def test_lines(self) -> None:
        """Stdout is lines for who attached, stderr is for the log."""
        streams = self.make()
        assert streams.channel is not None
        self.assertFalse(self.pipe.reading)
        got: list[bytes] = []
        streams.channel.attach(got.append)
        self.assertTrue(self.pipe.reading)
        streams.dataReceived(frame(1, b"on") + frame(2, b"oops\n") + frame(1, b"e\ntwo\n"))
        self.assertEqual(got, [b"one", b"two"])
        self.assertEqual(self.ring.lines(), ["oops"])
        self.assertTrue(streams.channel.send(b"hello"))
        self.assertEqual(self.pipe.value(), b"hello\n")
        streams.close_stdin()
        streams.close_stdin()
        self.assertTrue(self.pipe.half_closed)
        self.assertTrue(streams.channel.send(b"nobody hears this"))
        self.assertEqual(self.pipe.value(), b"hello\n")
        self.lose(streams)
        self.assertEqual(self.lost, [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_backpressure(self) -> None:
        """Who pauses the channel pauses the connection."""
        streams = self.make()
        assert streams.channel is not None
        streams.channel.attach(lambda _: None)
        streams.channel.pause()
        self.assertFalse(self.pipe.reading)
        streams.channel.resume()
        self.assertTrue(self.pipe.reading)

    def test_flood(self) -> None:
        """Who floods the log waits for the next second (R39)."""
        for stdio in (True, False):
            streams = self.make(stdio=stdio)
            if streams.channel is not None:
                streams.channel.attach(lambda _: None)
            streams.dataReceived(frame(2, b"x" * (MIB + 1)))
            self.assertFalse(self.pipe.reading)
            self.clock.advance(1.0)
            self.assertTrue(self.pipe.reading)
            self.assertEqual(self.meters.events["stdio_noise"], 1)
            streams.dataReceived(frame(2, b"little"))
            self.clock.advance(1.0)
            self.assertEqual(self.meters.events["stdio_noise"], 1)

    def test_http_server(self) -> None:
        """All that an HTTP server prints is for the log."""
        streams = self.make(stdio=False)
        self.assertIsNone(streams.channel)
        streams.dataReceived(frame(1, b"out\n") + frame(2, b"err\n"))
        self.assertEqual(self.ring.lines(), ["out", "err"])
        streams.close_stdin()
        streams.drain()
        self.lose(streams)

    def test_drain(self) -> None:
        """After the end all is read, though nobody listens."""
        streams = self.make()
        self.assertFalse(self.pipe.reading)
        streams.drain()
        self.assertTrue(self.pipe.reading)
        self.lose(streams)
        streams.drain()
        streams.abort()

    def test_broken(self) -> None:
        """A connection that is none of frames is let go."""
        streams = self.make(stdio=False)
        streams.dataReceived(b"HTTP/1.1 500")
        self.assertTrue(self.pipe.disconnecting)

    def test_half_closed(self) -> None:
        """When the engine sends no more, the connection is over."""
        streams = self.make()
        streams.writeConnectionLost()
        streams.readConnectionLost()
        self.assertTrue(self.pipe.disconnecting)


class AttachTests(SynchronousTestCase):
    """`attach` on what is no plain socket."""

    def test_encrypted(self) -> None:
        """An engine behind TLS or ssh is refused with a clear text."""

        class Client:
            def attach_socket(self, *_: Any, **__: Any) -> object:
                return object()

        with self.assertRaisesRegex(OSError, "plain socket"):
            attach(Client(), "c", stdin=True)
