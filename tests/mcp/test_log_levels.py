"""Tests of mcpgate.mcp.log_levels."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.log_levels import LogLevels, is_severe


class LogLevelTests(SynchronousTestCase):
    """One level for many requests."""

    def test_severity(self) -> None:
        """A request is shown lines of its level and above, and none without one."""
        self.assertTrue(is_severe("info", "info"))
        self.assertTrue(is_severe("debug", "emergency"))
        self.assertFalse(is_severe("error", "warning"))
        self.assertFalse(is_severe("", "emergency"))
        self.assertFalse(is_severe("info", "loud"))
        self.assertFalse(is_severe("info", 3))

    def test_the_most_talkative_counts(self) -> None:
        """While a request wants more than others the server is set to that."""
        levels = LogLevels()
        self.assertEqual(levels.begin("a", "warning"), "warning")
        self.assertEqual(levels.begin("b", "error"), "")
        self.assertEqual(levels.begin("c", "debug"), "debug")
        levels.end("c")
        levels.end("c")
        self.assertEqual(levels.current, "debug")
        self.assertEqual(levels.begin("d", "error"), "warning")

    def test_refused(self) -> None:
        """What the server did not take is set again by the next request."""
        levels = LogLevels()
        levels.begin("a", "info")
        levels.refused("debug")
        self.assertEqual(levels.current, "info")
        levels.refused("info")
        self.assertEqual(levels.begin("b", "info"), "info")
