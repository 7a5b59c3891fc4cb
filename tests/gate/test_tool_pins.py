"""Tests of mcpgate.gate.tool_pins: what is trusted, told, and withheld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import ToolWithheld
from mcpgate.gate.tool_pins import GROWING_S, SHOWN, PinBook, file_name
from mcpgate.mcp.tool_pins import MOST_FACES, MOST_TOOLS
from mcpgate.model import Pinning, Principal, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from tests.web.endpoint_kit import FakeKept

WARN = ServerSpec(name="notes", transport=Transport.STDIO, command=("notes",))
BLOCK = replace(WARN, tools_pinned=Pinning.BLOCK)
OFF = replace(WARN, tools_pinned=Pinning.OFF)
KEYED = replace(BLOCK, env=(("TOKEN", "{key}"),))
ANN = Principal("keys", "ann", "a" * 32)
BOB = Principal("keys", "bob", "b" * 32)


def tools(**about: str) -> list[Any]:
    """Make tools of names and descriptions."""
    return [{"name": name, "description": text} for name, text in about.items()]


def names(shown: Sequence[object]) -> list[str]:
    """Name tools."""
    return [cast("dict[str, str]", tool)["name"] for tool in shown]


class PinCase(SynchronousTestCase):
    """A book, and what it says."""

    def setUp(self) -> None:
        """Make it, and listen to the log."""
        self.clock = Clock()
        self.meters = Meters()
        self.kept: dict[str, bytes] = {}
        self.build = ""
        self.book = self.make()
        self.events: list[LogEvent] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def make(self) -> PinBook:
        """Make a book that knows what was kept."""
        book = PinBook(
            FakeKept(self.kept),
            wall=self.clock.seconds,
            build_of=lambda spec: self.build,
            meters=self.meters,
        )
        book.load(list(self.kept.items()))
        return book

    def told(self) -> list[tuple[str, str, str]]:
        """Give what was warned of, and forget it."""
        found = [event for event in self.events if event.get("ev") == "tools_changed"]
        self.events.clear()
        return [(one["added"], one["removed"], one["described"]) for one in found]

    def see(
        self, spec: ServerSpec, principal: Principal = ANN, *, cursor: Any = None, **about: str
    ) -> list[str]:
        """List; give the names of what is shown."""
        return names(self.book.told(spec, principal, tools(**about), cursor=cursor))

    def refused(self, spec: ServerSpec, name: object, principal: Principal = ANN) -> bool:
        """Tell whether a call is."""
        try:
            self.book.check_call(spec, principal, name)
        except ToolWithheld as error:
            self.assertIn("mcpgate tools notes --accept", error.detail)
            return True
        return False


class PinBookTests(PinCase):
    """One server, seen again and again."""

    def test_warn(self) -> None:
        """What came, went and is described anew is told once; everything is shown."""
        for about in ({"a": "x", "b": "y"}, {"b": "y", "a": "x"}):
            self.assertEqual(sorted(self.see(WARN, ANN, **about)), ["a", "b"])
        self.assertEqual(self.told(), [])
        for _ in range(2):
            self.assertEqual(self.see(WARN, b="evil", c="z"), ["b", "c"])
        self.assertEqual(self.told(), [("c", "a", "b")])
        self.assertEqual(self.meters.events["tools_changed"], 1)
        view = self.book.view(WARN)
        self.assertEqual(
            (view.added, view.changed, view.removed, view.differing, view.tools),
            (("c",), ("b",), ("a",), 3, 2),
        )

    def test_block(self) -> None:
        """Added and changed tools are left out, and not called; others go on."""
        self.assertFalse(self.refused(BLOCK, "a"))
        self.see(BLOCK, a="x", b="y")
        self.assertEqual(self.see(BLOCK, a="x", b="evil", c="z"), ["a"])
        told = {name: self.refused(BLOCK, name) for name in ("a", "b", "c", "never seen")}
        self.assertEqual(told, {"a": False, "b": True, "c": True, "never seen": True})
        self.assertFalse(self.refused(BLOCK, None))
        self.assertEqual(self.meters.events["tool_refused"], 3)
        # As it was again.
        self.assertEqual(self.see(BLOCK, a="x", b="y"), ["a", "b"])
        self.assertFalse(self.refused(BLOCK, "b"))
        self.assertEqual(self.book.view(BLOCK).differing, 0)

    def test_off(self) -> None:
        """Nobody looks."""
        self.see(OFF, a="x")
        self.see(OFF, a="evil")
        self.assertEqual((self.told(), self.kept), ([], {}))
        self.assertEqual(self.book.view(OFF).mode, "off")

    def test_earlier_life(self) -> None:
        """What was trusted, and what differs, outlives the gate."""
        self.see(BLOCK, a="x", b="y")
        self.see(BLOCK, a="evil", b="y")
        self.book = self.make()
        self.assertTrue(self.refused(BLOCK, "a"))
        self.assertEqual(self.see(BLOCK, a="evil", b="y"), ["b"])
        self.assertEqual(self.book.view(BLOCK).changed, ("a",))

    def test_broken_file(self) -> None:
        """A file that can not be read does not make the next list a trusted one."""
        self.kept[file_name("notes")] = b"{"
        self.book = self.make()
        self.assertEqual(self.see(BLOCK, a="x"), [])
        self.assertTrue(self.refused(BLOCK, "a"))
        self.book.accept(BLOCK, tools(a="x"))
        self.assertEqual(self.see(BLOCK, a="x"), ["a"])

    def test_nothing_listed(self) -> None:
        """An empty list is not trusted to stay empty; tools without names are nobody's."""
        self.see(BLOCK)
        self.assertEqual(self.see(BLOCK, a="x"), ["a"])
        shown = self.book.told(BLOCK, ANN, [{"description": "x"}, *tools(a="x")])
        self.assertEqual(names(shown), ["a"])

    def test_new_image(self) -> None:
        """Another image is no reason to trust other tools, but is told."""
        self.build = "sha256:1"
        self.see(WARN, a="x")
        self.build = "sha256:2"
        self.see(WARN, a="evil")
        self.assertTrue(self.events[-1]["image_changed"])

    def test_many(self) -> None:
        """A few names are told of many."""
        self.see(WARN, a="x")
        self.see(WARN, ANN, **{f"t{number:02}": "x" for number in range(25)}, a="x")
        ((added, _, _),) = self.told()
        self.assertTrue(added.endswith("t19 and 5 more"))
        self.assertEqual(len(self.book.view(WARN).added), SHOWN)
        self.assertEqual(self.book.view(WARN).differing, 25)

    def test_another_every_time(self) -> None:
        """A tool that says the hour is told of some times, and costs no more and more."""
        self.see(WARN, a="x")
        for hour in range(100):
            self.see(WARN, a=str(hour), b="y")
        self.assertEqual(self.meters.events["tools_changed"], MOST_FACES)
        size = len(self.kept[file_name("notes")])
        self.book.told(WARN, ANN, [{"name": f"n{n}"} for n in range(3 * MOST_TOOLS)])
        self.assertLess(len(self.kept[file_name("notes")]), size + 1000 * MOST_TOOLS)


