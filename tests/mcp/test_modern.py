"""Tests of mcpgate.mcp.modern."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.modern import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    META_VERSION,
    MODERN,
    Context,
    claims_modern,
    stamped,
    unstamped,
)

CONTEXT = Context(
    version=MODERN,
    capabilities={"elicitation": {}},
    client={"name": "c", "version": "1"},
    log_level="info",
)


class ContextTests(SynchronousTestCase):
    """What a request says of its client."""

    def test_round_trip(self) -> None:
        """What is stamped on params is read back the same; the rest of them stays."""
        params = stamped({"name": "echo", "_meta": {"progressToken": 7}}, CONTEXT)
        self.assertEqual(Context.of(Request(1, "tools/call", params)), CONTEXT)
        self.assertEqual(unstamped(params), {"name": "echo", "_meta": {"progressToken": 7}})

    def test_nothing_of_it_is_left(self) -> None:
        """Params that had no more than a context go to a legacy server without _meta."""
        self.assertEqual(unstamped(stamped(None, CONTEXT)), {})
        self.assertIsNone(unstamped(None))
        self.assertEqual(unstamped({"a": 1, "_meta": "odd"}), {"a": 1, "_meta": "odd"})

    def test_little_is_said(self) -> None:
        """Only version and capabilities have to be there."""
        little = Context(version=MODERN, capabilities={})
        self.assertEqual(little.meta(), {META_VERSION: MODERN, META_CAPABILITIES: {}})
        self.assertEqual(Context.of(Request(1, "x", {"_meta": little.meta()})), little)

    def test_refused(self) -> None:
        """A context that is not whole, or not well-formed, is refused as invalid parameters."""
        good: dict[str, object] = {META_VERSION: MODERN, META_CAPABILITIES: {}}
        bad: list[dict[str, object]] = [
            {},
            {META_VERSION: MODERN},
            {META_CAPABILITIES: {}},
            {**good, META_VERSION: 2026},
            {**good, META_CAPABILITIES: []},
            {**good, META_CLIENT: "me"},
            {**good, META_LOG_LEVEL: 3},
        ]
        for meta in bad:
            with self.assertRaises(InvalidParams):
                Context.of(Request(1, "tools/list", {"_meta": meta}))

    def test_claim(self) -> None:
        """A request is modern by what its body says."""
        self.assertTrue(claims_modern(Request(1, "x", stamped(None, CONTEXT))))
        self.assertFalse(claims_modern(Request(1, "x")))
        self.assertFalse(claims_modern(Request(1, "x", {"_meta": []})))
