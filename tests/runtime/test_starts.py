"""A few starts at a time, in a fair order."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.runtime.starts import StartQueue


class StartQueueTests(SynchronousTestCase):
    """Places for starts."""

    def note(self, _: None, order: list[str], name: str) -> None:
        """Note who got a place."""
        order.append(name)

    def test_free_places_at_once(self) -> None:
        """As long as there are places nobody waits."""
        queue = StartQueue(parallel=2)
        self.successResultOf(queue.acquire("a"))
        self.successResultOf(queue.acquire("a"))
        self.assertNoResult(queue.acquire("a"))

    def test_fair_between_principals(self) -> None:
        """Somebody with many starts does not keep the others waiting for all of them."""
        queue = StartQueue(parallel=1)
        queue.acquire("first")
        order: list[str] = []
        for who, name in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")]:
            queue.acquire(who).addCallback(self.note, order, name)
        for _ in range(5):
            queue.release()
        self.assertEqual(order, ["a1", "b1", "c1", "a2", "a3"])

    def test_full(self) -> None:
        """It says when no more may wait."""
        queue = StartQueue(parallel=1, limit=2)
        queue.acquire("a")
        self.assertFalse(queue.full)
        queue.acquire("b")
        queue.acquire("b")
        self.assertEqual((queue.full, len(queue)), (True, 2))
        queue.release()
        self.assertFalse(queue.full)

    def test_cancel(self) -> None:
        """Who does not want to wait leaves; the place goes to the next."""
        queue = StartQueue(parallel=1)
        queue.acquire("a")
        gone, one, two = queue.acquire("b"), queue.acquire("b"), queue.acquire("c")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        queue.release()
        self.successResultOf(one)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.assertEqual(len(queue), 0)
        queue.release()
        self.successResultOf(queue.acquire("d"))
