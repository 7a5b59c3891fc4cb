"""The official conformance suite: a gate between it and a server costs no check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar
from unittest import TestCase

from tests.functional import expected, real
from tests.functional.conformance import (
    Checks,
    lost,
    required,
    run_direct,
    run_gate,
    totals,
)

EXPECTED = Path(__file__).parent / "conformance-expected.json"

LEGACY = "2025-11-25"
MODERN = "2026-07-28"


class ServerSuiteTests(TestCase):
    """The suite as a client of the gate, and of the same server without one."""

    direct: ClassVar[dict[tuple[str, str], dict[str, Checks]]] = {}

    def setUp(self) -> None:
        """Find the parts."""
        real.require("node", "conformance", "mcp1", "mcp2", "sdk2")

    def alone(self, fixture: str, revision: str) -> dict[str, Checks]:
        """Give what a server comes to without a gate."""
        key = (fixture, revision)
        if key not in self.direct:
            self.direct[key] = run_direct(fixture, revision)
        return self.direct[key]

    def compare(self, fixture: str, revision: str, measure: str = "") -> None:
        """
        Compare a server behind the gate with itself, or with a ``measure`` of the other era.

        A server that speaks another era than the suite need pass only what the revision requires.
        """
        wanted = self.alone(measure or fixture, revision)
        if measure:
            names = required(revision)
            wanted = {name: wanted[name] for name in names}
            self.assertFalse([name for name in names if wanted[name].failed])
        gate = run_gate(self, fixture, revision)
        missing = lost(wanted, gate)
        count = sum(len(names) for names in missing.values())
        seen = {name: gate.get(name, Checks()) for name in wanted}
        line = f"{fixture} at {revision}: passed/failed {totals(wanted)} directly"
        print(f"\n{line}, {totals(seen)} through the gate, {count} lost", file=sys.stderr)  # noqa: T201
        expected.check(self, EXPECTED, f"{fixture} at {revision}", missing)

    def test_python_2025_06(self) -> None:
        """A server on the Python SDK 2 loses nothing at 2025-06-18."""
        self.compare("py2", "2025-06-18")

    def test_python_2025_11(self) -> None:
        """A server on the Python SDK 2 loses nothing at 2025-11-25."""
        self.compare("py2", LEGACY)

    def test_python_2026_07(self) -> None:
        """A server on the Python SDK 2 loses nothing at 2026-07-28."""
        self.compare("py2", MODERN)

    def test_typescript_2025_06(self) -> None:
        """A server on the TypeScript SDK 2 loses nothing at 2025-06-18."""
        self.compare("ts2", "2025-06-18")

    def test_typescript_2025_11(self) -> None:
        """A server on the TypeScript SDK 2 loses nothing at 2025-11-25."""
        self.compare("ts2", LEGACY)

    def test_typescript_2026_07(self) -> None:
        """A server on the TypeScript SDK 2 loses nothing at 2026-07-28."""
        self.compare("ts2", MODERN)

    def test_legacy(self) -> None:
        """A server of the legacy era loses nothing at 2025-11-25."""
        self.compare("py1", LEGACY)

    def test_legacy_bridged(self) -> None:
        """A legacy server passes at 2026-07-28 what the revision requires."""
        self.compare("py1", MODERN, measure="py2")

    def test_legacy_stdio_bridged(self) -> None:
        """A legacy server over stdio passes at 2026-07-28 what the revision requires."""
        self.compare("py1-stdio", MODERN, measure="py2")

    def test_modern_bridged(self) -> None:
        """A modern server passes at 2025-11-25 what the revision requires."""
        self.compare("py2-modern", LEGACY, measure="py2")

    def test_modern_stdio_bridged(self) -> None:
        """A modern server over stdio passes at 2025-11-25 what the revision requires."""
        self.compare("py2-modern-stdio", LEGACY, measure="py2")

    def test_modern_stdio(self) -> None:
        """A modern server over stdio passes at 2026-07-28 what the revision requires."""
        self.compare("py2-modern-stdio", MODERN, measure="py2")

    def test_legacy_stdio(self) -> None:
        """A legacy server over stdio passes at 2025-11-25 what the revision requires."""
        self.compare("py1-stdio", LEGACY, measure="py1")
