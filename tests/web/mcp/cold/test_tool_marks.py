"""Tests of mcpgate.web.mcp.cold.tool_marks: changed tools are told."""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.snapshot import Snapshot
from mcpgate.telemetry.meters import Meters
from mcpgate.web.mcp.cold.tool_marks import ToolMarks


def listing(**tools: str) -> Snapshot:
    """Make a snapshot of tools, by name and description."""
    found: list[Any] = [{"name": name, "description": text} for name, text in tools.items()]
    return Snapshot(greeting={}, lists={"tools/list": {"tools": found}})


class ToolMarksTests(SynchronousTestCase):
    """One server, seen again and again."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.meters = Meters()
        self.marks = ToolMarks(self.meters, total=2)
        self.events: list[LogEvent] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def told(self) -> list[LogEvent]:
        """Give what was warned of."""
        return [event for event in self.events if event.get("ev") == "tools_changed"]

    def test_change(self) -> None:
        """What came, went and is described anew is named; the same list in another order is not."""
        self.marks.seen("notes", "n", listing(a="x", b="y"))
        self.marks.seen("notes", "n", listing(b="y", a="x"))
        self.assertEqual(self.told(), [])
        self.marks.seen("notes", "n", listing(b="evil", c="z"))
        (event,) = self.told()
        self.assertEqual(
            (event["server"], event["added"], event["removed"], event["described"]),
            ("notes", "c", "a", "b"),
        )
        self.assertEqual(self.meters.events["tools_changed"], 1)

    def test_earlier_life(self) -> None:
        """What an earlier life saw counts; what is no whole list does not."""
        self.marks.known("n", listing(a="x"))
        self.marks.known("n", Snapshot(greeting={}))
        self.marks.seen("notes", "n", Snapshot(greeting={}))
        self.assertEqual(self.told(), [])
        many = {f"t{number:02}": "x" for number in range(25)}
        self.marks.seen("notes", "n", listing(**many))
        (event,) = self.told()
        self.assertTrue(event["added"].endswith("t19 and 5 more"))

    def test_bound(self) -> None:
        """The longest unseen are forgotten."""
        for name in ("1", "2", "3"):
            self.marks.seen("notes", name, listing(a="x"))
        self.marks.seen("notes", "1", listing(a="y"))
        self.assertEqual(self.told(), [])
        self.marks.seen("notes", "3", listing(a="y"))
        self.assertEqual(len(self.told()), 1)
