"""Tests that the table of what other set-ups did names what there is."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import DOCS

PAGE = (DOCS / "reference" / "seeds.rst").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\s+S\d\.\d\d \| ", line)
]


class SeedsPageTests(SynchronousTestCase):
    """``docs/reference/seeds.rst``."""

    def test_complete(self) -> None:
        """No row is missing, and each has its four cells."""
        wanted = [
            f"S{seed}.{n:02}"
            for seed, last in ((0, 56), (1, 28), (2, 41), (3, 74), (4, 35))
            for n in range(1, last + 1)
        ]
        self.assertEqual([row[0] for row in ROWS], wanted)
        self.assertEqual([row for row in ROWS if len(row) != 4 or not all(row)], [])

    def test_named_things_exist(self) -> None:
        """Every test and page that is named is there."""
        root = DOCS.parent
        for row in ROWS:
            shown = re.findall(r"\b([fu]):([\w/]+)", row[3])
            pages = re.findall(r'"([\w/-]+)"', " ".join(row[2:]))
            self.assertTrue(shown or re.search('"', row[3]), row)
            for kind, name in shown:
                room, _, module = name.rpartition("/")
                where = root / "tests" / ("functional" if kind == "f" else room)
                self.assertTrue((where / f"test_{module}.py").is_file(), (row[0], name))
            for page in pages:
                self.assertTrue((DOCS / f"{page}.rst").is_file(), (row[0], page))
