"""The page of clients and servers says what the tests see."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.era_matrix import PAGE, page


class EraMatrixTests(SynchronousTestCase):
    """docs/reference/era-matrix.rst is made of the file of expected failures."""

    def test_current(self) -> None:
        """The page is what python -m tests.functional.era_matrix --write would write."""
        self.assertEqual(PAGE.read_text(), page())
