"""Tests of making foreign text safe to show."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.escaping import VALUE_CHARS, clean, escape, text_of

NASTY = "\r\n\x00\x1b[31m\x7f\x85\u2028\u2029\u202e\u200b\ufeff\ud800"


class EscapingTests(SynchronousTestCase):
    """`escape`, `clean` and `text_of`."""

    def test_plain_text_stays(self) -> None:
        """Letters of any script and spaces are left alone."""
        self.assertEqual(escape("plain \u00e4\u05d0\u4e2d"), "plain \u00e4\u05d0\u4e2d")

    def test_controls_are_written_out(self) -> None:
        """Line ends, escape sequences and bidi overrides are shown, not obeyed."""
        self.assertEqual(escape("a\r\n\x1bb"), r"a\r\n\x1bb")
        self.assertEqual(escape("\u202e"), r"\u202e")
        self.assertTrue(escape(NASTY).isprintable())

    def test_a_megabyte_becomes_a_line(self) -> None:
        """Long values are cut, and show that they were."""
        shown = clean("x" * 1_000_000)
        self.assertEqual(len(shown), VALUE_CHARS)
        self.assertTrue(shown.endswith("\u2026"))
        self.assertEqual(clean("x" * VALUE_CHARS), "x" * VALUE_CHARS)

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=400))
    def test_any_text(self, text: str) -> None:
        """Whatever comes, the result is printable, short, and encodable."""
        shown = clean(text)
        self.assertTrue(shown.isprintable())
        self.assertLessEqual(len(shown), VALUE_CHARS)
        shown.encode("utf-8")

    def test_any_value(self) -> None:
        """Bytes, huge numbers and objects that can not be shown have a text, too."""

        class Shy:
            def __str__(self) -> str:
                raise RuntimeError

        self.assertEqual(text_of(b"a\xff"), "a\\xff")
        self.assertEqual(text_of(10**5000)[:2], "0x")
        self.assertEqual(text_of(12), "12")
        self.assertEqual(text_of(Shy()), "<Shy that can not be shown>")
