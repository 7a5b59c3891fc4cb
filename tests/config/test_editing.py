"""Tests of mcpgate.config.editing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.editing import (
    NoSuchSectionError,
    section_text,
    with_key,
    with_section,
    without_section,
)

TEXT = """\
# of the whole file

[gate]
listen = tcp:1

# one's comment
# goes on
[server:one]
# inside
command = one
    --more
enabled = off

# two's comment
[server:two]
command = two
"""


class EditingTests(SynchronousTestCase):
    """Changes that leave the rest of the text alone."""

    def test_added(self) -> None:
        """A new section comes at the end, an empty line before it."""
        self.assertEqual(with_section("a\n\n\n", "[b]\n"), "a\n\n[b]\n")
        self.assertEqual(with_section("", "[b]\n"), "[b]\n")

    def test_removed(self) -> None:
        """A section goes with the comments above it, and not with those of the next one."""
        self.assertEqual(
            without_section(TEXT, "server:one"),
            "# of the whole file\n\n[gate]\nlisten = tcp:1\n\n"
            "# two's comment\n[server:two]\ncommand = two\n",
        )
        self.assertEqual(
            without_section(TEXT, "server:two"),
            TEXT[: TEXT.index("\n# two's comment")],
        )
        self.assertEqual(without_section("[a]\nb = 1\n", "a"), "\n")

    def test_added_and_removed(self) -> None:
        """What is added and removed again leaves the text as it was."""
        added = with_section(TEXT, "# note\n[server:new]\ncommand = new\n")
        self.assertEqual(without_section(added, "server:new"), TEXT)

    def test_shown(self) -> None:
        """A section is shown without what belongs to the next."""
        self.assertEqual(
            section_text(TEXT, "server:one"),
            "[server:one]\n# inside\ncommand = one\n    --more\nenabled = off\n",
        )

    def test_key(self) -> None:
        """A key is set, replaced with all its lines, or taken away."""
        self.assertIn(
            "[server:two]\nenabled = off\n", with_key(TEXT, "server:two", "enabled", "off")
        )
        self.assertEqual(
            with_key(TEXT, "server:one", "command", "new"),
            TEXT.replace("command = one\n    --more\n", "command = new\n"),
        )
        self.assertEqual(
            with_key(TEXT, "server:one", "enabled", None), TEXT.replace("enabled = off\n", "")
        )
        self.assertEqual(with_key(TEXT, "server:two", "enabled", None), TEXT)

    def test_missing(self) -> None:
        """A section that is not there is said so."""
        for edit in (without_section, section_text):
            with self.assertRaises(NoSuchSectionError):
                edit(TEXT, "server:three")
        with self.assertRaises(NoSuchSectionError):
            with_key(TEXT, "server:three", "a", "b")

    def test_line_ends(self) -> None:
        """A file of Windows is read as it is and written with line feeds."""
        text = "\ufeff[a]\r\nb = 1\r\n[c]\r\nd = 1"
        self.assertEqual(without_section(text, "a"), "[c]\nd = 1\n")
