"""Tests of mcpgate.mcp.to_legacy."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp import to_legacy
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.modern import Context

NEW, MIDDLE, OLD = "2025-11-25", "2025-06-18", "2025-03-26"
CALL = Request(7, "tools/call", {"name": "x"})
INFO = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class DeclaredTests(SynchronousTestCase):
    """What a modern server is told its client can do."""

    def test_only_what_can_be_carried(self) -> None:
        """Tasks are never declared, roots are asked for and never announced."""
        said = to_legacy.declared(
            {
                "roots": {"listChanged": True},
                "sampling": {"tools": {}},
                "tasks": {"list": {}},
                "experimental": {"x": {}},
                "extensions": {"io.modelcontextprotocol/tasks": {}, "com.example/ui": {}},
                "other": {},
            },
            NEW,
        )
        self.assertEqual(
            said,
            {
                "roots": {},
                "sampling": {"tools": {}},
                "experimental": {"x": {}},
                "extensions": {"com.example/ui": {}},
            },
        )
        self.assertEqual(to_legacy.declared({"extensions": {"a/tasks": {}}}, NEW), {})
        self.assertEqual(to_legacy.declared({"sampling": None}, NEW), {"sampling": {}})

    def test_elicitation(self) -> None:
        """Clients of before modes fill in forms; addresses are for those who say so."""
        for given, revision, said in (
            ({}, MIDDLE, {"form": {}}),
            (None, MIDDLE, {"form": {}}),
            ({"form": {}, "url": {}}, NEW, {"form": {}, "url": {}}),
            ({"url": {}}, NEW, {"url": {}}),
            ({"form": {}, "url": {}}, MIDDLE, {"form": {}}),
        ):
            self.assertEqual(
                to_legacy.declared({"elicitation": given}, revision), {"elicitation": said}
            )


class RequestTests(SynchronousTestCase):
    """A client's request on its way to a modern server."""

    def test_context(self) -> None:
        """Every request says who asks, what that client can do and what it wants to hear."""
        params: dict[str, object] = {
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "c", "version": "1"},
        }
        said = to_legacy.context(params, NEW, "info")
        self.assertEqual(said.capabilities, {"sampling": {}})
        self.assertEqual(said.client, {"name": "c", "version": "1"})
        self.assertEqual((said.version, said.log_level), ("2026-07-28", "info"))
        self.assertIsNone(to_legacy.context({"clientInfo": 3}, NEW).client)

    def test_request(self) -> None:
        """Progress tokens stay; what the client could smuggle into the gate's loop does not."""
        asked = Request(
            7,
            "tools/call",
            {
                "name": "x",
                "task": {"ttl": 1},
                "requestState": "s",
                "inputResponses": {},
                "_meta": {"progressToken": 3},
            },
        )
        sent = to_legacy.request(asked, Context(version="2026-07-28", capabilities={}), 1)
        self.assertEqual(
            sent,
            Request(
                1,
                "tools/call",
                {
                    "name": "x",
                    "_meta": {
                        "progressToken": 3,
                        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                        "io.modelcontextprotocol/clientCapabilities": {},
                    },
                },
            ),
        )
        vendor = Request(1, "x/y", {"task": 1})
        kept = to_legacy.request(vendor, Context(version="2026-07-28", capabilities={}), 2).params
        self.assertEqual((kept or {})["task"], 1)

    def test_methods(self) -> None:
        """What the modern era does not have, or has for itself, is not passed on."""
        for method in ("tools/list", "completion/complete", "com.example/x"):
            self.assertTrue(to_legacy.is_asked(method), method)
        for method in (
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "tasks/list",
            "tasks/get",
            "server/discover",
            "subscriptions/listen",
        ):
            self.assertFalse(to_legacy.is_asked(method), method)


