"""Tests of putting heads and chunks on the wire."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.http.writing import chunk, field_lines, last_chunk, request_head, status_line


class WritingTests(SynchronousTestCase):
    """What is written can be read in one way only."""

    def test_status_line(self) -> None:
        """Known statuses have their phrase, others none."""
        self.assertEqual(status_line(404), b"HTTP/1.1 404 Not Found\r\n")
        self.assertEqual(status_line(299), b"HTTP/1.1 299 \r\n")

    def test_fields(self) -> None:
        """Field lines are written in order."""
        self.assertEqual(field_lines([(b"a", b"1"), (b"b", b"2")]), b"a: 1\r\nb: 2\r\n")
        self.assertEqual(field_lines([]), b"")

    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from([b"\r", b"\n", b"\0", b"\r\n", b"\r\nX: 1"]),
        st.binary(max_size=5),
        st.booleans(),
    )
    def test_no_splitting(self, evil: bytes, around: bytes, in_name: bool) -> None:
        """Nothing that could end a line early is ever written."""
        text = around + evil + around
        field = (text, b"v") if in_name else (b"n", text)
        self.assertRaises(ValueError, field_lines, [(b"a", b"1"), field])

    def test_bad_names(self) -> None:
        """A name that is none is not written."""
        for name in (b"", b"a b", b"a:b"):
            self.assertRaises(ValueError, field_lines, [(name, b"v")])

    def test_request_head(self) -> None:
        """A request's head is written canonically."""
        self.assertEqual(
            request_head("GET", b"/a?b", [(b"host", b"h")]),
            b"GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n",
        )
        for target in (b"", b"/a b", b"/\r\n", b"/\x7f"):
            self.assertRaises(ValueError, request_head, "GET", target, [])

    def test_chunks(self) -> None:
        """An empty chunk would end the body, so it is none."""
        self.assertEqual(chunk(b"x" * 17), b"11\r\n" + b"x" * 17 + b"\r\n")
        self.assertEqual(chunk(b""), b"")
        self.assertEqual(last_chunk(None), b"0\r\n\r\n")
        self.assertEqual(last_chunk([(b"x-sum", b"1")]), b"0\r\nx-sum: 1\r\n\r\n")
