"""Tests for `mcpgate.web.listening.open_files`."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.meters import Meters
from mcpgate.web.listening.open_files import (
    MOST,
    OpenFilesWatch,
    count_open_files,
    raise_open_files,
)


class RaiseTests(SynchronousTestCase):
    """The limit at start."""

    def raised(self, soft: int, hard: int) -> tuple[int, list[tuple[int, int]]]:
        """Raise from these limits; give the answer and what was set."""
        done: list[tuple[int, int]] = []
        self.patch(resource, "getrlimit", lambda which: (soft, hard))
        self.patch(resource, "setrlimit", lambda which, limits: done.append(limits))
        return raise_open_files(), done

    def test_raised(self) -> None:
        """The soft limit becomes the hard one, within reason, and is never lowered."""
        unlimited = resource.RLIM_INFINITY
        self.assertEqual(self.raised(1024, 4096), (4096, [(4096, 4096)]))
        self.assertEqual(self.raised(4096, 4096), (4096, []))
        self.assertEqual(self.raised(1024, unlimited), (MOST, [(MOST, unlimited)]))
        self.assertEqual(self.raised(unlimited, unlimited), (MOST, []))
        self.assertEqual(self.raised(2 * MOST, 4 * MOST), (2 * MOST, []))


class WatchTests(SynchronousTestCase):
    """Files running out (R29)."""

    def test_told_once(self) -> None:
        """Above four fifths is told once, and once when it is over."""
        used = 0
        meters = Meters()
        watch = OpenFilesWatch(100, meters, lambda: used)
        for used, low, told in (
            (80, False, 0),
            (81, True, 1),
            (95, True, 1),
            (75, True, 1),
            (69, False, 1),
            (99, True, 2),
        ):
            watch.look()
            self.assertEqual((watch.low, meters.events["fd_low"]), (low, told), used)

    def test_count(self) -> None:
        """Descriptors are counted where the system tells."""
        self.assertGreater(count_open_files(), 2)
        self.assertEqual(count_open_files("/nowhere"), 0)
