"""Tests of `mcpgate.gate.access.revocation`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.access.revocation import Revocations
from mcpgate.model import Principal
from tests.gate.access.fakes import ISSUER, caller


class RevocationsTests(SynchronousTestCase):
    """Revoked keys are told to whoever has something open for them."""

    def setUp(self) -> None:
        """Make a meeting point and listen."""
        self.revocations = Revocations()
        self.heard: list[Principal] = []
        self.ann = caller("ann-1")

    def test_announced(self) -> None:
        """Every subscriber hears, also after one that fails."""

        def broken(_: Principal) -> None:
            raise ZeroDivisionError

        self.revocations.on_revoked(broken)
        self.revocations.on_revoked(self.heard.append)
        self.revocations.announce(self.ann.principal)
        self.assertEqual(self.heard, [self.ann.principal])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_watch(self) -> None:
        """A key is watched until the last of its streams has ended, each counted once."""
        first = self.revocations.watch(self.ann)
        second = self.revocations.watch(self.ann)
        first()
        first()
        self.assertEqual(self.revocations.watched(ISSUER), [self.ann])
        self.assertEqual(self.revocations.watched("other"), [])
        second()
        self.assertFalse(self.revocations.watches(self.ann.principal))

    def test_endings_are_called_once(self) -> None:
        """What is open is told of the end; what was released before, or fails, harms nobody."""
        told: list[str] = []

        def broken() -> None:
            raise ZeroDivisionError

        self.revocations.watch(self.ann, broken)
        self.revocations.watch(self.ann, lambda: told.append("open"))
        self.revocations.watch(self.ann, lambda: told.append("released"))()
        self.revocations.announce(self.ann.principal)
        self.revocations.announce(self.ann.principal)
        self.assertEqual(told, ["open"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_watch_ends_with_announcement(self) -> None:
        """What was announced is watched no more; a late release does not touch newer streams."""
        old = self.revocations.watch(self.ann)
        self.revocations.announce(self.ann.principal)
        self.assertFalse(self.revocations.watches(self.ann.principal))
        self.revocations.watch(self.ann)
        old()
        self.assertTrue(self.revocations.watches(self.ann.principal))
