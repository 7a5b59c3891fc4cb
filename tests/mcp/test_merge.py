"""Tests of mcpgate.mcp.merge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import InvalidParams
from mcpgate.mcp.merge import (
    Book,
    View,
    merged_capabilities,
    merged_hints,
    merged_instructions,
    page,
    shown_items,
    with_shown_uris,
)

VIEW = View(servers=("notes", "git"), alias="gate")


def tools(*names: str) -> list[dict[str, object]]:
    """Make tools."""
    return [{"name": name, "inputSchema": {}} for name in names]


class NameTests(SynchronousTestCase):
    """What clients call the tools of several servers, and which is meant."""

    def test_there_and_back(self) -> None:
        """A name says which server's tool it is, with ``__`` inside of the tool's own name too."""
        for server, name in (
            ("notes", "search"),
            ("git", "git__log"),
            ("notes", "__x"),
            ("git", ""),
        ):
            shown = VIEW.shown_name(server, name)
            self.assertEqual(shown, f"{server}__{name}")
            self.assertEqual(VIEW.meant_name(shown), (server, name))

    def test_nobodys(self) -> None:
        """Names of unknown servers, or without one, are nobody's."""
        for shown in ("search", "other__search", "__search", ""):
            self.assertIsNone(VIEW.meant_name(shown))

    @given(st.text(max_size=120), st.text(alphabet="abc-", min_size=1, max_size=40))
    def test_short_enough(self, name: str, alias: str) -> None:
        """With what hosts put before it no name is over 64 characters, if that can be."""
        view = View(servers=("notes",), alias=alias)
        shown = view.shown_name("notes", name)
        self.assertLessEqual(len(shown), max(24, 64 - len(f"mcp__{alias}__")))
        self.assertEqual(shown, view.shown_name("notes", name))

    def test_cut(self) -> None:
        """Long names that begin alike are told apart, and known from the list they stood in."""
        one, two = "a" * 80 + "1", "a" * 80 + "2"
        book = Book(VIEW)
        book.learn("tools/list", "git", tools(one, two, "log"))
        shown = VIEW.shown_name("git", one)
        self.assertNotEqual(shown, VIEW.shown_name("git", two))
        self.assertIsNone(VIEW.meant_name(shown))
        self.assertEqual(book.meant("tools/list", shown), ("git", one))
        self.assertIsNone(book.meant("prompts/list", shown))
        self.assertEqual(book.meant("tools/list", "notes__unseen"), ("notes", "unseen"))
        book.learn("tools/list", "git", [{"name": "log"}, {"odd": 1}])
        self.assertIsNone(book.meant("tools/list", shown))

    def test_chosen(self) -> None:
        """Tools can be hidden, shown alone, and renamed."""
        view = View(
            servers=("notes", "git"),
            allow=("git__*", "notes__search"),
            deny=("git__push",),
            rename={"git__log": "history"},
        )
        found = shown_items(
            view, "tools/list", {"git": tools("log", "push"), "notes": tools("search", "delete")}
        )
        self.assertEqual([one["name"] for one in found], ["notes__search", "history"])
        self.assertIsNone(view.meant_name("git__push"))
        self.assertIsNone(view.meant_name("git__log"))
        book = Book(view)
        book.learn("tools/list", "git", tools("log", "push"))
        self.assertEqual(book.meant("tools/list", "history"), ("git", "log"))


