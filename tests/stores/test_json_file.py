"""Tests of mcpgate.stores.json_file."""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.stores.json_file import LIMIT_BYTES, read_json, write_json


class JSONFileTests(SynchronousTestCase):
    """A small file that is replaced whole."""

    def setUp(self) -> None:
        """Choose a place."""
        self.path = Path(self.mktemp())

    def test_round(self) -> None:
        """What was written is read, and only we can read it."""
        self.assertIsNone(read_json(self.path))
        write_json(self.path, {"a": [1, "ä"]})
        write_json(self.path, {"b": None})
        self.assertEqual(read_json(self.path), {"b": None})
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual([*self.path.parent.glob(self.path.name + "*")], [self.path])

    def test_damaged(self) -> None:
        """What can not be read is passed over."""
        for data in (b"{", b"\xff", b"[" * 100_000, b" " * (LIMIT_BYTES + 1)):
            self.path.write_bytes(data)
            self.assertIsNone(read_json(self.path))
        self.path.unlink()
        self.path.mkdir()
        self.assertIsNone(read_json(self.path))

    def test_disk_refuses(self) -> None:
        """A write that fails leaves the old file."""
        write_json(self.path, 1)
        self.path.with_name(self.path.name + ".new").mkdir()
        self.assertRaises(OSError, write_json, self.path, 2)
        self.assertEqual(read_json(self.path), 1)
