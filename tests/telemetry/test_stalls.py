"""Tests of the stall probe."""

from __future__ import annotations

import sys
import threading
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.stalls import StallProbe, Watchdog, calls


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

    def test_counts(self) -> None:
        """How late ticks were is counted; the last minute's longest is forgotten after it."""
        clock, meters = Clock(), Meters()
        probe = StallProbe(clock, meters)
        probe.startService()
        self.assertEqual(meters.recent_turn_s(), 0.0)
        for late_s in (0.0, 0.06, 0.3, 2.0):
            clock.advance(0.05 + late_s)
        self.assertEqual([meters.turns_over(s) for s in (0.05, 0.25, 1.0)], [3, 2, 1])
        self.assertAlmostEqual(meters.lags_s, 2.36)
        self.assertAlmostEqual(meters.lag_s, 2.0)
        self.assertAlmostEqual(meters.recent_turn_s(), 2.0)
        self.assertAlmostEqual(meters.copy().recent_turn_s(), 2.0)
        clock.pump([0.05] * 1250)
        self.assertLess(meters.recent_turn_s(), 0.001)
        self.assertAlmostEqual(meters.longest_turn_s, 2.0)
        self.assertLess(len(probe._recent), 62)
        probe.stopService()


class WatchdogTests(SynchronousTestCase):
    """Who looks at the reactor while it stands still."""

    def setUp(self) -> None:
        """Watch a probe that never ticks, on a clock that a test moves."""
        self.now_s = 0.0
        self.clock = Clock()
        self.probe = StallProbe(self.clock, Meters())
        self.probe.startService()
        self.addCleanup(self.probe.stopService)
        self.watchdog = Watchdog(self.probe, seconds=lambda: self.now_s)
        self.watchdog._whose = threading.get_ident()
        self.told: list[LogEvent] = []

        def hear(event: LogEvent) -> None:
            if event.get("ev") == "reactor_stuck":
                self.told.append(event)

        observer: Any = hear
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def pass_time(self, seconds: float) -> None:
        """Have the watchdog look four times a second."""
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            self.watchdog.look()

    def test_stuck(self) -> None:
        """After a second the innermost calls are written down, once for each stall."""
        self.pass_time(1.0)
        self.assertEqual(self.told, [])
        self.pass_time(5.0)
        (event,) = self.told
        self.assertIn("look stalls.py:", event["stack"])
        self.assertIn("pass_time test_stalls.py:", event["stack"])
        self.assertNotIn("self", event["stack"])
        self.clock.advance(0.05)
        self.pass_time(2.0)
        self.assertEqual(len(self.told), 2)

    def test_turning(self) -> None:
        """Of a reactor that turns nothing is said."""
        for _ in range(20):
            self.clock.advance(0.05)
            self.pass_time(0.75)
        self.assertEqual(self.told, [])

    def test_all_stood_still(self) -> None:
        """When the whole process stood still, the reactor has its time anew."""
        self.pass_time(0.75)
        self.now_s += 60
        self.watchdog.look()
        self.pass_time(0.75)
        self.assertEqual(self.told, [])

    def test_thread(self) -> None:
        """The thread runs as long as the service."""

        def watching() -> list[threading.Thread]:
            return [one for one in threading.enumerate() if one.name == "watchdog"]

        before = len(watching())
        self.watchdog.startService()
        mine = watching()
        self.assertEqual(len(mine), before + 1)
        self.assertTrue(mine[-1].daemon)
        self.watchdog.stopService()
        mine[-1].join(5)
        self.assertEqual(len(watching()), before)

    def test_calls(self) -> None:
        """Names and lines, in two halves that fit a field; none of a thread that is gone."""
        inner, outer = calls(sys._getframe())
        self.assertTrue(inner.startswith("test_calls test_stalls.py:"))
        self.assertEqual((len(inner.split(" < ")), len(outer.split(" < "))), (6, 6))
        self.assertLess(max(len(inner), len(outer)), 256)
        self.assertEqual(calls(None), ("", ""))