class PagesTests(PinCase):
    """A list of several pages."""

    def test_first_list(self) -> None:
        """It is trusted page after page, to its end; what comes later is not."""
        self.book.told(BLOCK, ANN, tools(a="x"), more="2")
        self.assertFalse(self.refused(BLOCK, "b"))
        self.book.told(BLOCK, ANN, tools(b="y"), cursor="2")
        self.assertEqual(self.see(BLOCK, c="z"), [])
        self.assertEqual(self.book.view(BLOCK).tools, 2)

    def test_never_read_to_its_end(self) -> None:
        """It does not stay open for ever."""
        self.book.told(BLOCK, ANN, tools(a="x"), more="2")
        self.assertEqual(names(self.book.told(BLOCK, ANN, tools(b="y"), more="3")), ["b"])
        self.clock.advance(GROWING_S + 1)
        self.assertTrue(self.refused(BLOCK, "d"))
        self.assertEqual(names(self.book.told(BLOCK, ANN, tools(c="z"), more="4")), [])
        self.assertTrue(self.refused(BLOCK, "d"))

    def test_missing(self) -> None:
        """What is on another page is not missing; what is on none is."""
        self.book.told(WARN, ANN, tools(a="x", b="y"), more="2")
        self.book.told(WARN, ANN, tools(c="z"), cursor="2")
        self.book.told(WARN, ANN, tools(c="z"), cursor="other")
        self.assertEqual(self.told(), [])
        self.book.told(WARN, ANN, tools(a="x"), more="2")
        self.book.told(WARN, ANN, tools(c="z"), cursor="2")
        self.assertEqual(self.told(), [("none", "b", "none")])


