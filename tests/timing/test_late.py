"""Tests of things that are had on a thread when first asked for."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.timing.late import Late


class LateTests(SynchronousTestCase):
    """`Late`."""

    def setUp(self) -> None:
        """Make one whose thread is scripted."""
        self.asked: list[tuple[Callable[[], int], Deferred[int]]] = []
        self.late: Late[str] = Late(self.apart, lambda: 7, lambda loaded: f"made of {loaded}")

    def apart(self, work: Callable[[], int]) -> Deferred[int]:
        """Note the work."""
        self.asked.append((work, Deferred()))
        return self.asked[-1][1]

    def come(self) -> None:
        """Do the work."""
        work, told = self.asked.pop()
        told.callback(work())

    def test_once(self) -> None:
        """It is loaded when first asked for, once for all."""
        self.assertEqual(self.asked, [])
        first, second = self.late.get(), self.late.get()
        self.assertNoResult(first)
        self.assertEqual(len(self.asked), 1)
        self.come()
        self.assertEqual(self.successResultOf(first), "made of 7")
        self.assertIs(self.successResultOf(second), self.successResultOf(self.late.get()))
        self.assertEqual(self.asked, [])

    def test_again(self) -> None:
        """A try that fails is not the last."""
        first = self.late.get()
        self.asked.pop()[1].errback(ImportError("gone"))
        self.failureResultOf(first, ImportError)
        second = self.late.get()
        self.come()
        self.assertEqual(self.successResultOf(second), "made of 7")

    def test_impatient(self) -> None:
        """One who waits no longer does not end it for the others."""
        first, second = self.late.get(), self.late.get()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.come()
        self.assertEqual(self.successResultOf(second), "made of 7")
