"""Tests of mcpgate.config.kinds."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config import kinds
from mcpgate.config.kinds import Kind, Surroundings
from mcpgate.config.problems import BadValueError
from mcpgate.config.schema import every_key

AROUND = Surroundings(Path("/base"), Path("/home/gate"))


class KindTests(SynchronousTestCase):
    """What values may be."""

    def value(self, kind: Kind, text: str) -> object:
        """Read one item."""
        return kind.parse(text, AROUND)

    def test_bounds(self) -> None:
        """Numbers outside of their bounds are refused with the bound; 0 may be meant."""
        kind = kinds.duration(low_s=1, high_s=60, zero="never")
        self.assertEqual(self.value(kind, "0"), 0)
        self.assertEqual(self.value(kind, "1min"), 60)
        for text, remedy in {"10ms": "Write 1s or more", "61s": "Write 1min or less"}.items():
            error = self.assertRaises(BadValueError, self.value, kind, text)
            self.assertEqual(error.remedy, remedy)
        self.assertRaises(BadValueError, self.value, kinds.number(low=1), "0")
        self.assertEqual(self.value(kinds.number(low=1, zero="none"), "0"), 0)
        self.assertEqual(self.value(kinds.integer(low=1, zero="none"), "0"), 0)
        self.assertEqual(self.value(kinds.size(low=10, zero="none"), "0"), 0)
        self.assertRaises(BadValueError, self.value, kinds.size(high=10), "11B")
        self.assertRaises(BadValueError, self.value, kinds.number(), "1e3")

    def test_flags(self) -> None:
        """On and off may be said in three ways, in any case."""
        for text in ("on", "Yes", "TRUE"):
            self.assertIs(self.value(kinds.FLAG, text), True)
        for text in ("off", "No", "false"):
            self.assertIs(self.value(kinds.FLAG, text), False)

    def test_paths(self) -> None:
        """Relative paths start at the file, ~ is the home."""
        self.assertEqual(self.value(kinds.PATH, "a/b"), Path("/base/a/b"))
        self.assertEqual(self.value(kinds.PATH, "/a"), Path("/a"))
        self.assertEqual(self.value(kinds.PATH, "~/a"), Path("/home/gate/a"))
        self.assertEqual(self.value(kinds.PATH, "~"), Path("/home/gate"))
        self.assertRaises(BadValueError, kinds.PATH.parse, "~/a", Surroundings(Path("/"), None))
        self.assertEqual(self.value(kinds.output("on"), "./x"), "/base/x")

    def test_file_that_may_not_be_looked_at(self) -> None:
        """A file the user of the check may not see is left for the service to open."""
        with patch.object(Path, "is_file", side_effect=PermissionError):
            self.assertEqual(self.value(kinds.FILE, "secret"), Path("/base/secret"))

    def test_hosts(self) -> None:
        """Host names come out in one form; addresses may stand in brackets."""
        for text, host in {"A.Example": "a.example", "[::1]": "::1", "*.a.b": "*.a.b"}.items():
            self.assertEqual(self.value(kinds.HOSTS, text), host)
        for text in ("a:80", "a/b", "a..b", "-a", "*.", "*a", "a b", "\u00e4"):
            self.assertRaises(BadValueError, self.value, kinds.HOSTS, text)

    def test_url_paths(self) -> None:
        """A path starts with one slash."""
        self.assertEqual(self.value(kinds.URL_PATH, "/a/b?c"), "/a/b?c")
        for text in ("a", "//a", "/a b", "/{key}", "/#"):
            self.assertRaises(BadValueError, self.value, kinds.URL_PATH, text)

    def test_field_values(self) -> None:
        """An HTTP field takes no line ends, whatever was put into it."""
        self.assertEqual(self.value(kinds.HEADER_VALUE, "a\tb\xe9"), "a\tb\xe9")
        for text in ("a\nb: c", "a\r", "\0", "\x7f", "\u20ac"):
            self.assertRaises(BadValueError, self.value, kinds.HEADER_VALUE, text)

    @given(st.text(max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_any_text(self, text: str) -> None:
        """Whatever is typed for whatever key is read, or refused with a remedy."""
        for _, key in every_key():
            try:
                key.kind.parse(text, AROUND)
            except BadValueError as error:
                self.assertTrue(error.text and error.remedy)
