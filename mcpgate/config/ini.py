"""
A strict reader of INI text that remembers lines.

``configparser`` forgets where a value stood and merges what it should refuse; this one keeps the
line of everything and finds all faults in one pass.  It knows nothing of what keys mean.

The language: ``[section]``; ``key = value``; a line indented deeper than its key goes on with the
value; ``#`` or ``;`` as the first character makes a comment, and only there.  A section or key
that comes twice is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LIMIT_BYTES: Final = 1024 * 1024

_HEADER: Final = re.compile(r"\[([^\[\]]*)\]")
KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}", re.ASCII)
# Tab may stand anywhere; CR only before LF, which is gone by then.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TAB: Final = 8

Complain = Callable[[int, str, str, str, str], None]
"""Takes line, section, key, text and remedy of a fault."""


@dataclass(slots=True)
class Entry:
    """
    One key.

    :ivar line: where the key stands.
    :ivar lines: number and text of each line of the value, stripped, none empty.
    """

    key: str
    line: int
    lines: list[tuple[int, str]] = field(default_factory=list)

    @property
    def value(self) -> str:
        """Give the whole value, lines joined by newlines."""
        return "\n".join(text for _, text in self.lines)


@dataclass(slots=True)
class Section:
    """One section.  ``line`` is that of its header."""

    name: str
    line: int
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(slots=True)
class Document:
    """Sections by name, in their order."""

    sections: dict[str, Section] = field(default_factory=dict)


def parse(text: str, complain: Complain) -> Document:
    """
    Read the text; faults are told to ``complain`` and what they concern is left out.

    A byte order mark, tabs and CRLF are taken as they come.
    """
    return _Reader(complain).read(text)


class _Reader:
    """The place one has reached: in which section, under which key."""

    def __init__(self, complain: Complain) -> None:
        self._complain = complain
        self._document = Document()
        # None after a faulty header: its keys are read for their form and left out.
        self._section: Section | None = None
        self._any_section = False
        self._entry: Entry | None = None
        self._indent = 0

    def read(self, text: str) -> Document:
        lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        for number, raw in enumerate(lines, 1):
            if _CONTROL.search(raw):
                self._fault(
                    number, "the line holds a control character", "Remove it; lines end with LF"
                )
                continue
            bare = raw.strip()
            if bare and bare[0] not in "#;":
                self._line(number, raw.expandtabs(_TAB), bare)
        return self._document

    def _line(self, number: int, raw: str, bare: str) -> None:
        indent = len(raw) - len(raw.lstrip())
        if self._entry is not None and indent > self._indent:
            self._entry.lines.append((number, bare))
        elif bare[0] == "[":
            self._header(number, bare)
        else:
            self._key(number, indent, bare)

    def _header(self, number: int, bare: str) -> None:
        self._entry, self._section, self._any_section = None, None, True
        match = _HEADER.fullmatch(bare)
        if match is None:
            self._fault(
                number,
                "this is not a section",
                "Write [NAME] alone on the line; comments stand on lines of their own",
            )
            return
        name = match[1].strip()
        twin = self._document.sections.get(name)
        if twin is not None:
            self._complain(
                number,
                name,
                "",
                f"the section stands twice, here and on line {twin.line}",
                f"Move its keys to line {twin.line} and remove this one",
            )
            self._section = Section(name, number)
            return
        self._section = self._document.sections[name] = Section(name, number)

    def _key(self, number: int, indent: int, bare: str) -> None:
        key, sign, value = bare.partition("=")
        key, value = key.strip(), value.strip()
        # An entry that is left out still takes up its continuation lines.
        self._entry, self._indent = Entry(key, number), indent
        if value:
            self._entry.lines.append((number, value))
        if not sign:
            self._fault(
                number,
                "this is neither a section nor a key with a value",
                "Write key = value, or indent the line if it goes on with the one above",
            )
        elif not KEY.fullmatch(key):
            self._fault(
                number,
                "this is not the name of a key",
                "Names hold letters, digits, _, - and . only",
            )
        elif self._section is None:
            if not self._any_section:
                self._fault(number, "the key stands in no section", "Put [gate] above it", key)
        elif key in self._section.entries:
            twin = self._section.entries[key]
            self._fault(
                number,
                f"the key stands twice, here and on line {twin.line}",
                "Keep one of them",
                key,
            )
        else:
            self._section.entries[key] = self._entry

    def _fault(self, number: int, text: str, remedy: str, key: str = "") -> None:
        name = self._section.name if self._section is not None else ""
        self._complain(number, name, key, text, remedy)
