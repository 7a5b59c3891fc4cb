"""Tests of `mcpgate.gate.access.digest`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.access.digest import KeyDigest, SecretFileError, load_secret
from mcpgate.model import Secret

ONE = b"\x01" * 32
TWO = b"\x02" * 32


class KeyDigestTests(SynchronousTestCase):
    """Keys are known by digests."""

    def test_shape(self) -> None:
        """A digest is 32 hex digits and does not show the key."""
        digest = KeyDigest(ONE)(Secret("k"))
        self.assertRegex(digest, r"\A[0-9a-f]{32}\Z")

    def test_depends_on_both(self) -> None:
        """The same key and secret give the same digest, other ones another."""
        self.assertEqual(KeyDigest(ONE)(Secret("k")), KeyDigest(ONE)(Secret("k")))
        self.assertNotEqual(KeyDigest(ONE)(Secret("k")), KeyDigest(ONE)(Secret("l")))
        self.assertNotEqual(KeyDigest(ONE)(Secret("k")), KeyDigest(TWO)(Secret("k")))

    def test_wrong_size(self) -> None:
        """A short secret is not accepted."""
        with self.assertRaises(ValueError):
            KeyDigest(b"short")


class LoadSecretTests(SynchronousTestCase):
    """The secret is made once and kept."""

    def setUp(self) -> None:
        """Make a state directory."""
        self.dir = Path(self.mktemp())
        self.dir.mkdir()
        self.path = self.dir / "secret.key"

    def test_made_once(self) -> None:
        """The first start makes it, mode 0600; the second finds it; nothing else is left."""
        first = load_secret(self.dir, lambda n: ONE)
        self.assertEqual(first, ONE)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(load_secret(self.dir, lambda n: TWO), ONE)
        self.assertEqual([p.name for p in self.dir.iterdir()], ["secret.key"])

    def test_race(self) -> None:
        """Who comes second at the same moment takes what the first one made."""

        def late(size: int) -> bytes:
            load_secret(self.dir, lambda n: ONE)
            return TWO

        self.assertEqual(load_secret(self.dir, late), ONE)

    def test_open_to_others(self) -> None:
        """A secret others may read is refused, with the remedy."""
        load_secret(self.dir, lambda n: ONE)
        self.path.chmod(0o644)
        with self.assertRaisesRegex(SecretFileError, "chmod 600"):
            load_secret(self.dir, os.urandom)

    def test_wrong_size(self) -> None:
        """A cut or overlong secret is refused."""
        for content in (b"", b"x" * 33):
            self.path.write_bytes(content)
            self.path.chmod(0o600)
            with self.assertRaisesRegex(SecretFileError, "32 bytes"):
                load_secret(self.dir, os.urandom)

    def test_no_directory(self) -> None:
        """A state directory that is not there is told as such."""
        with self.assertRaisesRegex(SecretFileError, "can not be read or made"):
            load_secret(self.dir / "no", os.urandom)
