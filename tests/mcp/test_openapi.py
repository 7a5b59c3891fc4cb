"""Tests of mcpgate.mcp.openapi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import (
    BackendDied,
    GateError,
    InvalidParams,
    RateLimited,
    ToolAsks,
    ToolFailed,
)
from mcpgate.mcp.jsonrpc import ErrorResponse
from mcpgate.mcp.openapi import document, error_of, plain

PLACE = "#/components/schemas/"


def described(*tools: Mapping[str, object], **options: Any) -> dict[str, Any]:
    """Describe tools."""
    return document(tools, title="notes", version="1", url="https://h/notes", **options)


def schemas(schema: object) -> dict[str, Any]:
    """Give the components that the schema of a tool ``t`` becomes."""
    found: dict[str, Any] = described({"name": "t", "inputSchema": schema})["components"]["schemas"]
    del found["mcpgate_error"]
    return found


class DocumentTests(SynchronousTestCase):
    """Tools as operations."""

    def test_operation(self) -> None:
        """A tool is one POST with its schemas, under its own name."""
        tool = {
            "name": "add",
            "title": "Add a note",
            "description": "Adds.",
            "inputSchema": {"type": "object", "required": ["text"]},
            "outputSchema": {"type": "object"},
        }
        told = described(tool)
        self.assertEqual(told["servers"], [{"url": "https://h/notes"}])
        operation = told["paths"]["/tools/add"]["post"]
        self.assertEqual(operation["operationId"], "add")
        self.assertEqual((operation["summary"], operation["description"]), ("Add a note", "Adds."))
        self.assertTrue(operation["requestBody"]["required"])
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        self.assertEqual(answer, {"$ref": PLACE + "add_output"})

    def test_meagre(self) -> None:
        """What is missing or of a wrong kind does no harm; the first of two of one name counts."""
        told = described({"name": "a", "title": 7}, {"name": 7}, {}, {"name": "a", "title": "b"})
        self.assertEqual(list(told["paths"]), ["/tools/a"])
        operation = told["paths"]["/tools/a"]["post"]
        self.assertEqual(operation["summary"], "a")
        self.assertNotIn("description", operation)
        self.assertFalse(operation["requestBody"]["required"])

    def test_names(self) -> None:
        """Names that need it are escaped in paths, and components of two never clash."""
        told = described({"name": "a/b"}, {"name": "a b"}, {"name": "a_b"})
        self.assertEqual(list(told["paths"]), ["/tools/a%2Fb", "/tools/a%20b", "/tools/a_b"])
        self.assertEqual(len(told["components"]["schemas"]), 4)

    def test_bounded(self) -> None:
        """Tools that do not fit are left out, and counted."""
        told = described(*({"name": f"t{n}"} for n in range(10)), limit_bytes=1500)
        self.assertEqual(len(told["paths"]) + told["info"]["x-mcpgate-left-out"], 10)
        self.assertGreater(len(told["paths"]), 1)


class SchemaTests(SynchronousTestCase):
    """References inside of a tool's schema lead to the same place afterwards."""

    def test_definitions(self) -> None:
        """Definitions become components of their own."""
        found = schemas(
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "title": "Arguments",
                "properties": {
                    "node": {"$ref": "#/$defs/Node", "description": "A node."},
                    "old": {"$ref": "#/definitions/a~1b"},
                    "deep": {"items": [{"$ref": "#/$defs/Node/properties/next"}, True]},
                },
                "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}, "any": True},
                "definitions": {"a/b": {"type": "string"}},
            }
        )
        node = PLACE + "t_input_Node"
        properties = found["t_input"]["properties"]
        self.assertEqual(set(found["t_input"]), {"type", "properties"})
        self.assertEqual(properties["node"], {"$ref": node, "description": "A node."})
        self.assertEqual(properties["deep"]["items"], [{"$ref": f"{node}/properties/next"}, True])
        self.assertEqual(found["t_input_Node"]["properties"]["next"], {"$ref": node})
        self.assertIs(found["t_input_any"], True)
        old = properties["old"]["$ref"].removeprefix(PLACE)
        self.assertEqual(found[old], {"type": "string"})

    def test_itself(self) -> None:
        """A schema may refer to itself and to places in it."""
        found = schemas({"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#/properties/a"}}})
        self.assertEqual(
            found["t_input"]["properties"],
            {"a": {"$ref": PLACE + "t_input"}, "b": {"$ref": PLACE + "t_input/properties/a"}},
        )

    def test_outside(self) -> None:
        """Nobody is sent elsewhere: references to other documents and to anchors are left out."""
        found = schemas(
            {
                "$id": "https://evil.example/x",
                "properties": {
                    "a": {"$ref": "https://evil.example/y", "title": "A"},
                    "b": {"$ref": "other.json#/a"},
                    "c": {"$ref": "#anchor"},
                    "d": {"$ref": 7},
                },
            }
        )
        self.assertEqual(
            found["t_input"], {"properties": {"a": {"title": "A"}, "b": {}, "c": {}, "d": {}}}
        )

    def test_data(self) -> None:
        """Defaults and the like are no schemas; a property of such a name is one."""
        found = schemas(
            {
                "default": {"$ref": "x"},
                "enum": [{"$id": 1}],
                "properties": {"default": {"$ref": "#"}, "$ref": {"type": "string"}, "n": 7},
                "not": {"$ref": "#"},
            }
        )["t_input"]
        self.assertEqual(found["default"], {"$ref": "x"})
        self.assertEqual(found["enum"], [{"$id": 1}])
        self.assertEqual(found["properties"]["default"], {"$ref": PLACE + "t_input"})
        self.assertEqual(found["properties"]["$ref"], {"type": "string"})
        self.assertEqual(found["properties"]["n"], {})
        self.assertEqual(found["not"], {"$ref": PLACE + "t_input"})

    def test_depth(self) -> None:
        """What is nested without end is cut: anything is allowed there."""
        schema: dict[str, object] = {"type": "string"}
        for _ in range(100):
            schema = {"not": schema}
        self.assertNotIn("string", str(schemas(schema)))


