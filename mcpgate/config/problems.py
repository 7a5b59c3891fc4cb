"""What is wrong with a configuration: every finding says where, what, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_SHOWN_VALUE: Final = 80
_SHOWN_TEXT: Final = 400
_SHOWN_PROBLEMS: Final = 100


class BadValueError(ValueError):
    """
    A value that is not what its key wants.

    Neither text repeats the value: it may hold a secret.

    :ivar text: what is wrong, as the end of a sentence's first half: "a duration needs a unit".
    :ivar remedy: what to write instead.
    """

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """
    One finding.

    :ivar file: the configuration file as it was named.
    :ivar line: 1 for the first; 0 when it is about the file as a whole.
    :ivar section: without brackets; empty when outside of any.
    :ivar value: as written in the file, ``${...}`` not replaced; ``***`` for what may be a secret.
    """

    file: str
    line: int = 0
    section: str = ""
    key: str = ""
    value: str = ""
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line, however wild the value."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        subject = f"[{_printable(self.section)}]" if self.section else ""
        if self.key:
            subject += f" {_printable(self.key)}"
            if self.value:
                subject += f" = {_printable(self.value)}"
        return ": ".join(
            part
            for part in (
                place,
                subject.strip(),
                _printable(f"{self.text}. {_sentence(self.remedy)}".strip(), _SHOWN_TEXT),
            )
            if part
        )


class ConfigError(Exception):
    """
    A configuration that is refused; nothing of it is used.

    ``str`` is the whole report, one line for each problem, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(
            sorted(problems, key=lambda problem: problem.line)
        )
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:_SHOWN_PROBLEMS]]
        more = len(self.problems) - len(lines)
        if more:
            lines.append(f"... and {more} more")
        return "\n".join(lines)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Give the known name that was most likely meant; None when none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - nobody needs it while all is well

    found = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(name: str, known: Sequence[str]) -> str:
    """Give the remedy for an unknown name: the nearest one, else all of them."""
    near = nearest(name, known)
    if near is not None:
        return f"Did you mean {near}?"
    return f"Known: {', '.join(known)}" if known else ""


def _printable(text: str, most: int = _SHOWN_VALUE) -> str:
    """Show on one line what may hold anything, cut to a readable length."""
    cut = text if len(text) <= most else text[:most] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in cut
    )


def _sentence(text: str) -> str:
    if not text:
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".?!" else text + "."
