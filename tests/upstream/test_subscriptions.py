"""Who subscribed to what."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.upstream.subscriptions import Subscriptions


class SubscriptionsTests(SynchronousTestCase):
    """Counting subscriptions."""

    def setUp(self) -> None:
        """Begin with none."""
        self.books: Subscriptions[str] = Subscriptions(2)

    def test_first_and_second(self) -> None:
        """The server is asked until it has said yes once."""
        self.assertTrue(self.books.begin("ann", "a"))
        self.assertTrue(self.books.begin("bob", "a"))
        self.books.settle("ann", "a", True)
        self.assertFalse(self.books.begin("cat", "a"))
        self.assertFalse(self.books.begin("ann", "a"))
        self.assertEqual(self.books.listeners("a"), ["ann", "bob", "cat"])

    def test_refused_after_accepted(self) -> None:
        """A late refusal does not undo what the server accepted."""
        self.books.begin("ann", "a")
        self.books.settle("ann", "a", True)
        self.books.settle("ann", "a", False)
        self.assertEqual(self.books.uris_of("ann"), ("a",))

    def test_settled_after_leaving(self) -> None:
        """An answer that comes after the session has gone has no effect."""
        self.books.begin("ann", "a")
        self.books.begin("bob", "a")
        self.assertEqual(self.books.forget("ann"), [])
        self.books.settle("ann", "a", True)
        self.assertEqual(self.books.listeners("a"), ["bob"])
        self.assertEqual(self.books.forget("bob"), ["a"])
        self.books.settle("bob", "a", True)
        self.assertEqual(self.books.listeners("a"), [])

    def test_drop_unknown(self) -> None:
        """Unsubscribing what nobody has is the server's to answer."""
        self.assertTrue(self.books.drop("ann", "a"))

    def test_full(self) -> None:
        """The bound counts URIs, not sessions."""
        self.books.begin("ann", "a")
        self.books.begin("bob", "b")
        self.assertFalse(self.books.full("a"))
        self.assertTrue(self.books.full("c"))
