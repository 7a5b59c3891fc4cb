"""Backoff and breaker of a crashing server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.runtime.crashes import Crashes


class CrashesTests(SynchronousTestCase):
    """How long a crashing server is left alone."""

    def test_first(self) -> None:
        """Nothing is waited for before the first crash."""
        self.assertEqual(Crashes().wait_s(0.0), 0.0)

    def test_doubling(self) -> None:
        """Each crash in a row doubles the wait, up to thirty seconds."""
        crashes = Crashes()
        waits = []
        now = 0.0
        for _ in range(8):
            crashes.note(now, 0.0, luck=0.5)
            waits.append(round(crashes.wait_s(now), 6))
            now += 50.0
        self.assertEqual(waits, [1, 2, 4, 8, 16, 30, 30, 30])

    def test_spread(self) -> None:
        """Waits differ by a fifth either way, so that not all come back at once."""
        low, high = Crashes(), Crashes()
        low.note(0.0, 0.0, luck=0.0)
        high.note(0.0, 0.0, luck=1.0)
        self.assertAlmostEqual(low.wait_s(0.0), 0.8)
        self.assertAlmostEqual(high.wait_s(0.0), 1.2)

    def test_breaker(self) -> None:
        """Five crashes within a minute open it for thirty seconds."""
        crashes = Crashes()
        for now in (0.0, 10.0, 20.0, 30.0):
            crashes.note(now, 0.0, 0.5)
            self.assertFalse(crashes.refusing(now))
        crashes.note(40.0, 0.0, 0.5)
        self.assertTrue(crashes.refusing(69.9))
        self.assertFalse(crashes.refusing(70.0))

    def test_half_open(self) -> None:
        """The start after that is a probe: when it crashes, the breaker opens at once."""
        crashes = Crashes()
        for now in (0.0, 10.0, 20.0, 30.0, 40.0):
            crashes.note(now, 0.0, 0.5)
        crashes.note(300.0, 5.0, 0.5)
        self.assertTrue(crashes.refusing(329.0))

    def test_recovered(self) -> None:
        """After a minute of running everything is as if it had never crashed."""
        crashes = Crashes()
        for now in (0.0, 10.0, 20.0, 30.0, 40.0):
            crashes.note(now, 0.0, 0.5)
        crashes.note(400.0, 60.0, 0.5)
        self.assertFalse(crashes.refusing(400.0))
        self.assertEqual(crashes.wait_s(400.0), 0.0)

    def test_first_of_a_serving_copy(self) -> None:
        """Callers of a server that worked until now do not wait; from the second on they do."""
        crashes = Crashes()
        crashes.note(100.0, 5.0, 0.5)
        self.assertEqual(crashes.wait_s(100.0), 0.0)
        crashes.note(105.0, 5.0, 0.5)
        self.assertEqual(crashes.wait_s(105.0), 2.0)

    def test_forgive(self) -> None:
        """An operator may have it start at once."""
        crashes = Crashes()
        for _ in range(5):
            crashes.note(0.0, 0.0, 0.5)
        crashes.forgive()
        self.assertEqual((crashes.wait_s(0.0), crashes.refusing(0.0)), (0.0, False))
