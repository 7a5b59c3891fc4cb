"""Tests of mcpgate.mcp.evidence."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.evidence import Finding, of_discover, refuses_legacy
from mcpgate.mcp.jsonrpc import ErrorResponse, Response


def error(code: int, supported: object = None) -> ErrorResponse:
    """Make an error, perhaps one that names revisions."""
    return ErrorResponse(1, code, "no", None if supported is None else {"supported": supported})


class DiscoverTests(SynchronousTestCase):
    """What an answer to server/discover tells."""

    def test_modern(self) -> None:
        """A DiscoverResult with our revision, and errors that only the modern era has."""
        for status, answer in (
            (200, Response(1, {"supportedVersions": ["2026-07-28"]})),
            (400, error(-32022, ["2026-07-28", "2025-11-25"])),
            (400, error(-32020)),
            (400, error(-32021)),
        ):
            self.assertIs(of_discover(status, answer), Finding.MODERN, (status, answer))

    def test_not_modern(self) -> None:
        """Refusals in the words of another era, results without our revision, no JSON-RPC."""
        for status, answer in (
            (200, Response(1, {"supportedVersions": ["2025-11-25"]})),
            (200, Response(1, {})),
            (200, error(-32601)),
            (400, error(-32000)),
            (400, error(-32022, ["2025-11-25"])),
            (400, error(-32022)),
            (404, None),
            (405, None),
            (406, None),
            (415, None),
            (202, None),
        ):
            self.assertIs(of_discover(status, answer), Finding.NOT_MODERN, (status, answer))

    def test_tells_nothing(self) -> None:
        """Logins, limits and failures say nothing about the era."""
        for status in (401, 403, 408, 421, 425, 429, 500, 502, 503, 504):
            self.assertIs(of_discover(status, None), Finding.UNKNOWN, status)
        self.assertIs(of_discover(429, error(-32000)), Finding.UNKNOWN)


class InitializeTests(SynchronousTestCase):
    """What an error to initialize tells."""

    def test_modern_alone(self) -> None:
        """A server that names modern revisions only speaks no other era."""
        self.assertTrue(refuses_legacy(error(-32022, ["2026-07-28"])))
        self.assertTrue(refuses_legacy(error(-32020)))
        self.assertTrue(refuses_legacy(error(-32602, ["2026-07-28"])))

    def test_says_nothing(self) -> None:
        """Other refusals, and those that name legacy revisions, do not."""
        self.assertFalse(refuses_legacy(error(-32602, ["2026-07-28", "2025-06-18"])))
        self.assertFalse(refuses_legacy(error(-32602, ["2031-01-01"])))
        self.assertFalse(refuses_legacy(error(-32602, "2026-07-28")))
        self.assertFalse(refuses_legacy(error(-32603)))
