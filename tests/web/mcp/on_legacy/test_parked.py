"""Tests of mcpgate.web.mcp.on_legacy.parked."""

from __future__ import annotations

from itertools import count

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import Overloaded
from mcpgate.model import Principal
from mcpgate.web.mcp.on_legacy.parked import Parked

ANN = Principal("file", "ann", "a" * 32)
BOB = Principal("file", "bob", "b" * 32)


class ParkedTests(SynchronousTestCase):
    """Places for calls that wait."""

    @override
    def setUp(self) -> None:
        handles = count(1)
        self.parked: Parked[str] = Parked(lambda: f"h{next(handles)}", per_principal=2, total=3)

    def test_find(self) -> None:
        """A call is found by its owner alone, until it is taken away."""
        handle = self.parked.add(ANN, "call")
        self.assertEqual(self.parked.find(ANN, handle), "call")
        self.assertIsNone(self.parked.find(BOB, handle))
        self.assertIsNone(self.parked.find(ANN, "h9"))
        self.assertEqual((self.parked.of(ANN), self.parked.of(BOB)), (["call"], []))
        self.assertEqual(self.parked.of(), ["call"])
        self.parked.remove(handle)
        self.parked.remove(handle)
        self.assertEqual(len(self.parked), 0)

    def test_bounds(self) -> None:
        """Nobody takes all places, and there are only so many."""
        first = self.parked.add(ANN, "1")
        self.parked.add(ANN, "2")
        with self.assertRaises(Overloaded):
            self.parked.add(ANN, "3")
        self.parked.add(BOB, "4")
        with self.assertRaises(Overloaded):
            self.parked.add(BOB, "5")
        self.parked.remove(first)
        self.parked.add(ANN, "6")
