"""Tests of `mcpgate.gate.access.keyfile`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.access import keyfile
from mcpgate.gate.access.keyfile import (
    KeyEntry,
    KeyFile,
    KeyFileError,
    changing,
    made_id,
    make_entry,
    make_key,
    parse_keys,
    parse_line,
    read_keys,
)
from mcpgate.model import Secret
from tests.gate.access.fakes import CANARY

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
PATH = Path("keys")


def made(name: str = "ann", key_id: str = "00000001") -> tuple[Secret, KeyEntry]:
    """Make a key and its line."""
    key = make_key(os.urandom, key_id)
    return key, make_entry(name, key, random_bytes=os.urandom, now=NOW)


class MakingTests(SynchronousTestCase):
    """Keys are made so that their lines find them again."""

    def test_made_key(self) -> None:
        """A made key shows its id, has a long secret, and matches its own line only."""
        key, entry = made()
        other, _ = made()
        self.assertRegex(key.reveal(), r"\Amg_00000001_[0-9a-f]{64}\Z")
        self.assertEqual((made_id(key), entry.key_id), ("00000001", "00000001"))
        self.assertTrue(entry.matches(key))
        self.assertFalse(entry.matches(other))
        self.assertFalse(entry.imported)

    def test_imported_key(self) -> None:
        """An imported key gets an id of its own."""
        entry = make_entry("ann", Secret(CANARY), random_bytes=os.urandom, now=NOW)
        self.assertRegex(entry.key_id, r"\Aown-[0-9a-f]{8}\Z")
        self.assertTrue(entry.imported)
        self.assertTrue(entry.matches(Secret(CANARY)))
        self.assertNotIn(CANARY, entry.line() + repr(entry))

    def test_imported_from_another_gate(self) -> None:
        """A key another gate made keeps its id."""
        entry = make_entry(
            "ann", make_key(os.urandom, "deadbeef"), random_bytes=os.urandom, now=NOW
        )
        self.assertEqual(entry.key_id, "deadbeef")

    def test_refused(self) -> None:
        """Short keys, keys with blanks, and names and servers with separators are refused."""
        for key in ("short", "with a blank in between", "é" * 20, "x" * 4097):
            with self.assertRaises(KeyFileError) as caught:
                make_entry("ann", Secret(key), random_bytes=os.urandom, now=NOW)
            self.assertNotIn(key, str(caught.exception))
        for name in ("", "a:b", "a b", "-a", "x" * 65, "a\nb"):
            with self.assertRaises(KeyFileError):
                made(name)
        with self.assertRaises(KeyFileError):
            make_entry(
                "ann",
                Secret(CANARY),
                random_bytes=os.urandom,
                now=NOW,
                servers=frozenset({"A:B"}),
            )

    def test_no_servers(self) -> None:
        """A key for no server at all is a mistake, not a key for every server."""
        with self.assertRaises(KeyFileError):
            make_entry("ann", Secret(CANARY), random_bytes=os.urandom, now=NOW, servers=frozenset())


class ParsingTests(SynchronousTestCase):
    """The file is read strictly and written back as it was."""

    def test_round_trip(self) -> None:
        """Comments, blank lines and keys keep their places."""
        _, entry = made()
        text = f"# Keys of the wiki\n\n{entry.line()}\n  # end\n"
        keys = parse_keys(text, PATH)
        self.assertEqual(keys.entries, (entry,))
        self.assertEqual(keys.text(), f"# Keys of the wiki\n\n{entry.line()}\n# end\n")

    def test_servers(self) -> None:
        """A star opens every server, a list those in it."""
        line = made()[1].line()
        self.assertIsNone(parse_line(line).servers)
        some = parse_line(line[:-1] + "b,a")
        self.assertEqual(some.servers, frozenset({"a", "b"}))
        self.assertTrue(some.line().endswith(":a,b"))

    def test_bad_lines(self) -> None:
        """What is wrong is told with file and line, and shows no hash."""
        good = made()[1].line()
        parts = good.split(":")
        for place, value in (
            (0, "a b"),
            (1, "xyz"),
            (2, "md5"),
            (3, "00"),
            (4, "zz"),
            (5, "yesterday"),
            (6, ""),
            (6, "A"),
            (6, "a,,b"),
        ):
            bad = [*parts]
            bad[place] = value
            with self.assertRaises(KeyFileError) as caught:
                parse_keys("# one\n" + ":".join(bad), PATH)
            self.assertTrue(str(caught.exception).startswith("keys:2: "), str(caught.exception))
            self.assertNotIn(parts[4], str(caught.exception))
        with self.assertRaisesRegex(KeyFileError, "keys:1: has 1 parts"):
            parse_keys("nonsense", PATH)

    def test_id_twice(self) -> None:
        """An id must be unique."""
        line = made()[1].line()
        with self.assertRaisesRegex(KeyFileError, "twice"):
            parse_keys(f"{line}\n{line}", PATH)

    def test_bounds(self) -> None:
        """Too many keys are refused."""
        lines = "\n".join(made(key_id=f"{n:08x}")[1].line() for n in range(4))
        with (
            patch.object(keyfile, "KEYS_LIMIT", 3),
            self.assertRaisesRegex(KeyFileError, "more than 3"),
        ):
            parse_keys(lines, PATH)
        own = "\n".join(made()[1].line().replace(":0000", f":own-{n}000") for n in range(4))
        with (
            patch.object(keyfile, "IMPORTED_LIMIT", 3),
            self.assertRaisesRegex(KeyFileError, "imported"),
        ):
            parse_keys(own, PATH)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Whatever stands in the file is read or refused with its place."""
        try:
            keys = parse_keys(text, PATH)
        except KeyFileError as error:
            self.assertTrue(str(error).startswith("keys"))
        else:
            self.assertEqual(parse_keys(keys.text(), PATH), keys)


