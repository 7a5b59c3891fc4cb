"""The last lines of a log."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.runtime.ring import LineRing, printable


class LineRingTests(SynchronousTestCase):
    """What is kept of what a server wrote."""

    def test_lines(self) -> None:
        """Lines are kept whole, the unfinished one too."""
        ring = LineRing()
        ring.feed(b"one\r\ntw")
        ring.feed(b"o\n\nthree")
        self.assertEqual(ring.lines(), ["one", "two", "", "three"])
        self.assertEqual(ring.seen_bytes, 15)

    def test_newest_win(self) -> None:
        """Only the newest lines are kept, whether they come singly or in one piece."""
        ring = LineRing(lines=3)
        for number in range(10):
            ring.feed(b"%d\n" % number)
        self.assertEqual(ring.lines(), ["7", "8", "9"])
        ring.feed(b"old" + b"".join(b"%d\n" % number for number in range(1000)) + b"open")
        self.assertEqual(ring.lines(), ["997", "998", "999", "open"])

    def test_total(self) -> None:
        """All of it together stays within the bound."""
        ring = LineRing(lines=100, total_bytes=50)
        for _ in range(100):
            ring.feed(b"x" * 20 + b"\n")
        self.assertEqual(len(ring.lines()), 2)

    def test_long_line(self) -> None:
        """A long line keeps its beginning; one without an end costs nothing more."""
        ring = LineRing(line_bytes=10)
        for _ in range(1000):
            ring.feed(b"abcdefghijklmnop")
        ring.feed(b"\nshort\n" + b"y" * 100 + b"\n")
        self.assertEqual(ring.lines(), ["abcdefghij", "short", "y" * 10])

    def test_after(self) -> None:
        """Whole lines after a number of them are given, as far as they are kept."""
        ring = LineRing(lines=2)
        ring.feed(b"one\ntwo\nopen")
        self.assertEqual((ring.after(0), ring.seen_lines), (["one", "two"], 2))
        self.assertEqual(ring.after(1), ["two"])
        self.assertEqual(ring.after(2), [])
        ring.feed(b"ed\nfour\nfive\n" * 3)
        self.assertEqual((ring.after(2), ring.seen_lines), (["four", "five"], 11))
        self.assertEqual(ring.after(10, hide=("five",)), ["***"])
        self.assertEqual(ring.after(99), [])

    def test_hidden(self) -> None:
        """Credentials a server prints are not shown."""
        ring = LineRing()
        ring.feed(b"using key sesame-open\n")
        self.assertEqual(ring.lines(hide=("sesame-open",)), ["using key ***"])

    def test_printable(self) -> None:
        """Escape sequences and broken UTF-8 do nothing to a terminal."""
        self.assertEqual(printable(b"\x1b[31mred\x07\xff\xe2\x80\xa8"), " [31mred \ufffd")

    @given(st.lists(st.binary(max_size=40)), st.integers(1, 5))
    @settings(max_examples=100, deadline=None)
    def test_any_split(self, chunks: list[bytes], limit: int) -> None:
        """However it is cut up, the same lines are kept."""
        ring = LineRing(lines=limit)
        for chunk in chunks:
            ring.feed(chunk)
        whole = b"".join(chunks).split(b"\n")
        done = [printable(line.rstrip(b"\r")) for line in whole[:-1]][-limit:]
        opened = [printable(whole[-1])] if whole[-1] else []
        self.assertEqual(ring.lines(), done + opened)