class CallersTests(PinCase):
    """A server that is told who calls."""

    def test_which(self) -> None:
        """The caller's key or name anywhere makes it one."""
        for changed in (
            {"command": ("x", "{user}")},
            {"files": (("f", "{key}"),)},
            {"headers": (("X-Key", "{key}"),)},
            {"forward_headers": ("x-tenant",)},
        ):
            self.assertTrue(replace(WARN, **cast("Any", changed)).told_caller, changed)
        self.assertFalse(WARN.told_caller)

    def test_each_for_himself(self) -> None:
        """What one is not shown is not missing, and what differs for one is refused to him."""
        self.see(KEYED, ANN, a="for ann", b="y")
        self.assertEqual(self.see(KEYED, BOB, a="for bob"), [])
        self.assertEqual(self.told(), [("none", "none", "a")])
        self.assertTrue(self.refused(KEYED, "a", BOB))
        self.assertFalse(self.refused(KEYED, "a", ANN))
        self.see(KEYED, ANN, a="for ann")
        self.assertEqual(self.told(), [("none", "b", "none")])
        # Who lists nothing after a restart may not call what differed for anybody.
        self.book = self.make()
        self.assertTrue(self.refused(KEYED, "a", ANN))
        self.see(KEYED, ANN, a="for ann")
        self.assertFalse(self.refused(KEYED, "a", ANN))

    def test_accept(self) -> None:
        """Accepting adds: what others are shown stays trusted, or untrusted."""
        self.see(KEYED, ANN, a="for ann", b="y")
        self.see(KEYED, BOB, a="for bob")
        changes = self.book.accept(KEYED, tools(a="for bob"))
        self.assertEqual([(one.kind, one.name) for one in changes], [("changed", "a")])
        for who, about in ((ANN, "for ann"), (BOB, "for bob")):
            self.assertEqual(self.see(KEYED, who, a=about), ["a"])
            self.assertFalse(self.refused(KEYED, "a", who))
        self.assertEqual(self.see(KEYED, ANN, a="evil"), [])
        self.book.accept(KEYED, tools(b="y"))
        self.assertTrue(self.refused(KEYED, "a", ANN))


class AcceptTests(PinCase):
    """An operator's word."""

    def test_accept(self) -> None:
        """The present list is the trusted one from then on, over a restart too."""
        self.see(BLOCK, a="x", b="y")
        self.see(BLOCK, a="new", c="z")
        listed = tools(a="new", c="z")
        wanted = [("added", "c"), ("changed", "a"), ("removed", "b")]
        for act in (self.book.compare, self.book.accept):
            self.assertEqual([(one.kind, one.name) for one in act(BLOCK, listed)], wanted)
        self.assertEqual(self.book.compare(BLOCK, listed), [])
        self.assertEqual(self.see(BLOCK, a="new", c="z"), ["a", "c"])
        self.assertFalse(self.refused(BLOCK, "a"))
        self.assertTrue(self.refused(BLOCK, "b"))
        self.book = self.make()
        self.assertEqual(self.see(BLOCK, a="new", c="z"), ["a", "c"])
        self.assertEqual(self.see(BLOCK, a="x", c="z"), ["c"])

    def test_first(self) -> None:
        """Tools may be accepted before anybody lists them."""
        self.assertEqual(len(self.book.accept(BLOCK, tools(a="x"))), 1)
        self.assertEqual(self.see(BLOCK, a="x", b="y"), ["a"])
