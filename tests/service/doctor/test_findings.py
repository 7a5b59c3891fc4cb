"""Tests of having many looks at once."""

from __future__ import annotations

from threading import Event

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.service.doctor.findings import Finding, examine


class ExamineTests(SynchronousTestCase):
    """`examine`."""

    def test_in_order(self) -> None:
        """What each found is told, in the order asked; one that breaks is told of."""
        found = examine(
            {
                "a": lambda: [Finding(check="a", text="1"), Finding(check="a", text="2")],
                "b": lambda: [Finding(check="b", text=str(1 // 0))],
                "c": list,
            }
        )
        self.assertEqual([one.check for one in found], ["a", "a", "b"])
        self.assertEqual(found[2].level, "fail")
        self.assertIn("division", found[2].text)

    def test_deadline(self) -> None:
        """One that hangs is given up, and keeps nobody."""
        over = Event()
        self.addCleanup(over.set)

        def hang() -> list[Finding]:
            over.wait(60)
            return []

        found = examine({"slow": hang, "quick": list}, 0.05)
        self.assertEqual([one.text for one in found], ["no answer within 0.05 s"])
