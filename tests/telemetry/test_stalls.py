"""Tests of the stall probe."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.stalls import StallProbe


class StallProbeTests(SynchronousTestCase):
    """`StallProbe` on a clock."""

    def test_stall(self) -> None:
        """A turn of 300 ms is measured and is an event; ordinary turns are not."""
        clock, meters = Clock(), Meters()
        probe = StallProbe(clock, meters)
        probe.startService()
        clock.pump([0.05] * 20)
        self.assertLess(meters.longest_turn_s, 0.001)
        clock.advance(0.15)
        self.assertAlmostEqual(probe.lateness_s, 0.1)
        self.assertEqual(meters.events["reactor_stall"], 0)
        clock.advance(0.35)
        self.assertAlmostEqual(meters.longest_turn_s, 0.3)
        self.assertEqual(meters.events["reactor_stall"], 1)
        clock.advance(0.05)
        self.assertAlmostEqual(meters.longest_turn_s, 0.3)
        probe.stopService()
        probe.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_clock_put_back(self) -> None:
        """A clock that goes back is no stall."""
        clock, meters = Clock(), Meters()
        probe = StallProbe(clock, meters)
        probe.startService()
        clock.calls[0].time -= 100
        clock.rightNow -= 99.9
        clock.advance(0)
        self.assertEqual((probe.lateness_s, meters.longest_turn_s), (0.0, 0.0))
        probe.stopService()
