"""Tests of mcpgate.config.ini."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.ini import Document, parse

Fault = tuple[int, str, str, str, str]


def read(text: str) -> tuple[Document, list[Fault]]:
    """Give the document and the faults."""
    faults: list[Fault] = []
    document = parse(text, lambda *fault: faults.append(fault))
    return document, faults


def values(document: Document) -> dict[str, dict[str, str]]:
    """Give the bare values."""
    return {
        name: {key: entry.value for key, entry in section.entries.items()}
        for name, section in document.sections.items()
    }


class ParseTests(SynchronousTestCase):
    """The form of the file."""

    def test_plain(self) -> None:
        """Sections, keys, comments and continuation lines are read with their lines."""
        document, faults = read(
            "# hello\n[gate]\na = 1\nb =\n   x\n   # no\n\n   y\n; z\n[x:y]\nc=2=3\n"
        )
        self.assertEqual(faults, [])
        self.assertEqual(values(document), {"gate": {"a": "1", "b": "x\ny"}, "x:y": {"c": "2=3"}})
        entry = document.sections["gate"].entries["b"]
        self.assertEqual((entry.line, entry.lines), (4, [(5, "x"), (8, "y")]))
        self.assertEqual(document.sections["x:y"].line, 10)

    def test_mark_tabs_and_line_ends(self) -> None:
        """A byte order mark, tabs and CRLF, as editors leave them, change nothing."""
        document, faults = read("\ufeff[gate]\r\na\t=\t1\r\n\tmore\r\n")
        self.assertEqual(faults, [])
        self.assertEqual(values(document), {"gate": {"a": "1\nmore"}})

    def test_indented_section(self) -> None:
        """Keys that are all indented the same are keys, not continuations."""
        document, faults = read("[gate]\n  a = 1\n  b = 2\n")
        self.assertEqual(faults, [])
        self.assertEqual(values(document), {"gate": {"a": "1", "b": "2"}})

    def test_twins_name_both_lines(self) -> None:
        """A key or section that stands twice is refused, and both lines are told."""
        document, faults = read("[a]\nx = 1\nx = 2\n  3\n[a]\ny = 1\ny = 2\n")
        self.assertEqual([fault[0] for fault in faults], [3, 5, 7])
        self.assertIn("line 2", faults[0][3])
        self.assertIn("line 1", faults[1][3])
        self.assertEqual(values(document), {"a": {"x": "1"}})

    def test_faults_of_form(self) -> None:
        """Lines that are no key, no section or stand nowhere are told with their number."""
        for text, line in {
            "a = 1\n": 1,
            "[gate]\njust words\n": 2,
            "[gate\na = 1\n": 1,
            "[gate] # no\n": 1,
            "[gate]\na b = 1\n": 2,
            "[gate]\n= 1\n": 2,
            "[gate]\na = \x00\n": 2,
            "[gate]\na = 1\rb = 2\n": 2,
            "[gate]\n\xe4 = 1\n": 2,
        }.items():
            _, faults = read(text)
            self.assertEqual([fault[0] for fault in faults], [line], text)
            self.assertTrue(faults[0][4], text)

    @given(st.text(alphabet=st.sampled_from("[]=#; \tab\n\r\x00\ufeff"), max_size=200))
    @settings(max_examples=100)
    def test_any_text(self, text: str) -> None:
        """Whatever the text, reading it ends and every fault names a line of it."""
        _, faults = read(text)
        for fault in faults:
            self.assertTrue(1 <= fault[0] <= text.count("\n") + 1)
