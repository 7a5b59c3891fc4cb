"""Tests of mcpgate.gate.eras."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.eras import HORIZON_S, EraBook, Verdict
from mcpgate.model import Eras, ServerSpec, Transport

NOTES = ServerSpec(name="notes", transport=Transport.STDIO, command=("notes",))


class EraBookTests(SynchronousTestCase):
    """What is known of the eras of servers."""

    def setUp(self) -> None:
        """Make an empty book whose clock the test sets."""
        self.now = 1_000_000.0
        self.changes = 0
        self.book = EraBook(lambda: self.now, key=b"k", changed=self.changed)

    def changed(self) -> None:
        """Count what would be written."""
        self.changes += 1

    def test_found_out(self) -> None:
        """Each finding is kept, with when it was made; others are left alone."""
        self.assertEqual(self.book.known(NOTES), Verdict())
        self.book.note(NOTES, legacy=True)
        self.assertEqual(self.book.known(NOTES), Verdict(legacy=True, seen_at=1_000_000.0))
        self.now += 10
        self.book.note(NOTES, modern=False)
        self.assertEqual(
            self.book.known(NOTES), Verdict(legacy=True, modern=False, seen_at=1_000_010.0)
        )

    def test_pinned(self) -> None:
        """What the configuration says counts, whatever was found out."""
        self.book.note(NOTES, legacy=False, modern=False)
        for era, legacy, modern in (
            (Eras.LEGACY, True, False),
            (Eras.MODERN, False, True),
            (Eras.DUAL, True, True),
        ):
            pinned = replace(NOTES, era=era)
            self.book.note(pinned, legacy=not legacy)
            verdict = self.book.known(pinned)
            self.assertEqual((verdict.legacy, verdict.modern), (legacy, modern))
            self.now += 10 * HORIZON_S
            self.assertFalse(self.book.is_old(pinned))

    def test_words(self) -> None:
        """People read one word; only servers without a legacy era need the bridge."""
        for legacy, modern, words in (
            (None, None, "unknown"),
            (True, None, "legacy"),
            (True, False, "legacy"),
            (None, True, "modern"),
            (False, True, "modern"),
            (True, True, "dual"),
        ):
            verdict = Verdict(legacy=legacy, modern=modern)
            self.assertEqual(verdict.words, words)
            self.assertEqual(verdict.modern_only, (legacy, modern) == (False, True))

    def test_grows_old(self) -> None:
        """After a day it is looked at again; what is seen again is new again."""
        self.assertFalse(self.book.is_old(NOTES))
        self.book.note(NOTES, legacy=True)
        self.now += HORIZON_S - 1
        self.assertFalse(self.book.is_old(NOTES))
        self.now += 1
        self.assertTrue(self.book.is_old(NOTES))
        self.book.note(NOTES, legacy=True)
        self.assertFalse(self.book.is_old(NOTES))
        # A wall clock put back makes every date one of the future.
        self.now -= 10
        self.assertTrue(self.book.is_old(NOTES))

    def test_seldom_written(self) -> None:
        """What is seen again within a day is not written again."""
        self.book.note(NOTES, legacy=True)
        self.book.note(NOTES, legacy=True)
        self.assertEqual(self.changes, 1)
        self.book.note(NOTES, modern=True)
        self.assertEqual(self.changes, 2)

    def test_entry_changed(self) -> None:
        """Another program behind the same name is a server nobody knows."""
        self.book.note(NOTES, legacy=True)
        self.assertEqual(self.book.known(replace(NOTES, command=("other",))), Verdict())
        self.assertEqual(self.book.known(replace(NOTES, env=(("A", "b"),))), Verdict())
        self.assertTrue(self.book.known(replace(NOTES, max_calls=3)).legacy)

    def test_forgotten(self) -> None:
        """What is not true any more can be forgotten."""
        self.book.forget(NOTES)
        self.assertEqual(self.changes, 0)
        self.book.note(NOTES, legacy=True)
        self.book.forget(NOTES)
        self.assertEqual(self.book.known(NOTES), Verdict())
        self.assertEqual(self.changes, 2)

    def test_restart(self) -> None:
        """The next life of the gate knows what this one found out."""
        self.book.note(NOTES, legacy=False, modern=True)
        again = EraBook(lambda: self.now, key=b"k")
        again.restore(self.book.kept())
        self.assertEqual(again.known(NOTES), self.book.known(NOTES))
        # Digests are worth nothing to a reader of the file without the key.
        other = EraBook(lambda: self.now, key=b"another")
        other.restore(self.book.kept())
        self.assertEqual(other.known(NOTES), Verdict())

    def test_damaged_file(self) -> None:
        """What can not be read is not known, and does no harm."""
        (good,) = [row for row in self._kept()]
        self.book.restore(None)
        self.book.restore(
            [
                3,
                {},
                {**good, "server": 1},
                {**good, "entry": None},
                {**good, "seen_at": "now"},
                {**good, "legacy": "yes"},
            ]
        )
        self.assertEqual(self.book.kept(), [])
        self.book.restore([good])
        self.assertEqual(self.book.kept(), [good])

    def _kept(self) -> list[dict[str, object]]:
        book = EraBook(lambda: self.now, key=b"k")
        book.note(NOTES, legacy=True)
        return book.kept()
