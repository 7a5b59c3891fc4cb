"""Protocol revisions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.revisions import (
    LATEST_LEGACY,
    REVISIONS,
    WITHOUT_HEADER,
    Era,
    negotiate,
    revision,
)


class RevisionsTests(SynchronousTestCase):
    """The table of what each revision has."""

    def test_known_legacy_is_echoed(self) -> None:
        """A client that asks for a revision we serve gets that revision."""
        for name in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
            self.assertEqual(negotiate(name).name, name)

    def test_anything_else_gets_the_latest(self) -> None:
        """Unknown, modern and malformed requests are offered the latest legacy revision."""
        for name in ("2026-07-28", "1999-01-01", "", None, 5, ["2024-11-05"]):
            self.assertIdentical(negotiate(name), LATEST_LEGACY)

    def test_features(self) -> None:
        """Batches, priming events, resumption and eras are where the specification has them."""
        named = REVISIONS.values()
        self.assertEqual([r.name for r in named if r.batch], ["2025-03-26"])
        self.assertEqual([r.name for r in named if r.priming_event], ["2025-11-25"])
        self.assertEqual(
            [r.name for r in named if r.resume], ["2025-03-26", "2025-06-18", "2025-11-25"]
        )
        self.assertEqual([r.name for r in named if r.era is Era.MODERN], ["2026-07-28"])
        self.assertEqual(WITHOUT_HEADER.name, "2025-03-26")

    def test_look_up(self) -> None:
        """A revision is found by its date only."""
        self.assertIdentical(revision("2025-11-25"), LATEST_LEGACY)
        self.assertIdentical(revision("2025-11-26"), None)
        self.assertIdentical(revision(None), None)
