"""Tests of what is told of the gate's own process."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import ProcessCollector
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.process_metrics import process_families


class ProcessFamiliesTests(SynchronousTestCase):
    """`process_families`."""

    def test_as_others_tell_it(self) -> None:
        """The same names as ``prometheus_client`` has, and nearly the same values."""
        theirs = {
            sample.name: sample.value
            for family in ProcessCollector(registry=None).collect()
            for sample in family.samples
        }
        ours = {
            sample.name: sample.value for family in process_families() for sample in family.samples
        }
        self.assertEqual(ours.keys(), theirs.keys())
        self.assertEqual(ours["process_start_time_seconds"], theirs["process_start_time_seconds"])
        self.assertEqual(ours["process_max_fds"], theirs["process_max_fds"])
        self.assertAlmostEqual(
            ours["process_cpu_seconds_total"], os.times().user + os.times().system, delta=0.5
        )

    def test_without_proc(self) -> None:
        """Where there is no ``/proc``, or it tells something else, nothing is told."""
        empty = Path(self.mktemp())
        self.assertEqual(list(process_families(empty)), [])
        (empty / "self").mkdir(parents=True)
        (empty / "stat").write_text("cpu 1 2\n")
        self.assertEqual(list(process_families(empty)), [])
        (empty / "stat").write_text("btime 7\n")
        (empty / "self" / "stat").write_text("1 (a) S 1\n")
        self.assertEqual(list(process_families(empty)), [])
