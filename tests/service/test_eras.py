"""Tests of mcpgate.service.eras."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import ServerSpec, Transport
from mcpgate.service.eras import FILE, STOP_S, WAIT_S, KeptEras
from tests.stores.blocking import ImmediateThread

NOTES = ServerSpec(name="notes", transport=Transport.STDIO)


class KeptErasTests(SynchronousTestCase):
    """What was found out outlives the gate."""

    def setUp(self) -> None:
        """Make a state directory."""
        self.clock = Clock()
        self.thread = ImmediateThread()
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.eras = self.make()

    def make(self) -> KeptEras:
        """Start a life of the gate."""
        eras = KeptEras(self.clock, self.thread, self.path, wall=lambda: 5.0, key=b"k")
        self.successResultOf(eras.load())
        return eras

    def test_kept(self) -> None:
        """A finding is on the disk a moment later; several of one moment go together."""
        self.eras.book.note(NOTES, legacy=False)
        self.eras.book.note(NOTES, modern=True)
        self.assertFalse((self.path / FILE).exists())
        self.clock.advance(WAIT_S)
        self.assertTrue(self.make().book.known(NOTES).modern_only)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.eras.close())

    def test_stopped(self) -> None:
        """Stopping writes what waits."""
        self.eras.book.note(NOTES, legacy=True)
        self.successResultOf(self.eras.close())
        self.assertTrue(self.make().book.known(NOTES).legacy)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_disk_refuses(self) -> None:
        """A disk that refuses costs nothing but the memory."""
        (self.path / (FILE + ".new")).mkdir()
        self.eras.book.note(NOTES, legacy=True)
        self.clock.advance(WAIT_S)
        self.assertTrue(self.eras.book.known(NOTES).legacy)
        self.assertIsNone(self.make().book.known(NOTES).legacy)

    def test_disk_hangs(self) -> None:
        """A disk that hangs does not keep the gate from stopping."""
        self.eras.book.note(NOTES, legacy=True)
        self.thread.held = True
        closing = self.eras.close()
        self.clock.advance(STOP_S)
        self.successResultOf(closing)