class AnswerTests(SynchronousTestCase):
    """Results as plain JSON."""

    def said(self, *content: object, **more: object) -> object:
        """Give what a result becomes."""
        return plain({"content": list(content), **more})

    def test_structured(self) -> None:
        """Structured content is the answer."""
        self.assertEqual(
            self.said({"type": "text", "text": "x"}, structuredContent={"a": 1}), {"a": 1}
        )

    def test_texts(self) -> None:
        """Text that is JSON is what it says; other text is a string."""
        for text, value in (
            ('{"a": [1]}', {"a": [1]}),
            ("7", 7),
            ("NaN", "NaN"),
            ("hello", "hello"),
            ("[" * 100, "[" * 100),
            ('{"a":1,"a":2}', '{"a":1,"a":2}'),
            ("\ud800", "\ud800"),
        ):
            self.assertEqual(self.said({"type": "text", "text": text}), value)

    def test_others(self) -> None:
        """Several parts are a list; images are URLs; what has no other form stays as it is."""
        link = {"type": "resource_link", "uri": "a:b"}
        image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
        self.assertEqual(self.said(image, link, 7), ["data:image/png;base64,AAAA", link])
        self.assertIsNone(self.said())
        self.assertIsNone(plain({"content": 7}))

    def test_failures(self) -> None:
        """A tool that failed says why; one that asks can not be served."""
        error = self.assertRaises(
            ToolFailed, self.said, {"type": "text", "text": "no"}, {"type": "image"}, isError=True
        )
        self.assertEqual(error.detail, "no")
        self.assertEqual(
            self.assertRaises(ToolFailed, self.said, isError=True).detail, ToolFailed.text
        )
        self.assertRaises(ToolAsks, self.said, resultType="input_required")


class ErrorTests(SynchronousTestCase):
    """Errors in words of JSON-RPC as those of HTTP."""

    def error(self, code: int, data: object = None) -> GateError:
        """Give what an error becomes."""
        return error_of(ErrorResponse(1, code, "why", data))

    def test_kinds(self) -> None:
        """The gate's own keep their meaning, the server's are a tool that failed."""
        self.assertIsInstance(self.error(-32602), InvalidParams)
        self.assertIsInstance(self.error(-32021), ToolAsks)
        self.assertEqual(type(self.error(-32603)), ToolFailed)
        self.assertEqual(self.error(-32603).detail, "why")

    def test_data(self) -> None:
        """When to come again, and how a server ended, is passed on; nothing else is."""
        limited = self.error(-31006, {"retryAfterMs": 1500, "reason": "x"})
        self.assertIsInstance(limited, RateLimited)
        self.assertEqual((limited.retry_after_s, limited.data), (1.5, {}))
        died = self.error(-31003, {"exitCode": 3, "message": "x", "retryAfterMs": "1"})
        self.assertIsInstance(died, BackendDied)
        self.assertEqual((died.retry_after_s, died.data), (None, {"exitCode": 3}))
