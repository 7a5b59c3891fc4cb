"""Bytes to lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.runtime.lines import LineSplitter


class LineSplitterTests(SynchronousTestCase):
    """Which lines come out."""

    def setUp(self) -> None:
        """Make a splitter with a small bound."""
        self.lines: list[bytes] = []
        self.dropped = 0
        self.splitter = LineSplitter(self.lines.append, self.drop, limit_bytes=10)

    def drop(self) -> None:
        """Count dropped lines."""
        self.dropped += 1

    def test_lines(self) -> None:
        """Several lines in one piece, and one line in several."""
        self.splitter.feed(b"a\nb\r\n\n\r\nc")
        self.splitter.feed(b"c\rc")
        self.splitter.feed(b"\n\xff\xfe\n")
        self.assertEqual(self.lines, [b"a", b"b", b"cc\rc", b"\xff\xfe"])

    def test_too_long_in_one_piece(self) -> None:
        """A line over the bound is dropped, its neighbours are not."""
        self.splitter.feed(b"a\n" + b"x" * 11 + b"\n" + b"y" * 10 + b"\n")
        self.assertEqual((self.lines, self.dropped), ([b"a", b"y" * 10], 1))

    def test_too_long_in_pieces(self) -> None:
        """A line that grows over the bound is noticed at once, and counted once."""
        for _ in range(5):
            self.splitter.feed(b"xxxx")
        self.assertEqual(self.dropped, 1)
        self.splitter.feed(b"x\nnext\n")
        self.assertEqual((self.lines, self.dropped), ([b"next"], 1))

    def test_remnant(self) -> None:
        """Of a line that was too long its two ends are told once it has ended."""
        ends: list[bytes] = []
        splitter = LineSplitter(self.lines.append, self.drop, 1000, ends.append)
        splitter.feed(b"a" * 600 + b"b" * 600 + b"\nnext\n")
        splitter.feed(b"c" * 600)
        splitter.feed(b"d" * 600)
        splitter.feed(b"e" * 600)
        self.assertEqual(len(ends), 1)
        splitter.feed(b"f\nlast\n")
        self.assertEqual(self.lines, [b"next", b"last"])
        self.assertEqual(
            ends, [b"a" * 512 + b"\0" + b"b" * 512, b"c" * 512 + b"\0" + b"e" * 511 + b"f"]
        )
        self.assertEqual(self.dropped, 2)

    @given(st.lists(st.binary(max_size=30)))
    @settings(max_examples=100, deadline=None)
    def test_any_split(self, chunks: list[bytes]) -> None:
        """However it is cut up, the same lines come out."""
        lines: list[bytes] = []
        splitter = LineSplitter(lines.append, lambda: None)
        for chunk in chunks:
            splitter.feed(chunk)
        stripped = (line.removesuffix(b"\r") for line in b"".join(chunks).split(b"\n")[:-1])
        self.assertEqual(lines, [line for line in stripped if line])
