"""Tests of mcpgate.web.mcp.together.aggregate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable, GateError, InvalidParams, MethodNotFound
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response, encode
from mcpgate.mcp.modern import META_SERVER
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.together.aggregate import GREETING_WAIT_S, LIST_WAIT_S, META_ABSENT
from tests.web.mcp.together.group_kit import ANN, STREAM, GroupWorld

UNKNOWN = ErrorResponse(7, -32601, "Method not found")


def named(*names: str) -> list[dict[str, object]]:
    """Make tools or prompts."""
    return [{"name": name} for name in names]


class ListTests(SynchronousTestCase):
    """Lists of a group."""

    def setUp(self) -> None:
        """Make a group whose servers have tools."""
        self.world = GroupWorld()
        self.world.lists("tools/list", "tools", notes=named("add"), git=named("log"))

    def test_merged(self) -> None:
        """The tools of every server, each under its server's name."""
        result = self.world.result("tools/list")
        self.assertEqual([tool["name"] for tool in result["tools"]], ["notes__add", "git__log"])
        self.assertEqual((result["ttlMs"], result["cacheScope"]), (1000, "public"))
        self.assertEqual(result["_meta"][META_SERVER]["name"], "mcpgate")

    def test_pages_of_a_server(self) -> None:
        """Every page of a server's list is read, an empty cursor among them."""

        def paged(post: ModernPost) -> dict[str, object]:
            cursor = (post.request.params or {}).get("cursor")
            if cursor is None:
                return {"tools": named("a"), "nextCursor": ""}
            return {"tools": named("b")}

        self.world.servers.results["git", "tools/list"] = paged
        result = self.world.result("tools/list")
        self.assertEqual(
            [tool["name"] for tool in result["tools"]], ["notes__add", "git__a", "git__b"]
        )
        self.assertNotIn("nextCursor", result)

    def test_own_pages(self) -> None:
        """With a page size the list comes in pages, whose cursors are the group's own."""
        world = GroupWorld(page_size=1)
        world.lists("tools/list", "tools", notes=named("add"), git=named("log"))
        first = world.result("tools/list")
        self.assertEqual(first["tools"], named("notes__add"))
        second = world.result("tools/list", cursor=first["nextCursor"])
        self.assertEqual(second["tools"], named("git__log"))
        self.assertIsInstance(world.ask("tools/list", cursor="x")[0].error, InvalidParams)

    def test_nothing_of_it(self) -> None:
        """A server without prompts is asked, has none, and is not called absent."""
        self.world.lists("prompts/list", "prompts", notes=named("p"))
        self.world.servers.results["git", "prompts/list"] = UNKNOWN
        result = self.world.result("prompts/list")
        self.assertEqual(result["prompts"], named("notes__p"))
        self.assertNotIn(META_ABSENT, result["_meta"])

    def test_uneven(self) -> None:
        """A server of a hundred tools stands beside one that lists none, with nothing cut."""
        many = named(*(f"tool{number}" for number in range(100)))
        self.world.lists("tools/list", "tools", notes=many, git=[])
        result = self.world.result("tools/list")
        self.assertEqual(
            [tool["name"] for tool in result["tools"]],
            [f"notes__tool{number}" for number in range(100)],
        )
        self.assertNotIn("nextCursor", result)
        self.assertNotIn(META_ABSENT, result["_meta"])

    def test_only_prompts(self) -> None:
        """A server with prompts alone, whose tools are not found, takes no tool from another."""
        self.world.servers.results["git", "tools/list"] = UNKNOWN
        self.world.servers.results["notes", "prompts/list"] = UNKNOWN
        self.world.lists("prompts/list", "prompts", git=named("review"))
        tools = self.world.result("tools/list")
        prompts = self.world.result("prompts/list")
        self.assertEqual([tool["name"] for tool in tools["tools"]], ["notes__add"])
        self.assertEqual([one["name"] for one in prompts["prompts"]], ["git__review"])
        for result in (tools, prompts):
            self.assertNotIn(META_ABSENT, result["_meta"])

    def test_absent(self) -> None:
        """A server that fails, or is too slow, is left out and named; the list is asked again."""
        self.world.servers.results["git", "tools/list"] = BackendUnavailable()
        result = self.world.result("tools/list")
        self.assertEqual(result["tools"], named("notes__add"))
        self.assertEqual(result["_meta"][META_ABSENT], ["git"])
        self.assertEqual((result["ttlMs"], result["cacheScope"]), (0, "private"))
        del self.world.servers.results["git", "tools/list"]
        heard, _ = self.world.ask("tools/list")
        self.assertIsNone(heard.answer)
        self.world.clock.advance(LIST_WAIT_S)
        self.assertEqual(heard.result["tools"], named("notes__add"))
        self.assertTrue(self.world.servers.posts[-1].inbound.finished)

    def test_refused(self) -> None:
        """A server that refuses with another error is left out as well."""
        self.world.servers.results["git", "tools/list"] = ErrorResponse(7, -32000, "no")
        self.assertEqual(self.world.result("tools/list")["tools"], named("notes__add"))

    def test_taken_back(self) -> None:
        """A client that goes takes the questions to all servers back, and hears nothing."""
        self.world.servers.results.clear()
        heard, take_back = self.world.ask("tools/list")
        take_back()
        self.assertTrue(all(post.inbound.finished for post in self.world.servers.posts))
        self.world.clock.advance(LIST_WAIT_S)
        self.assertEqual((heard.answer, heard.error), (None, None))

    def test_progress_token(self) -> None:
        """The client's progress token goes to no server: several would report under it."""
        self.world.ask("tools/list")
        params = self.world.servers.posts[0].request.params or {}
        meta: Any = params["_meta"]
        self.assertNotIn("progressToken", meta)

    def test_per_key(self) -> None:
        """A key sees the servers it may use, and such a list is its own."""
        ben = replace(ANN, servers=frozenset({"git"}))
        heard, _ = self.world.ask("tools/list", ben)
        self.assertEqual(heard.result["tools"], named("git__log"))
        self.assertEqual(heard.result["cacheScope"], "private")
        whole = replace(ANN, servers=frozenset({"team"}))
        heard, _ = self.world.ask("tools/list", whole)
        self.assertEqual(len(heard.result["tools"]), 2)
        heard, _ = self.world.ask("tools/call", ben, name="notes__add", arguments={})
        self.assertIsInstance(heard.error, InvalidParams)

    def test_taken_out(self) -> None:
        """A server that is not in the configuration any more is not shown."""
        del self.world.specs["git"]
        self.assertEqual(self.world.result("tools/list")["tools"], named("notes__add"))


