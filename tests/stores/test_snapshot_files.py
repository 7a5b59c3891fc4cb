"""Tests of mcpgate.stores.snapshot_files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.stores.snapshot_files import CLOSE_S, SnapshotFiles
from tests.stores.blocking import ImmediateThread

A, B = "a" * 32, "b" * 32


class SnapshotFilesTests(SynchronousTestCase):
    """Files written behind."""

    def setUp(self) -> None:
        """Choose a folder of our own; it is not there yet."""
        self.clock = Clock()
        self.thread = ImmediateThread()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "snapshots"
        self.files = SnapshotFiles(self.clock, self.thread, self.path, limit_bytes=100)

    def test_round_trip(self) -> None:
        """What is kept is there for the next gate, the longest unchanged first; mode 0600."""
        self.assertEqual(self.successResultOf(self.files.load()), [])
        self.files.put(B, b"one")
        self.files.put(A, b"two")
        self.assertFalse(self.path.exists())
        self.clock.advance(0)
        self.assertEqual(stat.S_IMODE((self.path / A).stat().st_mode), 0o600)
        os.utime(self.path / B, (1, 1))
        self.assertEqual(self.successResultOf(self.files.load()), [(B, b"one"), (A, b"two")])
        self.files.delete(B)
        self.files.delete("c" * 32)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(self.files.load()), [(A, b"two")])

    def test_newest_counts(self) -> None:
        """Of several changes of one turn only the last is written."""
        for data in (b"1", b"2", b"3"):
            self.files.put(A, data)
        self.files.put(B, b"gone")
        self.files.delete(B)
        self.clock.advance(0)
        self.assertEqual([path.name for path in self.path.iterdir()], [A])
        self.assertEqual((self.path / A).read_bytes(), b"3")

    def test_what_is_not_ours(self) -> None:
        """Half-written files go; foreign and too large ones are left where they are."""
        self.path.mkdir()
        (self.path / f"{A}.part").write_bytes(b"half")
        (self.path / "readme").write_bytes(b"x")
        (self.path / B).write_bytes(b"x" * 101)
        self.assertEqual(self.successResultOf(self.files.load()), [])
        self.assertEqual(sorted(path.name for path in self.path.iterdir()), [B, "readme"])

    def test_broken_disk(self) -> None:
        """A folder that can not be used costs the snapshots, and nothing else."""
        self.path.write_text("a file")
        self.files.put(A, b"x")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(self.files.load()), [])
        self.path.unlink()
        self.files.put(A, b"y")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(self.files.load()), [(A, b"y")])

    def test_a_bug(self) -> None:
        """What goes wrong with one file is told in the log; the next ones are written."""
        patch = self.patch(Path, "replace", lambda *_: 1 / 0)
        self.files.put(A, b"x")
        self.clock.advance(0)
        patch.restore()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.files.put(B, b"y")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(self.files.load()), [(B, b"y")])

    def test_unreadable(self) -> None:
        """What can not be read is told in the log; the gate starts without."""
        self.path.mkdir()
        self.patch(Path, "iterdir", self.fails)
        self.assertEqual(self.successResultOf(self.files.load()), [])

    def test_one_unreadable(self) -> None:
        """One entry that can not be read costs none of the others."""
        self.path.mkdir()
        (self.path / A).mkdir()
        (self.path / f"{A}.part").mkdir()
        (self.path / B).write_bytes(b"x")
        (self.path / ("c" * 32)).symlink_to("nowhere")
        self.assertEqual(self.successResultOf(self.files.load()), [(B, b"x")])

    def test_unreadable_told(self) -> None:
        """Where it matters, what can not be read is given as empty."""
        self.path.mkdir()
        (self.path / A).mkdir()
        (self.path / B).write_bytes(b"x" * 101)
        (self.path / "readme").write_bytes(b"x")
        self.files._tell_unread = True
        self.assertEqual(self.successResultOf(self.files.load()), [(A, b""), (B, b"")])

    def fails(self) -> None:
        """Fail as a disk does."""
        raise OSError(5, "Input/output error")

    def test_close(self) -> None:
        """Closing waits for what is being written, but not for ever."""
        self.successResultOf(self.files.close())
        self.thread.held = True
        self.files.put(A, b"x")
        self.clock.advance(0)
        closing = self.files.close()
        self.assertNoResult(closing)
        self.thread.let_go()
        self.clock.advance(CLOSE_S)
        self.successResultOf(closing)
        self.assertEqual(self.thread.stopped, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dead_disk(self) -> None:
        """A disk that does not answer keeps the gate from stopping for some seconds only."""
        self.thread.held = True
        self.files.put(A, b"x")
        self.clock.advance(0)
        closing = self.files.close()
        self.clock.advance(CLOSE_S)
        self.successResultOf(closing)
        self.assertEqual(self.thread.stopped, 1)

    def test_close_after_writing(self) -> None:
        """What waits when the gate stops is written."""
        self.files.put(A, b"x")
        closing = self.files.close()
        self.clock.advance(0)
        self.successResultOf(closing)
        self.assertEqual((self.path / A).read_bytes(), b"x")
