"""Filters and frames of subscriptions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.mcp.listening import MAX_URIS, Filter, acknowledgement, farewell, tagged
from mcpgate.mcp.modern import META_SUBSCRIPTION

TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


def asked(**told: object) -> Filter:
    """Read a filter."""
    return Filter.of(Request(1, "subscriptions/listen", {"notifications": told}))


class FilterTests(SynchronousTestCase):
    """What a client asked for."""

    def test_what_is_wanted(self) -> None:
        """Only that, and never what belongs to calls."""
        some = asked(toolsListChanged=True, promptsListChanged=False)
        self.assertTrue(some.wants(Notification(TOOLS)))
        for method in (
            "notifications/prompts/list_changed",
            "notifications/resources/list_changed",
            "notifications/progress",
            "notifications/message",
            "notifications/tasks",
            UPDATED,
        ):
            self.assertFalse(some.wants(Notification(method)))
        uris = asked(resourceSubscriptions=["file:///a"], taskIds=["t"])
        self.assertTrue(uris.wants(Notification(UPDATED, {"uri": "file:///a/b"})))
        self.assertTrue(uris.wants(Notification("notifications/tasks")))

    def test_what_can_not_be_read(self) -> None:
        """It is refused as parameters."""
        for told in (
            {"toolsListChanged": 1},
            {"resourceSubscriptions": "file:///a"},
            {"resourceSubscriptions": [1]},
            {"resourceSubscriptions": ["a"] * (MAX_URIS + 1)},
        ):
            self.assertRaises(InvalidParams, asked, **told)
        self.assertRaises(InvalidParams, Filter.of, Request(1, "subscriptions/listen"))
        self.assertEqual(Filter.acknowledged(Notification("x")).told, {})
        self.assertEqual(Filter({"resourceSubscriptions": ["a", 1]}).uris, ("a",))

    def test_after_a_gap(self) -> None:
        """Anything that was asked for may have changed."""
        told = asked(toolsListChanged=True, resourceSubscriptions=["file:///a"]).all_changed()
        self.assertEqual(
            list(told), [Notification(TOOLS), Notification(UPDATED, {"uri": "file:///a"})]
        )

    def test_frames(self) -> None:
        """Each names the subscription, in the type of its id; other keys stay."""
        frame = tagged(Notification(UPDATED, {"uri": "u", "_meta": {"a/b": 1}}), 7)
        self.assertEqual(frame.params, {"uri": "u", "_meta": {"a/b": 1, META_SUBSCRIPTION: 7}})
        self.assertEqual(
            farewell("7").result, {"resultType": "complete", "_meta": {META_SUBSCRIPTION: "7"}}
        )
        self.assertEqual(
            acknowledgement(asked(toolsListChanged=True)).params,
            {"notifications": {"toolsListChanged": True}},
        )
