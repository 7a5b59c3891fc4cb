"""Tests of `mcpgate.gate.access.static`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import InvalidCredential, Unauthenticated
from mcpgate.gate.access.keyfile import KeyFile, KeyFileError, changing, make_entry, make_key
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.access.static import StaticAuthenticator
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Principal, Secret
from tests.gate.access.fakes import CANARY, DIGEST

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class StaticTests(SynchronousTestCase):
    """Keys of a file are good as long as they stand there."""

    def setUp(self) -> None:
        """Make a file with one made and one imported key."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "keys"
        self.revocations = Revocations()
        self.revoked: list[Principal] = []
        self.revocations.on_revoked(self.revoked.append)
        self.ann = self.add("ann", make_key(os.urandom, "00000001"))
        self.bob = self.add("bob", Secret(CANARY), frozenset({"a", "b"}))
        self.static = self.make()

    def make(self, servers: frozenset[str] | None = None) -> StaticAuthenticator:
        """Read the file."""
        return StaticAuthenticator("team", self.path, DIGEST, self.revocations, servers=servers)

    def add(self, name: str, key: Secret, servers: frozenset[str] | None = None) -> Secret:
        """Add a key to the file."""
        entry = make_entry(name, key, random_bytes=os.urandom, now=NOW, servers=servers)
        with changing(self.path) as (keys, write):
            write(keys.with_key(entry))
        return key

    def remove(self, name: str) -> None:
        """Take a key out of the file."""
        with changing(self.path) as (keys, write):
            write(keys.without(keys.find(name)))

    def test_interface(self) -> None:
        """It is an authenticator."""
        verifyObject(IAuthenticator, self.static)

    def test_made_key(self) -> None:
        """A made key is known at first sight, by look-up ever after."""
        found = self.static.remembered(self.ann)
        assert found is not None
        self.assertEqual(found.principal, Principal("team", "ann", DIGEST(self.ann)))
        self.assertIs(self.static.remembered(self.ann), found)
        self.assertIs(self.successResultOf(self.static.authenticate(self.ann)), found)
        self.assertTrue(found.may_use("anything"))

    def test_imported_key(self) -> None:
        """An imported key is found by trying, by look-up ever after, for its servers only."""
        self.assertIsNone(self.static.remembered(self.bob))
        found = self.successResultOf(self.static.authenticate(self.bob))
        self.assertIs(self.static.remembered(self.bob), found)
        self.assertTrue(found.may_use("a"))
        self.assertFalse(found.may_use("c"))

    def test_section_restricts_too(self) -> None:
        """A key opens what both its line and its section allow."""
        static = self.make(frozenset({"b", "c"}))
        ann = self.successResultOf(static.authenticate(self.ann))
        bob = self.successResultOf(static.authenticate(self.bob))
        self.assertEqual((ann.servers, bob.servers), (frozenset({"b", "c"}), frozenset({"b"})))

    def test_wrong_keys(self) -> None:
        """Unknown keys, a known id with another secret, and no key are refused."""
        for key in ("x" * 20, "mg_00000001_" + "0" * 64, "mg_00000009_" + "0" * 64, "mg_"):
            self.assertIsNone(self.static.remembered(Secret(key)))
            self.failureResultOf(self.static.authenticate(Secret(key)), InvalidCredential)
        failure = self.failureResultOf(self.static.authenticate(Secret("")), Unauthenticated)
        self.assertIsNone(failure.check(InvalidCredential))

    def test_two_keys_of_one_user(self) -> None:
        """Two keys of a user are two principals of one subject."""
        second = self.add("ann", make_key(os.urandom, "00000002"))
        self.static.reload()
        one, two = (self.static.remembered(key) for key in (self.ann, second))
        assert one is not None
        assert two is not None
        self.assertEqual(one.principal.subject, two.principal.subject)
        self.assertNotEqual(one.principal, two.principal)

    def test_added_key(self) -> None:
        """A key added while running works after the next look at the file."""
        eve = self.add("eve", make_key(os.urandom, "00000003"))
        self.assertIsNone(self.static.remembered(eve))
        self.static.reload_if_changed()
        self.assertIsNotNone(self.static.remembered(eve))
        self.assertEqual((self.revoked, len(self.static)), ([], 3))

    def test_revoked_key(self) -> None:
        """A key taken out stops with the next look, and that is announced; others stay."""
        self.static.remembered(self.ann)
        self.successResultOf(self.static.authenticate(self.bob))
        self.remove("ann")
        self.static.reload_if_changed()
        self.assertIsNone(self.static.remembered(self.ann))
        self.failureResultOf(self.static.authenticate(self.ann), InvalidCredential)
        self.assertEqual(self.revoked, [Principal("team", "ann", DIGEST(self.ann))])
        self.assertIsNotNone(self.static.remembered(self.bob))

    def test_narrowed_key(self) -> None:
        """A key that opens other servers now is announced too, and works on with its new ones."""
        self.successResultOf(self.static.authenticate(self.bob))
        self.path.write_text(self.path.read_text().replace(":a,b", ":a"))
        self.static.reload_if_changed()
        self.assertEqual(len(self.revoked), 1)
        found = self.successResultOf(self.static.authenticate(self.bob))
        self.assertFalse(found.may_use("b"))

    def test_read_apart(self) -> None:
        """While the file is read elsewhere the old keys count, then the new ones."""
        asked: list[tuple[Callable[[], KeyFile], Deferred[KeyFile]]] = []

        def apart(read: Callable[[], KeyFile]) -> Deferred[KeyFile]:
            asked.append((read, Deferred()))
            return asked[-1][1]

        static = StaticAuthenticator("team", self.path, DIGEST, self.revocations, apart=apart)
        self.assertEqual((len(static), asked), (2, []))
        eve = self.add("eve", make_key(os.urandom, "00000003"))
        self.remove("ann")
        reading = static.reload_if_changed()
        self.assertNoResult(reading)
        self.assertIsNotNone(static.remembered(self.ann))
        self.assertIsNone(static.remembered(eve))
        ((read, told),) = asked
        told.callback(read())
        self.successResultOf(reading)
        self.assertIsNone(static.remembered(self.ann))
        self.assertIsNotNone(static.remembered(eve))

    def test_unchanged_file(self) -> None:
        """A file that did not change is not read again."""
        reads: list[bool] = []
        self.patch(self.static, "reload", lambda: reads.append(True))
        self.static.reload_if_changed()
        self.assertEqual(reads, [])

    def test_bad_file(self) -> None:
        """A bad file changes nothing, and is mended by the next good one."""
        good = self.path.read_text()
        self.path.write_text(good + "nonsense\n")
        self.assertFalse(self.successResultOf(self.static.reload()))
        self.assertIsNotNone(self.static.remembered(self.ann))
        with self.assertRaisesRegex(KeyFileError, "keys:3: has 1 parts"):
            self.make()
        self.path.write_text(good)
        self.assertTrue(self.successResultOf(self.static.reload()))

    def test_file_gone(self) -> None:
        """A file that has gone changes nothing, and is told once, not at each look."""
        self.path.unlink()
        self.static.reload_if_changed()
        self.assertIsNotNone(self.static.remembered(self.ann))
        self.test_unchanged_file()

    def test_no_file_yet(self) -> None:
        """A gate starts without a key file; the first key added works."""
        self.path.unlink()
        static = self.make()
        self.assertEqual(len(static), 0)
        eve = self.add("eve", make_key(os.urandom, "00000003"))
        static.reload_if_changed()
        self.assertIsNotNone(static.remembered(eve))
