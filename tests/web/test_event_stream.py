"""Tests for `mcpgate.web.event_stream`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadBackendAnswer
from mcpgate.http.fields import Fields
from mcpgate.http.heads import ResponseHead
from mcpgate.web.event_stream import (
    EventAligner,
    EventBoundary,
    is_event_stream,
)

ENDS = (b"\n", b"\r\n", b"\r")


class EventAlignerTests(SynchronousTestCase):
    """Complete events pass, the rest waits."""

    def test_whole(self) -> None:
        """A read that ends with an event passes untouched."""
        aligner = EventAligner()
        data = b"data: 1\n\n"
        self.assertIs(aligner.feed(data), data)
        self.assertTrue(aligner.at_boundary)

    def test_held_back(self) -> None:
        """The beginning of an event waits for its end."""
        for end in ENDS:
            aligner = EventAligner()
            one = b"data: 1" + end + end
            self.assertEqual(aligner.feed(one + b"data: 2" + end), one)
            self.assertEqual(aligner.tail, b"data: 2" + end)
            self.assertFalse(aligner.at_boundary)
            self.assertEqual(aligner.feed(end), b"data: 2" + end + end)
            self.assertTrue(aligner.at_boundary)

    def test_usual_end(self) -> None:
        """What waited goes out with the read that completes it."""
        aligner = EventAligner()
        self.assertEqual(aligner.feed(b"data"), b"")
        self.assertEqual(aligner.feed(b": 1\n\n"), b"data: 1\n\n")

    def test_one_line_end_is_none(self) -> None:
        """CR LF is one line's end, not two."""
        aligner = EventAligner()
        self.assertEqual(aligner.feed(b"data: 1\r\n"), b"")
        self.assertEqual(aligner.feed(b"data: 2\r\n"), b"")

    def test_bound(self) -> None:
        """An event without end is not collected for ever."""
        aligner = EventAligner(limit_bytes=10)
        self.assertEqual(aligner.feed(b"data: 1\n\n" * 9), b"data: 1\n\n" * 9)
        self.assertRaises(BadBackendAnswer, aligner.feed, b"data: 123456789")

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(ENDS),
        st.lists(st.integers(1, 9), max_size=20),
        st.sampled_from([b"", b"data: tail"]),
    )
    def test_any_split(self, end: bytes, cuts: list[int], tail: bytes) -> None:
        """However the bytes are cut, all of them pass in order, and each piece ends an event."""
        events = [b"data: 1" + end + end, b": c" + end + end, b"id: 2" + end + b"data: x" + end * 2]
        raw = b"".join(events) + tail
        aligner = EventAligner()
        boundary = EventBoundary()
        out = b""
        at = 0
        for cut in [*cuts, len(raw)]:
            piece = aligner.feed(raw[at : at + cut])
            at += cut
            out += piece
            boundary.passed(piece)
            self.assertTrue(boundary.at_boundary)
        self.assertEqual(out + aligner.tail, raw)
        self.assertEqual(aligner.tail, tail)


class EventBoundaryTests(SynchronousTestCase):
    """Where a comment may be put in."""

    def test_beginning(self) -> None:
        """Before anything came, between events, after empty lines; not inside an event."""
        boundary = EventBoundary()
        self.assertTrue(boundary.at_boundary)
        for data, expected in (
            (b"", True),
            (b"\n", True),
            (b"data: 1", False),
            (b"\r\n", False),
            (b"\r\n", True),
            (b"\r\n", True),
            (b"data: 1\r", False),
            (b"\n", False),
            (b"\r", True),
            (b"\n", True),
            (b"data: 1\n\n", True),
            (b"x\n", False),
            (b"\n", True),
        ):
            boundary.passed(data)
            self.assertEqual(boundary.at_boundary, expected, data)


class RenderingTests(SynchronousTestCase):
    """Events of our own."""

    def test_kind(self) -> None:
        """The content type tells, without its parameters."""
        for value, expected in (
            (b"text/event-stream", True),
            (b"Text/Event-Stream ; charset=utf-8", True),
            (b"text/event-streams", False),
            (None, False),
        ):
            lines = [] if value is None else [(b"content-type", value)]
            head = ResponseHead(status=200, reason=b"", version=(1, 1), fields=Fields(lines))
            self.assertEqual(is_event_stream(head), expected)
