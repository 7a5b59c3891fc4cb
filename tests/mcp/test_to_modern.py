"""Tests of mcpgate.mcp.to_modern."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response
from mcpgate.mcp.to_modern import (
    ALL_POWERS,
    MAX_URLS,
    Powers,
    capabilities_of,
    completed,
    discovered,
    failed,
    has,
    input_answer,
    input_request,
    is_failure,
    server_info,
    url_inputs,
)


class PowersTests(SynchronousTestCase):
    """What a client can be asked."""

    def test_read(self) -> None:
        """An empty elicitation means forms; parts count only within their whole."""
        self.assertEqual(Powers.of({}), Powers())
        self.assertEqual(Powers.of({"elicitation": {}}), Powers(form=True))
        self.assertEqual(Powers.of({"elicitation": {"url": {}}}), Powers(url=True))
        self.assertEqual(Powers.of({"sampling": 1, "roots": None}), Powers())
        self.assertEqual(Powers.of(ALL_POWERS.declared()), ALL_POWERS)
        self.assertEqual(
            Powers.of({"roots": {}, "sampling": {}}), Powers(roots=True, sampling=True)
        )

    def test_declared(self) -> None:
        """A legacy server is told exactly that."""
        self.assertEqual(Powers().declared(), {})
        self.assertEqual(
            Powers(form=True, roots=True).declared(), {"elicitation": {"form": {}}, "roots": {}}
        )
        self.assertEqual(
            Powers(sampling=True, sampling_tools=True).declared(), {"sampling": {"tools": {}}}
        )

    def test_lacking(self) -> None:
        """What would have had to be declared, in the words of ``clientCapabilities``."""
        url = Request(1, "elicitation/create", {"mode": "url"})
        tools = Request(1, "sampling/createMessage", {"tools": [{}]})
        some = Powers(form=True, sampling=True)
        self.assertEqual(some.lacking(url), {"elicitation": {"url": {}}})
        self.assertEqual(some.lacking(tools), {"sampling": {"tools": {}}})
        self.assertIsNone(some.lacking(Request(1, "elicitation/create")))
        self.assertIsNone(some.lacking(Request(1, "sampling/createMessage")))
        self.assertEqual(some.lacking(Request(1, "roots/list")), {"roots": {}})
        self.assertEqual(Powers().lacking(tools), {"sampling": {}})
        for request in (url, tools, Request(1, "roots/list")):
            self.assertIsNone(ALL_POWERS.lacking(request))


class DiscoveryTests(SynchronousTestCase):
    """A server as modern clients discover it."""

    def test_discovered(self) -> None:
        """The handshake's result in new words, without tasks."""
        told = discovered(
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {"listChanged": True}, "tasks": {}, "experimental": {}},
                "serverInfo": {"name": "s", "version": "1"},
                "instructions": "Be kind.",
            }
        )
        self.assertEqual(
            told,
            {
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {"listChanged": True}, "experimental": {}},
                "instructions": "Be kind.",
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
            },
        )

    def test_bare(self) -> None:
        """A server that says little, or nonsense."""
        told = discovered({"capabilities": 3, "serverInfo": {}, "instructions": 1})
        self.assertEqual(told["capabilities"], {})
        self.assertNotIn("_meta", told)
        self.assertNotIn("instructions", told)
        self.assertIsNone(server_info({"serverInfo": "me"}))
        self.assertEqual(capabilities_of({}), {})
        self.assertFalse(has({"tools": None}, "tools"))
        self.assertTrue(has({"tools": {}}, "tools"))
        self.assertFalse(has({"tools": {}}, "tools", "listChanged"))


