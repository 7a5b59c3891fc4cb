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
    run_client_suite,
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


class ClientSuiteTests(TestCase):
    """The suite as the server behind the gate: the gate is as good a client as the SDK's own."""

    direct: ClassVar[dict[tuple[str, str], dict[str, Checks]]] = {}

    def both(self, scenario: str, revision: str) -> None:
        """Compare clients of both eras, one relayed and one bridged, with one that is alone."""
        key = (scenario, revision)
        if key not in self.direct:
            speaks = "modern" if revision == MODERN else "legacy"
            self.direct[key] = run_client_suite(scenario, revision, "direct", speaks)
        wanted = self.direct[key]
        self.assertFalse([name for name, checks in wanted.items() if checks.failed])
        line = f"{scenario} at {revision}: passed/failed {totals(wanted)} directly"
        missing = {}
        for era in ("legacy", "modern"):
            gate = run_client_suite(scenario, revision, "gate", era)
            line += f", {totals(gate)} from a {era} client through the gate"
            missing[f"{era} client"] = lost(wanted, gate).get(scenario, [])
        print(f"\n{line}", file=sys.stderr)  # noqa: T201
        expected.check(self, EXPECTED, f"the suite's server of {scenario} at {revision}", missing)

    def test_call_legacy(self) -> None:
        """A tool of a legacy server is called."""
        self.both("tools_call", LEGACY)

    def test_retry(self) -> None:
        """A legacy server that ends its stream is asked again, when it said and where it was."""
        self.both("sse-retry", LEGACY)

    def test_call_modern(self) -> None:
        """A tool of a modern server is called."""
        self.both("tools_call", MODERN)

    def test_metadata(self) -> None:
        """Each request to a modern server tells revision, client and capabilities."""
        self.both("request-metadata", MODERN)

    def test_standard_headers(self) -> None:
        """Each request to a modern server has its method and name in its head."""
        self.both("http-standard-headers", MODERN)

    def test_custom_headers(self) -> None:
        """Arguments that a modern server wants in the head are there."""
        self.both("http-custom-headers", MODERN)

    def test_invalid_headers(self) -> None:
        """Tools that ask for impossible headers are not offered."""
        self.both("http-invalid-tool-headers", MODERN)
