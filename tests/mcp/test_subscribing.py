"""Tests of mcpgate.mcp.subscribing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Notification
from mcpgate.mcp.listening import farewell, tagged
from mcpgate.mcp.subscribing import (
    MAX_URI_CHARS,
    MAX_URIS,
    Wanted,
    acknowledged,
    subject,
)

ID = "io.modelcontextprotocol/subscriptionId"
ALL = {
    "toolsListChanged": True,
    "promptsListChanged": True,
    "resourcesListChanged": True,
    "resourceSubscriptions": ["a", "b", "a"],
}


class WantedTests(SynchronousTestCase):
    """What a client wants to hear of."""

    def test_read(self) -> None:
        """Everything that is asked for, each URI once."""
        wanted = Wanted.of({"notifications": ALL})
        self.assertEqual(wanted, Wanted(tools=True, prompts=True, resources=True, uris=("a", "b")))
        self.assertEqual(wanted.notifications(), {**ALL, "resourceSubscriptions": ["a", "b"]})
        self.assertEqual(Wanted.of({"notifications": {}}).notifications(), {})

    def test_refused(self) -> None:
        """What is not of the specification's form."""
        bad: list[object] = [
            None,
            [],
            {"resourceSubscriptions": "a"},
            {"resourceSubscriptions": [1]},
            {"resourceSubscriptions": ["a"] * (MAX_URIS + 1)},
            {"resourceSubscriptions": ["a" * (MAX_URI_CHARS + 1)]},
        ]
        for notifications in bad:
            with self.assertRaises(InvalidParams):
                Wanted.of({"notifications": notifications})
        with self.assertRaises(InvalidParams):
            Wanted.of(None)

    def test_honoured(self) -> None:
        """Only what the server can tell of is honoured."""
        wanted = Wanted.of({"notifications": ALL})
        some = wanted.within({"tools": {"listChanged": True}, "resources": {"subscribe": False}})
        self.assertEqual(some, Wanted(tools=True, uris=("a", "b")))
        self.assertEqual(wanted.within({}), Wanted())
        self.assertEqual(some.only(("b",)).uris, ("b",))
        other = wanted.within({"prompts": {"listChanged": True}, "resources": {"listChanged": 1}})
        self.assertTrue(other.wants("notifications/prompts/list_changed"))
        self.assertTrue(other.wants("notifications/resources/list_changed"))
        self.assertFalse(other.wants("notifications/tools/list_changed"))
        self.assertTrue(some.wants("notifications/tools/list_changed"))


class FrameTests(SynchronousTestCase):
    """What stands on the stream."""

    def test_frames(self) -> None:
        """Each frame carries the id of its request, of the same type; other keys stay."""
        self.assertEqual(
            acknowledged(3, Wanted(tools=True)).params,
            {"notifications": {"toolsListChanged": True}, "_meta": {ID: 3}},
        )
        told = tagged(Notification("n", {"uri": "a", "_meta": {"k": 1}}), "3")
        self.assertEqual(told.params, {"uri": "a", "_meta": {"k": 1, ID: "3"}})
        self.assertEqual(farewell("L").result, {"resultType": "complete", "_meta": {ID: "L"}})

    def test_subject(self) -> None:
        """Updates of one resource are about the same, those of two are not."""
        updated = "notifications/resources/updated"
        self.assertEqual(subject(Notification(updated, {"uri": "a"})), (updated, "a"))
        self.assertEqual(subject(Notification(updated)), (updated, ""))
        self.assertEqual(subject(Notification("n", {"uri": "a"})), ("n", ""))
