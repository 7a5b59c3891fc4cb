"""Tests of mcpgate.mcp.snapshot."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.snapshot import (
    Snapshot,
    asks_for_list,
    decoded,
    differing,
    is_whole,
    lists_of,
    mark,
)

GREETING: dict[str, object] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": False}, "logging": {}},
    "serverInfo": {"name": "notes", "version": "1"},
}
TOOLS: dict[str, object] = {"tools": [{"name": "a"}, {"name": "b", "x": 1}]}


class SnapshotTests(SynchronousTestCase):
    """What a server said of itself."""

    def test_round_trip(self) -> None:
        """What is put down is read back the same."""
        snapshot = Snapshot(greeting=GREETING, lists={"tools/list": TOOLS})
        self.assertEqual(decoded(snapshot.encoded()), snapshot)

    def test_damaged(self) -> None:
        """What is no snapshot is none; lists nobody knows are left out."""
        for data in (b"", b"[]", b"{}", b'{"greeting": 1, "lists": {}}', b"[" * 100_000):
            self.assertIsNone(decoded(data))
        read = decoded(b'{"greeting": {}, "lists": {"odd/list": {}, "tools/list": 1}}')
        self.assertEqual(read, Snapshot(greeting={}))

    def test_offered(self) -> None:
        """A client is told that lists may change; nothing else is added."""
        told = Snapshot(greeting=GREETING).offered()
        self.assertEqual(told["capabilities"], {"tools": {"listChanged": True}, "logging": {}})
        self.assertEqual(GREETING["capabilities"], {"tools": {"listChanged": False}, "logging": {}})
        self.assertEqual(Snapshot(greeting={"a": 1}).offered(), {"a": 1})

    def test_what_is_asked_for(self) -> None:
        """Lists count from their beginning, and only in one page."""
        self.assertTrue(asks_for_list(Request(1, "tools/list")))
        self.assertTrue(asks_for_list(Request(1, "tools/list", {"_meta": {}})))
        self.assertFalse(asks_for_list(Request(1, "tools/list", {"cursor": "x"})))
        self.assertFalse(asks_for_list(Request(1, "tools/call")))
        self.assertEqual(lists_of(GREETING), ["tools/list"])
        self.assertEqual(
            lists_of({"capabilities": {"resources": {}}}),
            ["resources/list", "resources/templates/list"],
        )
        self.assertEqual(lists_of({}), [])
        self.assertTrue(is_whole("tools/list", TOOLS))
        self.assertFalse(is_whole("tools/list", {**TOOLS, "nextCursor": "2"}))
        self.assertFalse(is_whole("prompts/list", TOOLS))

    def test_marks(self) -> None:
        """The same list in another order is the same; any other is another."""
        self.assertEqual(
            mark("tools/list", TOOLS),
            mark("tools/list", {"tools": [{"x": 1, "name": "b"}, {"name": "a"}]}),
        )
        others: list[dict[str, object]] = [{}, {"tools": []}, {"tools": [{"name": "a"}]}]
        for other in others:
            self.assertNotEqual(mark("tools/list", TOOLS), mark("tools/list", other))

    def test_differing(self) -> None:
        """Each kind of list that is another now is told once."""
        told = {"resources/list": "1", "resources/templates/list": "2", "tools/list": "3"}
        now = {"resources/list": "x", "tools/list": "3"}
        self.assertEqual(list(differing(told, now)), ["notifications/resources/list_changed"])