class ResultTests(SynchronousTestCase):
    """A server's result on its way to a legacy client."""

    def test_plain(self) -> None:
        """What only the modern era has is left out; the rest stays, ``_meta`` of others too."""
        self.assertEqual(
            to_legacy.result(
                "prompts/list",
                {
                    "resultType": "complete",
                    "ttlMs": 5,
                    "cacheScope": "public",
                    "prompts": [],
                    "nextCursor": "",
                    "_meta": {INFO: {"name": "s"}},
                },
                NEW,
            ),
            {"prompts": [], "nextCursor": ""},
        )
        kept = to_legacy.result("x/y", {"_meta": {INFO: {}, "com.example/a": 1}}, NEW)
        self.assertEqual(kept, {"_meta": {"com.example/a": 1}})
        # An empty result is empty: the TypeScript SDK v1 takes no other.
        self.assertEqual(to_legacy.result("x/y", {"resultType": "complete"}, NEW), {})

    def tool(self, revision: str = NEW, **tool: object) -> dict[str, Any]:
        """Give a tool as a client sees it in the list."""
        found = to_legacy.result("tools/list", {"tools": [{"name": "t", **tool}]}, revision)
        tools = found["tools"]
        assert isinstance(tools, list)
        mended: dict[str, Any] = tools[0]
        return mended

    def test_tools(self) -> None:
        """One odd schema does not cost a client the whole list."""
        self.assertEqual(self.tool()["inputSchema"], {"type": "object"})
        self.assertEqual(self.tool(inputSchema=True)["inputSchema"], {"type": "object"})
        odd = {"properties": {"a": True, "b": False, "c": {}}, "required": "a"}
        self.assertEqual(
            self.tool(inputSchema=odd)["inputSchema"],
            {"type": "object", "properties": {"a": {}, "b": {"not": {}}, "c": {}}},
        )
        self.assertEqual(
            self.tool(inputSchema={"properties": [], "required": ["a"]})["inputSchema"],
            {"type": "object", "required": ["a"]},
        )
        outputs: tuple[object, ...] = ({"type": "array"}, {"anyOf": []}, True)
        for output in outputs:
            self.assertNotIn("outputSchema", self.tool(outputSchema=output))
        good = {"type": "object", "properties": {"x": {}}}
        self.assertEqual(self.tool(outputSchema=good)["outputSchema"], good)
        self.assertNotIn("outputSchema", self.tool(OLD, outputSchema=good))
        self.assertEqual(to_legacy.result("tools/list", {"tools": 3}, NEW), {"tools": 3})

    def test_structured_content(self) -> None:
        """What is no object becomes text, unless text is there already."""
        self.assertEqual(
            to_legacy.result("tools/call", {"content": [], "structuredContent": [1, "ä"]}, NEW),
            {"content": [{"type": "text", "text": '[1,"ä"]'}]},
        )
        said = {"type": "text", "text": "one"}
        self.assertEqual(
            to_legacy.result("tools/call", {"content": [said], "structuredContent": 1}, NEW),
            {"content": [said]},
        )
        value = {"content": [said], "structuredContent": {"a": 1}}
        self.assertEqual(to_legacy.result("tools/call", value, NEW), value)
        self.assertEqual(to_legacy.result("tools/call", value, OLD), {"content": [said]})
        picture = {"type": "image", "data": "", "mimeType": "image/png"}
        mixed = {"content": [picture], "structuredContent": {"a": 1}}
        self.assertEqual(to_legacy.result("tools/call", mixed, NEW), mixed)
        self.assertEqual(
            to_legacy.result("tools/call", {"structuredContent": {"a": 1}}, NEW)["content"],
            [{"type": "text", "text": '{"a":1}'}],
        )

    def test_links(self) -> None:
        """A link to a resource is text for revisions that know no links."""
        link = {"type": "resource_link", "name": "n", "uri": "file:///a"}
        text = {"type": "text", "text": "n: file:///a"}
        self.assertEqual(
            to_legacy.result("tools/call", {"content": [link]}, MIDDLE)["content"], [link]
        )
        self.assertEqual(
            to_legacy.result("tools/call", {"content": [link]}, OLD)["content"], [text]
        )
        messages = {"messages": [{"role": "user", "content": link}, 3]}
        self.assertEqual(
            to_legacy.result("prompts/get", messages, OLD),
            {"messages": [{"role": "user", "content": text}, 3]},
        )
        self.assertEqual(to_legacy.result("prompts/get", {"messages": 1}, OLD), {"messages": 1})
        self.assertEqual(to_legacy.result("prompts/get", messages, NEW), messages)