class FileTests(SynchronousTestCase):
    """The file changes whole or not at all."""

    def setUp(self) -> None:
        """Make a directory."""
        self.dir = Path(self.mktemp())
        self.dir.mkdir()
        self.path = self.dir / "keys"

    def add(self, entry: KeyEntry) -> None:
        """Add a key."""
        with changing(self.path) as (keys, write):
            write(keys.with_key(entry))

    def test_add_and_remove(self) -> None:
        """Keys are added and taken out; the file is its owner's alone."""
        _, first = made(key_id="00000001")
        _, second = made("bob", "00000002")
        self.add(first)
        self.add(second)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        keys = read_keys(self.path)
        self.assertEqual(keys.find("bob"), (second,))
        self.assertEqual(keys.find("00000001"), (first,))
        self.assertEqual(keys.find("eve"), ())
        with changing(self.path) as (keys, write):
            write(keys.without(keys.find("ann")))
        self.assertEqual(read_keys(self.path).entries, (second,))
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), [".keys.lock", "keys"])

    def test_id_taken(self) -> None:
        """A key whose id is taken is refused, and the file stays as it was."""
        self.add(made()[1])
        before = self.path.read_text()
        with self.assertRaisesRegex(KeyFileError, "twice"):
            self.add(made()[1])
        self.assertEqual(self.path.read_text(), before)

    def test_symbolic_link(self) -> None:
        """A link to the file stays a link."""
        link = self.dir / "link"
        link.symlink_to("keys")
        with changing(link) as (keys, write):
            write(keys.with_key(made()[1]))
        self.assertTrue(link.is_symlink())
        self.assertEqual(len(read_keys(self.path).entries), 1)

    def test_writable_by_others(self) -> None:
        """A file others may write to is refused: anybody could add a key."""
        self.add(made()[1])
        self.path.chmod(0o660)
        with self.assertRaisesRegex(KeyFileError, "chmod 600"):
            read_keys(self.path)

    def test_too_large(self) -> None:
        """A huge file is neither read nor written."""
        self.path.write_text("#" * 100)
        with (
            patch.object(keyfile, "FILE_LIMIT", 50),
            self.assertRaisesRegex(KeyFileError, "larger"),
        ):
            read_keys(self.path)
        with (
            patch.object(keyfile, "FILE_LIMIT", 100),
            self.assertRaisesRegex(KeyFileError, "would be larger"),
        ):
            self.add(made()[1])

    def test_not_text(self) -> None:
        """Bytes that are not text are told with their line."""
        self.path.write_bytes(b"# a\n\xff")
        with self.assertRaisesRegex(KeyFileError, "keys:2: is not UTF-8"):
            read_keys(self.path)

    def test_unreadable(self) -> None:
        """What is not a file is told as such."""
        with self.assertRaisesRegex(KeyFileError, "can not be read"):
            read_keys(self.dir)
        with (
            self.assertRaisesRegex(KeyFileError, "can not be written to"),
            changing(self.dir / "no" / "keys"),
        ):
            pass

    def test_disk_full(self) -> None:
        """A write that fails leaves the old file and no draft."""
        self.add(made()[1])
        before = self.path.read_text()
        with (
            patch("os.fsync", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(KeyFileError, "No space left"),
        ):
            self.add(made(key_id="00000002")[1])
        self.assertEqual(self.path.read_text(), before)
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), [".keys.lock", "keys"])

    def test_empty(self) -> None:
        """A file without keys is fine."""
        self.assertEqual(KeyFile().text(), "")
        with changing(self.path) as (keys, _):
            self.assertEqual(keys, KeyFile())
        self.assertFalse(self.path.exists())
