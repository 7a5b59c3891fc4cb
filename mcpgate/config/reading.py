"""
From sections of text to checked values, by the schema; every fault is kept, none stops it.

What the values mean together is not looked at here: see `mcpgate.config.sections` and
`mcpgate.config.servers`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from mcpgate.config import ini
from mcpgate.config.interpolation import Interpolation
from mcpgate.config.kinds import NAME, Kind, Layout, Surroundings
from mcpgate.config.problems import BadValueError, Problem, suggestion
from mcpgate.config.schema import (
    RESERVED_KEYS,
    SECTIONS,
    Key,
    SectionSchema,
    find_section,
)

T = TypeVar("T")

_KEPT_PROBLEMS: Final = 1000
_SUGGESTED_PROBLEMS: Final = 100


@dataclass(slots=True)
class Place:
    """Where a key stands and how it was written, for a complaint about it."""

    line: int
    written: str


@dataclass(slots=True)
class Values:
    """
    One section as read.

    :ivar name: what stands after the colon; empty for a section that is not named by the user.
    :ivar found: values by key, without those that were faulty.
    :ivar opened: values of ``env.NAME`` and the like: by stem, then by name.
    :ivar places: of every known key that stands there, faulty or not.
    """

    schema: SectionSchema
    title: str
    line: int
    complain: Callable[[Problem], None]
    file: str
    name: str = ""
    found: dict[str, object] = field(default_factory=dict)
    opened: dict[str, dict[str, str]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def get(self, key: str, otherwise: T) -> T:
        """Give the value of a key; ``otherwise`` when it is not there or faulty."""
        # The schema's parser of the key is what makes the type true.
        return cast("T", self.found.get(key, otherwise))

    def sound(self, *keys: str) -> bool:
        """Tell that none of these keys is faulty: only then may they be held side by side."""
        return all(key in self.found or key not in self.places for key in keys)

    def fields(self, stem: str = "") -> dict[str, object]:
        """Give constructor arguments: what was found of the keys that go ``into`` a field."""
        fields: dict[str, object] = {}
        for key in self.schema.keys:
            head, dot, tail = key.into.rpartition(".")
            if key.name in self.found and tail and head == stem and bool(dot) == bool(stem):
                fields[tail] = self.found[key.name]
        return fields

    def problem(self, key: str, text: str, remedy: str) -> None:
        """Complain about a key; about the section when the key is not there."""
        place = self.places.get(key)
        self.complain(
            Problem(
                file=self.file,
                line=place.line if place is not None else self.line,
                section=self.title,
                key=key,
                value=place.written if place is not None else "",
                text=text,
                remedy=remedy,
            )
        )


class Reading:
    """
    Reads a text by the schema.

    :param file: the name of the file for complaints.
    """

    def __init__(self, file: str, interpolation: Interpolation, around: Surroundings) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._interpolation = interpolation
        self._around = around
        self._sections: dict[str, Values] = {}

    def read(self, text: str) -> None:
        """Take in the whole text."""
        document = ini.parse(text, self._form_fault)
        for section in document.sections.values():
            self._take(section)

    def read_made(self, text: str, file: str) -> None:
        """
        Take in sections that were made of another file, whose lines are not those of ``text``.

        A section that is there already is a fault.
        """
        mine, self.file = self.file, file
        for section in ini.parse(text, self._form_fault).sections.values():
            section.line = 0
            for entry in section.entries.values():
                entry.line = 0
                entry.lines = [(0, line) for _, line in entry.lines]
            twin = self._sections.get(section.name)
            if twin is None:
                self._take(section)
            else:
                self._form_fault(
                    0,
                    section.name,
                    "",
                    f"the server stands in {twin.file} as well",
                    "Rename or remove one of them",
                )
        self.file = mine

    def _take(self, section: ini.Section) -> None:
        values = self._open(section)
        if values is not None:
            self._sections[section.name] = values
            for entry in section.entries.values():
                self._entry(values, entry)

    def complain(self, problem: Problem) -> None:
        """Keep a fault; of a flood only the first."""
        if len(self.problems) < _KEPT_PROBLEMS:
            self.problems.append(problem)

    def _suggestion(self, name: str, known: Sequence[str]) -> str:
        # Looking for near names takes a millisecond: not for every line of a file that is none.
        return suggestion(name, known) if len(self.problems) < _SUGGESTED_PROBLEMS else ""

    def section(self, schema: SectionSchema) -> Values:
        """Give a section that may stand once; an empty one when it is not there."""
        return self._sections.get(schema.name) or Values(
            schema, schema.name, 0, self.complain, self.file
        )

    def sections(self, schema: SectionSchema) -> Iterator[Values]:
        """Give the sections that users name, in the order of the file."""
        return (values for values in self._sections.values() if values.schema is schema)

    def _form_fault(self, line: int, section: str, key: str, text: str, remedy: str) -> None:
        self.complain(
            Problem(file=self.file, line=line, section=section, key=key, text=text, remedy=remedy)
        )

    def _open(self, section: ini.Section) -> Values | None:
        schema = find_section(section.name)
        _, _, name = section.name.partition(":")
        if schema is None:
            # [serverr:x] wants server:x, [server] wants server:NAME.
            stem = section.name.partition(":")[0]
            known = [
                schema.name if not name else schema.name.removesuffix(":NAME")
                for schema in SECTIONS
                if schema.open or not name
            ]
            remedy = self._suggestion(stem, known)
            self._form_fault(section.line, section.name, "", "there is no such section", remedy)
            return None
        values = Values(schema, section.name, section.line, self.complain, self.file)
        if schema.open:
            if not NAME.fullmatch(name):
                values.problem(
                    "",
                    "this is not a name for a section",
                    "Names hold a-z, 0-9 and -, 40 characters at most",
                )
            values.name = name
        return values

    def _entry(self, values: Values, entry: ini.Entry) -> None:
        key = values.schema.find(entry.key)
        if key is None:
            reserved = RESERVED_KEYS.get((values.schema.name, entry.key))
            text, remedy = reserved or (
                "there is no such key",
                self._suggestion(entry.key, values.schema.names()),
            )
            self._form_fault(entry.line, values.title, entry.key, text, remedy)
            return
        written = "***" if key.kind.secret and "$" not in entry.value else entry.value
        if key.kind.secret and "$" in entry.value:
            # Only the references are shown: what stands beside them may be part of a secret.
            written = "${...}"
        values.places[entry.key] = Place(entry.line, written)
        sound = True

        def fault(line: int, bad: BadValueError) -> None:
            nonlocal sound
            sound = False
            self.complain(
                Problem(
                    file=self.file,
                    line=line,
                    section=values.title,
                    key=entry.key,
                    value=written,
                    text=bad.text,
                    remedy=bad.remedy + _comment_hint(entry.value),
                )
            )

        value = self._value(key, entry, fault)
        if not sound:
            return
        values.found[entry.key] = value
        if key.open:
            stem, _, name = entry.key.partition(".")
            values.opened.setdefault(stem, {})[name] = str(value)

    def _value(
        self, key: Key, entry: ini.Entry, fault: Callable[[int, BadValueError], None]
    ) -> object:
        kind = key.kind
        items: list[object] = []
        for line, text in _items(kind, entry, fault):
            try:
                filled = self._interpolation.fill(text, secret=not key.plain, shown=key.shown)
                items.append(kind.parse(filled, self._around))
            except BadValueError as bad:
                fault(line, bad)
        if kind.layout is Layout.BLOCK:
            return "\n".join(str(item) for item in items)
        if kind.layout is not Layout.ONE:
            return tuple(items)
        return items[0] if items else None


def _items(
    kind: Kind, entry: ini.Entry, fault: Callable[[int, BadValueError], None]
) -> list[tuple[int, str]]:
    """
    Cut a value into items with the line of each.

    This comes before anything is put in place of ``${...}``, so that what is put in can never
    become two items.
    """
    if kind.layout is Layout.ONE:
        if not entry.lines:
            fault(entry.line, BadValueError("the value is missing", "Write one, or remove the key"))
        for line, _ in entry.lines[1:]:
            fault(
                line,
                BadValueError(
                    "the value goes over several lines",
                    "Write it on one line; a key of its own must not be indented deeper",
                ),
            )
        return entry.lines[:1]
    if kind.layout is Layout.WORDS:
        return [
            (line, word) for line, text in entry.lines for word in text.replace(",", " ").split()
        ]
    if kind.layout is Layout.SHELL:
        try:
            return [
                (entry.line, word)
                for word in shlex.split(" ".join(text for _, text in entry.lines))
            ]
        except ValueError:
            fault(entry.line, BadValueError("a quotation mark is not closed", "Close it"))
            return []
    return entry.lines


def _comment_hint(value: str) -> str:
    if " #" in value or " ;" in value:
        return ". A comment stands on a line of its own"
    return ""