class ListTests(SynchronousTestCase):
    """Lists of several servers as one."""

    def test_order(self) -> None:
        """Items come in the order of the view; servers that did not answer are left out."""
        found = shown_items(VIEW, "tools/list", {"git": tools("log"), "notes": tools("b", "a")})
        self.assertEqual([one["name"] for one in found], ["notes__b", "notes__a", "git__log"])
        found = shown_items(VIEW, "prompts/list", {"git": [{"name": "p"}, {"name": 7}]})
        self.assertEqual(found, [{"name": "git__p"}])

    def test_twice(self) -> None:
        """Two items under one name are one: the first."""
        view = View(servers=("notes", "git"), rename={"git__log": "notes__log"})
        found = shown_items(view, "tools/list", {"git": tools("log"), "notes": tools("log")})
        self.assertEqual(len(found), 1)

    def test_resources(self) -> None:
        """Resources and templates are shown by addresses that tell their server."""
        found = shown_items(VIEW, "resources/list", {"git": [{"uri": "file:///a+b", "name": "a"}]})
        self.assertEqual(found, [{"uri": "git+file:///a+b", "name": "a"}])
        self.assertEqual(VIEW.meant_uri("git+file:///a+b"), ("git", "file:///a+b"))
        found = shown_items(
            VIEW, "resources/templates/list", {"notes": [{"uriTemplate": "note://{id}"}]}
        )
        self.assertEqual(found, [{"uriTemplate": "notes+note://{id}"}])
        self.assertIsNone(VIEW.meant_uri("file:///a+b"))
        self.assertIsNone(VIEW.meant_uri("other+file:///a"))

    def test_pages(self) -> None:
        """Pages give every item once; a cursor of another list is refused."""
        items: list[dict[str, object]] = [{"name": f"t{number}"} for number in range(7)]
        seen: list[object] = []
        cursor: str | None = None
        while True:
            found, cursor = page(items, cursor, 3)
            seen += [one["name"] for one in found]
            if cursor is None:
                break
        self.assertEqual(seen, [one["name"] for one in items])
        self.assertEqual(page(items, None, 0), (items, None))
        _, kept = page(items, None, 3)
        for bad, among in (
            (kept, items[:-1]),
            ("", items),
            ("x", items),
            ("é", items),
            (7, items),
            ("a" * 100, items),
        ):
            with self.assertRaises(InvalidParams):
                page(among, bad, 3)

    def test_hints(self) -> None:
        """A merged list is kept as long as its shortest part, and is as private as any."""
        public = {"ttlMs": 5000, "cacheScope": "public"}
        self.assertEqual(
            merged_hints([public, {**public, "ttlMs": 9000}], all_of_them=True), public
        )
        self.assertEqual(
            merged_hints([public, {"ttlMs": 700}], all_of_them=True),
            {"ttlMs": 700, "cacheScope": "private"},
        )
        nothing = {"ttlMs": 0, "cacheScope": "private"}
        self.assertEqual(merged_hints([public, {"ttlMs": True}], all_of_them=True), nothing)
        self.assertEqual(merged_hints([public], all_of_them=False), nothing)
        self.assertEqual(merged_hints([], all_of_them=True), nothing)


class ResultTests(SynchronousTestCase):
    """Addresses inside of results."""

    def test_addresses(self) -> None:
        """Every address the protocol has is shown as clients know it; all else stays."""
        result: dict[str, object] = {
            "content": [
                {"type": "text", "text": "file:///a"},
                {"type": "resource_link", "uri": "file:///a"},
                {"type": "resource", "resource": {"uri": "file:///b", "text": ""}},
                "odd",
            ],
            "contents": [{"uri": "file:///c", "text": ""}],
            "messages": [
                {"role": "user", "content": {"type": "resource", "resource": {"uri": "file:///d"}}}
            ],
            "_meta": {"ui": {"resourceUri": "ui://x"}, "other": 1},
            "isError": False,
        }
        self.assertEqual(
            with_shown_uris(VIEW, "git", result),
            {
                "content": [
                    {"type": "text", "text": "file:///a"},
                    {"type": "resource_link", "uri": "git+file:///a"},
                    {"type": "resource", "resource": {"uri": "git+file:///b", "text": ""}},
                    "odd",
                ],
                "contents": [{"uri": "git+file:///c", "text": ""}],
                "messages": [
                    {
                        "role": "user",
                        "content": {"type": "resource", "resource": {"uri": "git+file:///d"}},
                    }
                ],
                "_meta": {"ui": {"resourceUri": "git+ui://x"}, "other": 1},
                "isError": False,
            },
        )
        self.assertEqual(with_shown_uris(VIEW, "git", {"_meta": {"ui": {}}}), {"_meta": {"ui": {}}})


class GreetingTests(SynchronousTestCase):
    """What several servers say of themselves, together."""

    def test_capabilities(self) -> None:
        """Together they can what one of them can; their lists may change."""
        merged = merged_capabilities(
            [
                {"tools": {}, "resources": {"subscribe": False}},
                {"resources": {"subscribe": True}, "logging": {}, "odd": 1},
                {"odd": 2},
            ]
        )
        self.assertEqual(
            merged,
            {
                "tools": {"listChanged": True},
                "resources": {"subscribe": True, "listChanged": True},
                "logging": {},
                "odd": 1,
            },
        )
        self.assertEqual(merged_capabilities([{"tools": {}}], changing=False), {"tools": {}})

    def test_what_one_server_alone_says_it_can_not(self) -> None:
        """False and empty things stay what they are: many clients refuse a null there."""
        one: dict[str, object] = {"resources": {"subscribe": False}, "experimental": {"a": {}}}
        other: dict[str, object] = {"resources": {"listChanged": True}, "experimental": {"b": {}}}
        for told in ([one, other], [other, one]):
            self.assertEqual(
                merged_capabilities(told),
                {
                    "resources": {"subscribe": False, "listChanged": True},
                    "experimental": {"a": {}, "b": {}},
                },
            )

    def test_instructions(self) -> None:
        """Each server's instructions stand under its name, within a bound."""
        told: dict[str, object] = {"notes": " Be kind. ", "git": "", "odd": 7, "b": "Be brief."}
        self.assertEqual(merged_instructions(told), "## notes\nBe kind.\n\n## b\nBe brief.")
        self.assertEqual(merged_instructions({"a": "x" * 99}, 10), "## a\nxxxx…")