class ResultTests(SynchronousTestCase):
    """Results of a legacy server."""

    def test_call(self) -> None:
        """A call's result is complete and says whose it is; what else is there stays."""
        told = completed("tools/call", {"content": [], "_meta": {"k": 1}}, {"name": "s"})
        self.assertEqual(
            told,
            {
                "content": [],
                "resultType": "complete",
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s"}, "k": 1},
            },
        )

    def test_lists(self) -> None:
        """Lists and resources are for this client and this moment."""
        for method in ("tools/list", "resources/read", "prompts/list"):
            told = completed(method, {})
            self.assertEqual((told["ttlMs"], told["cacheScope"]), (0, "private"))

    def test_tools(self) -> None:
        """Tools lose what the modern era does not know, or would take for something else."""
        schema = {
            "type": "object",
            "properties": {
                "x-mcp-header": {"type": "string", "x-mcp-header": "A"},
                "b": {
                    "anyOf": [{"type": "string", "x-mcp-header": "B"}],
                    "default": {"x-mcp-header": 1},
                },
            },
        }
        tools = [
            {"name": "t", "execution": {"taskSupport": "optional"}, "inputSchema": schema},
            {"name": "u"},
            "noise",
        ]
        told = completed("tools/list", {"tools": tools, "nextCursor": ""})
        cleaned = {
            "type": "object",
            "properties": {
                "x-mcp-header": {"type": "string"},
                "b": {"anyOf": [{"type": "string"}], "default": {"x-mcp-header": 1}},
            },
        }
        self.assertEqual(
            told["tools"], [{"name": "t", "inputSchema": cleaned}, {"name": "u"}, "noise"]
        )
        self.assertEqual(told["nextCursor"], "")
        self.assertIn("x-mcp-header", schema["properties"]["x-mcp-header"])  # type: ignore[index]

    def test_deep(self) -> None:
        """A schema without end is passed on as it is."""
        schema: dict[str, object] = {"x-mcp-header": "deep"}
        for _ in range(100):
            schema = {"items": schema}
        told = completed("tools/list", {"tools": [{"inputSchema": schema}]})
        self.assertEqual(told["tools"], [{"inputSchema": schema}])

    def test_errors(self) -> None:
        """Codes that are no more get those of today."""
        call = "tools/call"
        self.assertEqual(
            failed(call, ErrorResponse(1, -32002, "m", 3)), ErrorResponse(1, -32602, "m", 3)
        )
        self.assertEqual(failed(call, ErrorResponse(1, -32042, "m")), ErrorResponse(1, -32603, "m"))
        other = ErrorResponse(1, -32601, "m")
        self.assertIs(failed(call, other), other)
        self.assertTrue(is_failure(other))
        self.assertTrue(is_failure(Response(1, {"isError": True})))
        self.assertFalse(is_failure(Response(1, {})))

    def test_unknown_to_python(self) -> None:
        """Servers on the Python SDK 1 take an unknown method for one with bad parameters."""
        answer = ErrorResponse(1, -32602, "Invalid request parameters", "")
        self.assertEqual(failed("vendor/x", answer).code, -32601)
        self.assertIs(failed("tools/call", answer), answer)
        own = ErrorResponse(1, -32602, "Invalid request parameters", {"field": "x"})
        self.assertIs(failed("vendor/x", own), own)


class InputTests(SynchronousTestCase):
    """What a legacy server asks."""

    def test_request(self) -> None:
        """Ids and tasks of the legacy era stay behind."""
        params = {"mode": "url", "elicitationId": "e", "task": {}, "_meta": {"progressToken": 1}}
        self.assertEqual(
            input_request("elicitation/create", params),
            {"method": "elicitation/create", "params": {"mode": "url"}},
        )
        self.assertEqual(input_request("roots/list", {"_meta": {}}), {"method": "roots/list"})
        self.assertEqual(
            input_request("sampling/createMessage", None),
            {"method": "sampling/createMessage", "params": {}},
        )

    def test_urls(self) -> None:
        """Pages to visit first, as many as are taken seriously."""
        many = ErrorResponse(1, -32042, "m", {"elicitations": [{"url": "u"}] * (MAX_URLS + 5)})
        self.assertEqual(len(url_inputs(many)), MAX_URLS)
        self.assertEqual(
            url_inputs(many)[0],
            {"method": "elicitation/create", "params": {"message": "", "url": "u", "mode": "url"}},
        )
        for data in (None, {}, {"elicitations": "x"}, {"elicitations": [{}, 1]}):
            self.assertEqual(url_inputs(ErrorResponse(1, -32042, "m", data)), [])
        self.assertEqual(
            url_inputs(ErrorResponse(1, -1, "m", {"elicitations": [{"url": "u"}]})), []
        )

    def test_answer(self) -> None:
        """Strict servers see no word of the modern era."""
        self.assertEqual(
            input_answer({"action": "accept", "resultType": "complete"}), {"action": "accept"}
        )
