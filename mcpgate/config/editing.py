"""
Changes to the text of ``gate.ini`` that leave everything else as it was, comments among it.

Lines are found as `mcpgate.config.ini` reads them.  Nothing is checked here: whoever changes a
text reads it as a configuration before it is written.
"""

from __future__ import annotations

from mcpgate.config import ini


class NoSuchSectionError(Exception):
    """The section is not in the text."""


def with_section(text: str, section: str) -> str:
    """Give the text with a section (header and keys, lines) at its end."""
    bare = text.rstrip("\n")
    return f"{bare}\n\n{section}" if bare else section


def without_section(text: str, name: str) -> str:
    """
    Give the text without a section and the comments right above it.

    :raises NoSuchSectionError: it is not there.
    """
    lines = _lines(text)
    first, end = _span(text, lines, name)
    while first > 0 and _is_comment(lines[first - 1]):
        first -= 1
    # Comments right above the next section are that one's.
    while end > first and end < len(lines) and _is_comment(lines[end - 1]):
        end -= 1
    rest = lines[:first] + lines[end:]
    while first > 0 and len(rest) > first and not rest[first - 1].strip() + rest[first].strip():
        del rest[first]
    return "".join(rest).rstrip("\n") + "\n"


def section_text(text: str, name: str) -> str:
    """
    Give a section as it stands there.

    :raises NoSuchSectionError: it is not there.
    """
    lines = _lines(text)
    first, end = _span(text, lines, name)
    while end > first and (_is_comment(lines[end - 1]) or not lines[end - 1].strip()):
        end -= 1
    return "".join(lines[first:end]).rstrip("\n") + "\n"


def with_key(text: str, name: str, key: str, value: str | None) -> str:
    """
    Give the text with a key of a section set; None takes the key away.

    :raises NoSuchSectionError: the section is not there.
    """
    lines = _lines(text)
    first, _ = _span(text, lines, name)
    section = _parsed(text).sections[name]
    entry = section.entries.get(key)
    new = [] if value is None else [f"{key} = {value}\n"]
    if entry is None:
        return "".join([*lines[: first + 1], *new, *lines[first + 1 :]])
    start = entry.line - 1
    last = max([entry.line, *(number for number, _ in entry.lines)])
    return "".join([*lines[:start], *new, *lines[last:]])


def _parsed(text: str) -> ini.Document:
    return ini.parse(text, lambda *fault: None)


def _lines(text: str) -> list[str]:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    return [line + "\n" for line in (lines[:-1] if lines[-1] == "" else lines)]


def _span(text: str, lines: list[str], name: str) -> tuple[int, int]:
    """Give the index of a section's header and of the line after its end."""
    sections = _parsed(text).sections
    if name not in sections:
        raise NoSuchSectionError(name)
    first = sections[name].line - 1
    later = [section.line - 1 for section in sections.values() if section.line - 1 > first]
    return first, min(later, default=len(lines))


def _is_comment(line: str) -> bool:
    return line.lstrip()[:1] in ("#", ";")