class GreetingTests(SynchronousTestCase):
    """What a group says of itself."""

    def test_merged(self) -> None:
        """It can what its servers can."""
        world = GroupWorld()
        able: dict[str, dict[str, object]] = {
            "notes": {"tools": {}},
            "git": {"logging": {}, "tasks": {}},
        }
        for name, capabilities in able.items():
            world.servers.results[name, "server/discover"] = {
                "capabilities": capabilities,
                "instructions": f"I am {name}.",
                "ttlMs": 5,
                "cacheScope": "public",
            }
        result = world.result("server/discover")
        self.assertEqual(result["capabilities"], {"tools": {"listChanged": True}, "logging": {}})
        self.assertEqual(result["supportedVersions"], ["2026-07-28"])
        self.assertEqual(result["instructions"], "## notes\nI am notes.\n\n## git\nI am git.")

    def test_slow(self) -> None:
        """Servers that are slow keep nobody from connecting."""
        world = GroupWorld()
        heard, _ = world.ask("server/discover")
        world.clock.advance(GREETING_WAIT_S)
        self.assertEqual(heard.result["capabilities"], {"tools": {"listChanged": True}})
        self.assertEqual(heard.result["ttlMs"], 0)
        self.assertNotIn("instructions", heard.result)


class CallTests(SynchronousTestCase):
    """Requests that are for one server."""

    def setUp(self) -> None:
        """Make a group."""
        self.world = GroupWorld(rename=(("git__log", "history"),), deny=("git__push",))
        self.world.lists(
            "tools/list", "tools", notes=named("add"), git=named("log", "push", "x" * 80)
        )

    def test_tool(self) -> None:
        """A call goes to the server its name means, under the server's own name for it."""
        self.world.servers.results["git", "tools/call"] = {
            "content": [{"type": "resource_link", "uri": "file:///a"}]
        }
        result = self.world.result("tools/call", name="git__status", arguments={"a": 1})
        self.assertEqual(result["content"][0]["uri"], "git+file:///a")
        (request,) = self.world.servers.asked("git")
        params = request.params or {}
        self.assertEqual((params["name"], params["arguments"]), ("status", {"a": 1}))
        self.assertEqual(self.world.servers.asked("notes"), [])

    def test_same_tool(self) -> None:
        """A tool that two servers have is shown twice; each name calls its own server."""
        self.world.lists("tools/list", "tools", notes=named("log__x"), git=named("log__x"))
        shown = [tool["name"] for tool in self.world.result("tools/list")["tools"]]
        self.assertEqual(shown, ["notes__log__x", "git__log__x"])
        for server in ("notes", "git"):
            self.world.servers.results[server, "tools/call"] = {"content": [server]}
            result = self.world.result("tools/call", name=f"{server}__log__x", arguments={})
            self.assertEqual(result["content"], [server])
            asked = self.world.servers.asked(server)[-1].params or {}
            self.assertEqual(asked["name"], "log__x")

    def test_renamed_and_cut(self) -> None:
        """Renamed and cut names are found without the client having asked for the list."""
        self.world.servers.results["git", "tools/call"] = lambda post: {
            "content": [{"type": "text", "text": (post.request.params or {})["name"]}]
        }
        found = self.world.result("tools/call", name="history", arguments={})
        self.assertEqual(found["content"][0]["text"], "log")
        long = next(
            tool["name"]
            for tool in self.world.result("tools/list")["tools"]
            if "xx" in tool["name"]
        )
        found = self.world.result("tools/call", name=long, arguments={})
        self.assertEqual(found["content"][0]["text"], "x" * 80)

    def test_unknown(self) -> None:
        """Unknown, hidden and missing names are refused; no server hears of them."""
        for name in ("nope__x", "git__push", "git__log", None, 7):
            heard, _ = self.world.ask("tools/call", name=name, arguments={})
            self.assertIsInstance(heard.error, InvalidParams, name)
        self.assertFalse(
            [post for post in self.world.servers.posts if post.request.method == "tools/call"]
        )

    def test_prompt(self) -> None:
        """A prompt is its server's."""
        self.world.servers.results["notes", "prompts/get"] = {"messages": []}
        self.assertEqual(self.world.result("prompts/get", name="notes__p"), {"messages": []})

    def test_resource(self) -> None:
        """A resource is read at the server in its address, and told under that address."""
        self.world.servers.results["notes", "resources/read"] = {"contents": [{"uri": "note://1"}]}
        result = self.world.result("resources/read", uri="notes+note://1")
        self.assertEqual(result["contents"], [{"uri": "notes+note://1"}])
        (request,) = self.world.servers.asked("notes")
        self.assertEqual((request.params or {})["uri"], "note://1")
        for uri in ("note://1", "other+note://1", None):
            heard, _ = self.world.ask("resources/read", uri=uri)
            self.assertIsInstance(heard.error, InvalidParams)

    def test_completion(self) -> None:
        """A completion goes where its reference belongs."""
        self.world.servers.results["git", "completion/complete"] = {"completion": {"values": []}}
        for ref, own in (
            ({"type": "ref/prompt", "name": "git__p"}, {"type": "ref/prompt", "name": "p"}),
            (
                {"type": "ref/resource", "uri": "git+f://{x}"},
                {"type": "ref/resource", "uri": "f://{x}"},
            ),
        ):
            self.world.result("completion/complete", ref=ref, argument={})
            self.assertEqual((self.world.servers.asked("git")[-1].params or {})["ref"], own)
        for bad in (None, {"type": "ref/prompt", "name": "nope"}, {"type": "ref/prompt"}):
            heard, _ = self.world.ask("completion/complete", ref=bad)
            self.assertIsInstance(heard.error, InvalidParams)

    def test_other_methods(self) -> None:
        """What a group can not have is not found."""
        heard, _ = self.world.ask("tasks/get", taskId="1")
        self.assertIsInstance(heard.error, MethodNotFound)

    def test_streamed(self) -> None:
        """Progress passes; a client that goes takes the call back at its server."""
        self.world.servers.results["git", "tools/call"] = None
        heard, take_back = self.world.ask("tools/call", name="git__slow", arguments={})
        inbound = self.world.servers.posts[-1].inbound
        inbound.start(200, STREAM, None)
        progress = Notification("notifications/progress", {"progress": 1})
        inbound.write(b"data: " + encode(progress) + b"\n\n")
        self.assertEqual(heard.methods, ["notifications/progress"])
        gone: list[str] = []
        inbound.on_gone(lambda: gone.append("gone"))
        take_back()
        self.assertEqual(gone, ["gone"])
        self.assertEqual((heard.answer, heard.error), (None, None))

    def test_errors(self) -> None:
        """A server's own error and a refusal of the gate are told as they are."""
        self.world.servers.results["git", "tools/call"] = ErrorResponse(7, -32602, "bad", {"a": 1})
        heard, _ = self.world.ask("tools/call", name="git__x", arguments={})
        self.assertEqual(heard.answer, ErrorResponse(7, -32602, "bad", {"a": 1}))
        self.world.servers.results["git", "tools/call"] = BackendUnavailable("gone")
        heard, _ = self.world.ask("tools/call", name="git__x", arguments={})
        assert heard.error is not None
        self.assertEqual(heard.error.detail, "gone")
        self.world.servers.results["git", "tools/call"] = None
        heard, _ = self.world.ask("tools/call", name="git__x", arguments={})
        self.world.servers.posts[-1].inbound.abort()
        self.assertIsInstance(heard.error, GateError)

    def test_a_bug(self) -> None:
        """Something unforeseen is told as an error of the gate, its traceback in the log."""
        self.world.servers.results["git", "tools/call"] = ValueError("oops")
        heard, _ = self.world.ask("tools/call", name="git__x", arguments={})
        assert heard.error is not None
        self.assertEqual(heard.error.reason, "internal")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_books_are_bounded(self) -> None:
        """Names are kept for so many callers, not for all that ever were."""
        self.world.servers.results["git", "tools/call"] = {"content": []}
        for number in range(1100):
            caller = replace(ANN, principal=ANN.principal._replace(key_digest=f"{number:032x}"))
            self.world.ask("tools/call", caller, name="git__x", arguments={})
        self.assertLessEqual(len(self.world.aggregate._books), 1000)

    def test_answers_to_others(self) -> None:
        """The answer keeps the id the client gave."""
        self.world.servers.results["git", "tools/call"] = {"content": []}
        heard, _ = self.world.ask("tools/call", name="git__x", arguments={})
        self.assertEqual(heard.answer, Response(7, {"content": []}))
        self.assertIsInstance(self.world.servers.posts[-1].request, Request)
