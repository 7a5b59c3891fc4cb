"""The pages of the documentation, as the tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """
    A code block.

    :ivar line: where it begins, counted from 1.
    """

    page: Path
    line: int
    text: str

    @property
    def where(self) -> str:
        """Name the place for a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Give every page, the one in the root of the repository too."""
    built = DOCS / "_build"
    found = sorted(path for path in DOCS.rglob("*.rst") if built not in path.parents)
    return [ROOT / "README.rst", *found]


def reference(name: str) -> str:
    """Read a page of the reference."""
    return (DOCS / "reference" / f"{name}.rst").read_text(encoding="utf-8")


def samples(language: str) -> Iterator[Sample]:
    """Give every block of a language."""
    for page in pages():
        lines = page.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if line.strip() != f".. code-block:: {language}":
                continue
            indent = len(line) - len(line.lstrip())
            block: list[str] = []
            for inner in lines[number + 1 :]:
                if inner.strip() and len(inner) - len(inner.lstrip()) <= indent:
                    break
                block.append(inner)
            text = dedent("\n".join(block)).strip("\n") + "\n"
            yield Sample(page=page, line=number + 1, text=text)


def sections(text: str, underline: str) -> dict[str, str]:
    """Split a page at the titles underlined so; give what stands below each title."""
    pattern = re.compile(rf"^(\S.*)\n{re.escape(underline)}{{3,}}$", re.MULTILINE)
    found = list(pattern.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match[1]: text[match.end() : end] for match, end in zip(found, ends, strict=True)}
