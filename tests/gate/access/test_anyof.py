"""Tests of `mcpgate.gate.access.anyof`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import AuthUnavailable, InvalidCredential, Unauthenticated
from mcpgate.gate.access.anyof import AnonymousAuthenticator, AnyOf
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Secret
from tests.gate.access.fakes import DIGEST, FakeSource, caller

ANN = Secret("ann-1")


class AnyOfTests(SynchronousTestCase):
    """Sources are asked in their order."""

    def setUp(self) -> None:
        """Make two sources."""
        self.first = FakeSource("ann-1")
        self.second = FakeSource("bob-1")
        self.both = AnyOf([self.first, self.second])

    def test_interface(self) -> None:
        """It is an authenticator."""
        verifyObject(IAuthenticator, self.both)

    def test_first_that_knows(self) -> None:
        """The first that knows the key answers; later ones never see it."""
        self.assertEqual(self.successResultOf(self.both.authenticate(ANN)), caller("ann-1"))
        self.assertEqual(self.second.asked, [])
        self.successResultOf(self.both.authenticate(Secret("bob-1")))
        self.assertEqual(self.first.asked, ["ann-1", "bob-1"])

    def test_nobody_knows(self) -> None:
        """A key nobody knows is refused."""
        self.failureResultOf(self.both.authenticate(Secret("x")), InvalidCredential)

    def test_one_is_down(self) -> None:
        """With one source down an unknown key is left open, a known one passes."""
        self.first.down = True
        self.failureResultOf(self.both.authenticate(ANN), AuthUnavailable)
        self.successResultOf(self.both.authenticate(Secret("bob-1")))
        self.first.down, self.second.down = False, True
        self.failureResultOf(self.both.authenticate(Secret("x")), AuthUnavailable)

    def test_no_sources(self) -> None:
        """Without sources nobody gets in."""
        self.failureResultOf(AnyOf([]).authenticate(ANN), Unauthenticated)

    def test_remembered(self) -> None:
        """The first that remembers answers."""
        nobody = AnonymousAuthenticator("open", DIGEST)
        self.assertIsNone(self.both.remembered(ANN))
        found = AnyOf([self.first, nobody]).remembered(ANN)
        assert found is not None
        self.assertEqual(found.principal.issuer, "open")


class AnonymousTests(SynchronousTestCase):
    """A gate without keys lets everybody in as the same one."""

    def test_everybody(self) -> None:
        """With and without a key it is the same principal, and the key goes nowhere."""
        nobody = AnonymousAuthenticator("open", DIGEST, servers=frozenset({"a"}))
        verifyObject(IAuthenticator, nobody)
        found = self.successResultOf(nobody.authenticate(Secret("")))
        self.assertEqual(found, nobody.remembered(ANN))
        self.assertEqual(found.principal.subject, "anonymous")
        self.assertFalse(found.credential)
        self.assertFalse(found.may_use("b"))

    def test_beside_others(self) -> None:
        """Beside other sources a wrong key does not become anonymous."""
        nobody = AnonymousAuthenticator("open", DIGEST, only_without_key=True)
        self.failureResultOf(nobody.authenticate(ANN), InvalidCredential)
        self.assertIsNotNone(nobody.remembered(Secret("")))
