"""Tests of mcpgate.gate.eras."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.eras import EraBook, Verdict
from mcpgate.model import Eras, ServerSpec, Transport

NOTES = ServerSpec(name="notes", transport=Transport.STDIO)


class EraBookTests(SynchronousTestCase):
    """What is known of the eras of servers."""

    def test_found_out(self) -> None:
        """Each finding is kept, with when it was made; others are left alone."""
        times = iter([10.0, 20.0])
        book = EraBook(lambda: next(times))
        self.assertEqual(book.known(NOTES), Verdict())
        book.note(NOTES, legacy=True)
        self.assertEqual(book.known(NOTES), Verdict(legacy=True, seen_at=10.0))
        book.note(NOTES, modern=False)
        self.assertEqual(book.known(NOTES), Verdict(legacy=True, modern=False, seen_at=20.0))

    def test_pinned(self) -> None:
        """What the configuration says counts, whatever was found out."""
        book = EraBook(lambda: 1.0)
        book.note(NOTES, legacy=False, modern=False)
        for era, legacy, modern in (
            (Eras.LEGACY, True, False),
            (Eras.MODERN, False, True),
            (Eras.DUAL, True, True),
        ):
            verdict = book.known(replace(NOTES, era=era))
            self.assertEqual((verdict.legacy, verdict.modern), (legacy, modern))
