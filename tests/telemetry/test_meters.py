"""Tests of what is counted."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.meters import REQUEST_BUCKETS_S, Meters


class MetersTests(SynchronousTestCase):
    """Counting answered requests."""

    def test_answered_counts_status_time_and_bucket(self) -> None:
        """One answer adds to its status, its server's seconds and one latency bucket."""
        meters = Meters()
        meters.answered("files", 200, 0.001)
        meters.answered("files", 200, 0.0011)
        meters.answered("files", 503, 1e9)
        self.assertEqual(meters.requests["files", 200], 2)
        self.assertEqual(meters.requests["files", 503], 1)
        self.assertEqual(meters.request_buckets["files", 0], 1)
        self.assertEqual(meters.request_buckets["files", 1], 1)
        self.assertEqual(meters.request_buckets["files", len(REQUEST_BUCKETS_S)], 1)
        self.assertGreater(meters.request_s["files"], 1e8)
