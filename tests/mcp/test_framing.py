"""Server-Sent Events."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadBackendAnswer
from mcpgate.mcp.framing import SSEEvent, SSEReader, sse_comment, sse_event

STREAM = (
    b"\xef\xbb\xbf: hello\n"
    b"id: a\ndata:\nretry: 500\n\n"
    b"event: endpoint\r\ndata: /messages\r\n\r\n"
    b": ping\r\n\r\n"
    b'event: message\rdata: {"a":1}\r\r'
    b"data: one\r\ndata:two\ndata\rdata:  three\n\n"
    b"id: lost\n\nid: x\0y\nretry: 1x\nnonsense: 1\ndata: \xff\n\n"
    b"data: never ended\n"
)
EVENTS = [
    SSEEvent(b"", id="a", retry_ms=500),
    SSEEvent(b"/messages", "endpoint"),
    SSEEvent(b'{"a":1}'),
    SSEEvent(b"one\ntwo\n\n three"),
    SSEEvent(b"\xff"),
]
cuts: Any = st.lists(st.integers(0, len(STREAM)), max_size=12)


class ReaderTests(SynchronousTestCase):
    """Reading a stream."""

    def test_whole(self) -> None:
        """All line ends, many data lines, ids, retries and comments are understood."""
        reader = SSEReader()
        self.assertEqual(reader.feed(STREAM), EVENTS)
        self.assertEqual((reader.last_event_id, reader.retry_ms), ("lost", 500))

    def test_byte_by_byte(self) -> None:
        """The smallest pieces give the same events."""
        reader = SSEReader()
        events = [e for i in range(len(STREAM)) for e in reader.feed(STREAM[i : i + 1])]
        self.assertEqual(events, EVENTS)

    @settings(max_examples=100, deadline=None)
    @given(cuts)
    def test_any_split(self, cuts: list[int]) -> None:
        """However the network cuts the bytes, the events are the same."""
        reader = SSEReader()
        events: list[SSEEvent] = []
        last = 0
        for cut in [*sorted(cuts), len(STREAM)]:
            events += reader.feed(STREAM[last:cut])
            last = cut
        self.assertEqual(events, EVENTS)

    def test_bound(self) -> None:
        """An event beyond the bound breaks the stream, in one line or in many."""
        for pieces in ([b"data: 1234567890"], [b"data: 12\n"] * 3, [b"da", b"ta", b": 1234567\n"]):
            reader = SSEReader(limit_bytes=10)
            with self.assertRaises(BadBackendAnswer):
                for piece in pieces:
                    reader.feed(piece)
            self.assertRaises(BadBackendAnswer, reader.feed, b"")

    def test_bound_is_per_event(self) -> None:
        """Many small events and comments never reach the bound."""
        reader = SSEReader(limit_bytes=10)
        for _ in range(10):
            self.assertEqual(reader.feed(b"dat"), [])
            self.assertEqual(reader.feed(b"a: 1234\n\n: keepalive\n"), [SSEEvent(b"1234")])

    def test_empty(self) -> None:
        """No bytes, no events."""
        self.assertEqual(SSEReader().feed(b""), [])


class WriterTests(SynchronousTestCase):
    """Writing a stream."""

    def test_message(self) -> None:
        """A message is one event of type message."""
        self.assertEqual(sse_event(b"{}"), b"event: message\ndata: {}\n\n")

    def test_all_fields(self) -> None:
        """Type, id and reconnection time come before the data."""
        self.assertEqual(
            sse_event(b"x", event="endpoint", id="7", retry_ms=3000),
            b"event: endpoint\nid: 7\nretry: 3000\ndata: x\n\n",
        )

    def test_priming(self) -> None:
        """A priming event has an id and empty data, no type."""
        self.assertEqual(sse_event(b"", event="", id="0"), b"id: 0\ndata: \n\n")

    def test_comment(self) -> None:
        """A comment keeps the connection warm and is no event."""
        self.assertEqual(sse_comment(), b": keepalive\n\n")
        self.assertEqual(SSEReader().feed(sse_comment("x")), [])

    def test_injection(self) -> None:
        """A line break in a field can not forge another field."""
        for bad in ("a\nb", "a\rb", "a\0b"):
            self.assertRaises(ValueError, sse_event, b"", event=bad)
            self.assertRaises(ValueError, sse_event, b"", id=bad)
            self.assertRaises(ValueError, sse_comment, bad)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=50), st.sampled_from(["message", "endpoint"]))
    def test_round_trip(self, data: bytes, event: str) -> None:
        """What is written reads back, line breaks made LF."""
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.assertEqual(SSEReader().feed(sse_event(data, event=event)), [SSEEvent(lines, event)])
