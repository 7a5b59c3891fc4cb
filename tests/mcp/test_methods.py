"""Method names."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.methods import is_repeatable


class RepeatableTests(SynchronousTestCase):
    """What may be sent twice."""

    def test_lists_and_reads(self) -> None:
        """Lists and reads may be repeated after a server died."""
        for method in ("tools/list", "resources/read", "prompts/get"):
            self.assertTrue(is_repeatable(method))

    def test_calls_and_the_unknown(self) -> None:
        """Tool calls and unknown methods are never sent twice."""
        for method in ("tools/call", "tasks/cancel", "vendor/x", ""):
            self.assertFalse(is_repeatable(method))
