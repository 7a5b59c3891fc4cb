"""Tests of mcpgate.web.unix_sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.web.unix_sockets import clear_forsaken


class ForsakenTests(SynchronousTestCase):
    """What is removed, and what is not."""

    def setUp(self) -> None:
        """Make a place with a short name."""
        place = Path(self.mktemp())
        place.mkdir(parents=True)
        # Names of sockets are short.
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(place)
        self.path = Path("s")
        self.lock = Path("s.lock")

    def listen(self) -> socket.socket:
        """Listen there, as a program does."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(self.path))
        listening.listen(1)
        return listening

    def test_own_number(self) -> None:
        """A dead program's socket goes although its number is that of a living one: our own."""
        self.listen().close()
        self.lock.symlink_to(str(os.getpid()))
        self.assertTrue(clear_forsaken(str(self.path)))
        self.assertEqual(os.listdir(), [])

    def test_lock_alone(self) -> None:
        """A lock without a socket is of nobody."""
        self.lock.symlink_to(str(os.getpid()))
        self.assertTrue(clear_forsaken(str(self.path)))
        self.assertEqual(os.listdir(), [])

    def test_in_use(self) -> None:
        """Who listens keeps it, be it with a full queue."""
        listening = self.listen()
        self.lock.symlink_to("999999999")
        waiting = []
        for _ in range(8):
            self.assertFalse(clear_forsaken(str(self.path)))
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.setblocking(False)
            waiting.append(one.connect_ex(str(self.path)))
        self.assertNotEqual(waiting[-1], 0)
        self.assertEqual(sorted(os.listdir()), ["s", "s.lock"])
        listening.close()

    def test_others(self) -> None:
        """A file that is no socket stays, as does what nobody locked."""
        self.path.write_text("precious")
        self.lock.symlink_to("999999999")
        self.assertFalse(clear_forsaken(str(self.path)))
        self.lock.unlink()
        self.assertFalse(clear_forsaken(str(self.path)))
        self.assertEqual(self.path.read_text(), "precious")
