"""Tests of mcpgate.config.units."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.problems import BadValueError
from mcpgate.config.units import (
    DURATION_UNITS,
    SIZE_UNITS,
    format_duration,
    format_rate,
    format_size,
    parse_budget,
    parse_duration,
    parse_per_s,
    parse_rate,
    parse_size,
    parse_throughput,
)
from mcpgate.model import Rate

PARSERS = (parse_duration, parse_size, parse_rate, parse_throughput, parse_budget, parse_per_s)


class DurationTests(SynchronousTestCase):
    """Time spans."""

    def test_forms(self) -> None:
        """Every documented form of a duration is read."""
        for text, seconds in {
            "0": 0,
            "0s": 0,
            "500ms": 0.5,
            "90s": 90,
            "15min": 900,
            "1h30min": 5400,
            "1h 30min": 5400,
            "1.5h": 5400,
            "7d": 604800,
            "2w": 1209600,
        }.items():
            self.assertEqual(parse_duration(text), seconds, text)

    def test_refused(self) -> None:
        """What could be misread is refused."""
        for text in ("", "15", "15m", "1 5s", "-5s", "s", "1h1h", "1min1h", "1e3s", "٣s", "5s!"):
            self.assertRaises(BadValueError, parse_duration, text)

    def test_missing_unit_is_suggested(self) -> None:
        """A bare number is answered with the same number and units."""
        error = self.assertRaises(BadValueError, parse_duration, "75")
        self.assertEqual(error.remedy, "Write 75s or 75min")

    @given(st.integers(0, 400 * 86400 * 1000))
    @settings(max_examples=100)
    def test_round_trip(self, milliseconds: int) -> None:
        """What is shown of a duration is read as the same duration."""
        text = format_duration(milliseconds / 1000)
        self.assertEqual(round(parse_duration(text) * 1000), milliseconds)

    @given(st.integers(0, 10**6), st.sampled_from(sorted(DURATION_UNITS)))
    @settings(max_examples=50)
    def test_every_unit(self, number: int, unit: str) -> None:
        """A number and a unit make their product."""
        self.assertEqual(parse_duration(f"{number}{unit}"), number * DURATION_UNITS[unit])


class SizeTests(SynchronousTestCase):
    """Numbers of bytes."""

    def test_forms(self) -> None:
        """Every documented form of a size is read."""
        for text, size in {
            "0": 0,
            "1B": 1,
            "64 KiB": 65536,
            "256MiB": 256 * 1024**2,
            "1.5GiB": 3 * 1024**3 // 2,
            "10MB": 10_000_000,
        }.items():
            self.assertEqual(parse_size(text), size, text)

    def test_refused(self) -> None:
        """Sizes without a unit, with an unknown one, or with parts of bytes are refused."""
        for text in ("", "256", "256m", "256mib", "-1B", "1.5B", "MiB", "1MiB2KiB"):
            self.assertRaises(BadValueError, parse_size, text)

    @given(st.integers(0, 1 << 50))
    @settings(max_examples=100)
    def test_round_trip(self, size: int) -> None:
        """What is shown of a size is read as the same size."""
        if size < 10**12 or size % 1024 == 0:
            self.assertEqual(parse_size(format_size(size)), size)

    @given(st.integers(0, 10**6), st.sampled_from(sorted(SIZE_UNITS)))
    @settings(max_examples=50)
    def test_every_unit(self, number: int, unit: str) -> None:
        """A number and a unit make their product."""
        self.assertEqual(parse_size(f"{number}{unit}"), number * SIZE_UNITS[unit])

    def test_throughput(self) -> None:
        """A speed is a size per second."""
        self.assertEqual(parse_throughput("1KiB/s"), 1024)
        self.assertEqual(parse_throughput("0"), 0)
        for text in ("1KiB", "1KiB/min", "1/s"):
            self.assertRaises(BadValueError, parse_throughput, text)


class RateTests(SynchronousTestCase):
    """Numbers per time."""

    def test_forms(self) -> None:
        """Number and period are told apart."""
        self.assertEqual(parse_rate("20/s"), (20, 1))
        self.assertEqual(parse_rate("200 / min"), (200, 60))
        self.assertEqual(parse_per_s("30/min"), 0.5)

    def test_refused(self) -> None:
        """A rate without a period, with an odd one or of nothing is refused."""
        for text in ("20", "20/", "/s", "20/week", "0/s", "20/10s", "many"):
            self.assertRaises(BadValueError, parse_rate, text)

    def test_budget_holds_one_period(self) -> None:
        """20/min lets 20 through at once and then one every three seconds."""
        self.assertEqual(parse_budget("20/min"), Rate(20 / 60, 20))
        self.assertRaises(BadValueError, parse_budget, "0.5/h")

    def test_shown(self) -> None:
        """Rates are shown in the period they read best in."""
        self.assertEqual(format_rate(Rate(20, 40)), "20/s burst 40")
        self.assertEqual(format_rate(Rate(20 / 60, 20)), "20/min burst 20")
        self.assertEqual(format_rate(Rate(1e-9, 1)), "1e-09/s burst 1")
        self.assertEqual(format_rate(None), "off")

    @given(st.text(max_size=30))
    @settings(max_examples=100)
    def test_any_text(self, text: str) -> None:
        """Whatever is typed is either read or refused with a remedy that does not repeat it."""
        for parse in PARSERS:
            try:
                parse(text)
            except BadValueError as error:
                self.assertTrue(error.text)
                self.assertTrue(error.remedy)