class GreetingTests(SynchronousTestCase):
    """The answer to initialize, made of a DiscoverResult."""

    def test_initialize(self) -> None:
        """Capabilities without what can not be carried, and the server's own name."""
        discovered: dict[str, object] = {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}, "tasks": {}, "extensions": {}, "odd": 1},
            "instructions": "Be kind.",
            "ttlMs": 1,
            "cacheScope": "public",
            "_meta": {INFO: {"name": "s", "version": "3", "title": "S"}},
        }
        self.assertEqual(
            to_legacy.initialize_result(discovered, MIDDLE, "notes"),
            {
                "protocolVersion": MIDDLE,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "s", "version": "3", "title": "S"},
                "instructions": "Be kind.",
            },
        )

    def test_nameless(self) -> None:
        """A server that does not say its name is called as in the configuration."""
        self.assertEqual(
            to_legacy.initialize_result({}, NEW, "notes"),
            {
                "protocolVersion": NEW,
                "capabilities": {},
                "serverInfo": {"name": "notes", "version": "0"},
            },
        )

    def test_features(self) -> None:
        """A feature is there when the server says so."""
        found: dict[str, object] = {"capabilities": {"resources": {"subscribe": True}, "tools": 1}}
        self.assertTrue(to_legacy.can(found, "resources", "subscribe"))
        self.assertFalse(to_legacy.can(found, "resources", "listChanged"))
        self.assertFalse(to_legacy.can(found, "tools", "listChanged"))


class ErrorTests(SynchronousTestCase):
    """A server's error on its way to a legacy client."""

    def test_missing_capability(self) -> None:
        """A tool that needs what the client has not has failed, in words for its caller."""
        lacking = ErrorResponse(
            1, -32021, "no", {"requiredCapabilities": {"sampling": {}, "roots": {}}}
        )
        said = to_legacy.error(CALL, lacking)
        assert isinstance(said, Response)
        self.assertTrue(said.result["isError"])
        self.assertIn("roots, sampling", str(said.result["content"]))
        other = to_legacy.error(Request(7, "prompts/get"), ErrorResponse(1, -32021, "no"))
        assert isinstance(other, ErrorResponse)
        self.assertEqual((other.id, other.code), (7, -32603))

    def test_between_gate_and_server(self) -> None:
        """Codes about headers and revisions are of no use to the client."""
        for code in (-32020, -32022):
            said = to_legacy.error(CALL, ErrorResponse(1, code, "why", {"x": 1}))
            self.assertEqual(said, ErrorResponse(7, -32603, "why"))

    def test_resource_not_found(self) -> None:
        """A resource that is not there has its own code in the legacy era."""
        read = Request(7, "resources/read", {"uri": "a:b"})
        for message, data, code in (
            ("Resource not found", None, -32002),
            ("gone", {"uri": "a:b"}, -32002),
            ("bad uri", None, -32602),
        ):
            said = to_legacy.error(read, ErrorResponse(1, -32602, message, data))
            self.assertEqual(said, ErrorResponse(7, code, message, data))
        said = to_legacy.error(CALL, ErrorResponse(1, -32602, "not found", 3))
        self.assertEqual(said, ErrorResponse(7, -32602, "not found", 3))


class ListenTests(SynchronousTestCase):
    """What a listen stream brings."""

    def test_heard(self) -> None:
        """Changes pass without the subscription's id, nothing else passes."""
        meta: dict[str, object] = {SUBSCRIPTION: 3, "com.example/a": 1}
        self.assertEqual(
            to_legacy.heard(
                Notification("notifications/resources/updated", {"uri": "a:b", "_meta": meta})
            ),
            Notification(
                "notifications/resources/updated",
                {"uri": "a:b", "_meta": {"com.example/a": 1}},
            ),
        )
        self.assertEqual(
            to_legacy.heard(
                Notification("notifications/tools/list_changed", {"_meta": {SUBSCRIPTION: 3}})
            ),
            Notification("notifications/tools/list_changed"),
        )
        self.assertIsNone(to_legacy.heard(Notification("notifications/subscriptions/acknowledged")))
        self.assertIsNone(to_legacy.heard(Notification("notifications/message", {})))

    def test_filter(self) -> None:
        """Everything the server can tell is listened to."""
        found: dict[str, object] = {
            "capabilities": {"tools": {"listChanged": True}, "prompts": {}, "resources": {}}
        }
        self.assertEqual(to_legacy.listen_filter(found, ()), {"toolsListChanged": True})
        self.assertEqual(
            to_legacy.listen_filter(found, ("a:b",)),
            {"toolsListChanged": True, "resourceSubscriptions": ["a:b"]},
        )

    def test_gap(self) -> None:
        """After a gap everything that was listened to may have changed."""
        acknowledged = Notification(
            "notifications/subscriptions/acknowledged",
            {"notifications": {"promptsListChanged": True, "resourceSubscriptions": ["a:b"]}},
        )
        self.assertEqual(
            to_legacy.missed(to_legacy.honoured(acknowledged)),
            [
                Notification("notifications/prompts/list_changed"),
                Notification("notifications/resources/updated", {"uri": "a:b"}),
            ],
        )
        self.assertEqual(to_legacy.missed(to_legacy.honoured(Notification("x"))), [])
