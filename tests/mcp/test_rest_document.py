"""Tests of mcpgate.mcp.rest_document."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp import rest_document
from mcpgate.mcp.rest_document import Described, described, foreign_references

PARAMETER = {"name": "id", "in": "path", "schema": {"type": "string"}}


def document(paths: object, **more: object) -> dict[str, Any]:
    """Make a document."""
    return {"openapi": "3.0.3", "info": {"title": "Pets", "version": "1"}, "paths": paths, **more}


def get(told: object, **more: object) -> dict[str, Any]:
    """Make a document of one operation."""
    return document({"/x": {"get": told}}, **more)


def tool(made: Described, number: int = 0) -> dict[str, Any]:
    """Give a tool as clients see it."""
    found: dict[str, Any] = json.loads(made.service.operations[number].tool)
    return found


def schema_of(schema: object, **schemas: object) -> dict[str, Any]:
    """Give the schema that a body's becomes, as the tool's whole."""
    body = {"content": {"application/json": {"schema": schema}}}
    made = described(get({"requestBody": body}, components={"schemas": schemas}))
    found: dict[str, Any] = tool(made)["inputSchema"]
    return found


class ServiceTests(SynchronousTestCase):
    """The document as a whole."""

    def test_words(self) -> None:
        """Title, version and description are the server's; the base is its first server."""
        made = described(
            {
                **get({}),
                "info": {"title": "Pets", "version": "1", "description": "All of them."},
                "servers": [
                    {"url": "https://{where}/v1", "variables": {"where": {"default": "h"}}},
                    {"url": "https://other"},
                ],
            }
        )
        service = made.service
        self.assertEqual((service.title, service.version), ("Pets", "1"))
        self.assertEqual((service.instructions, made.base), ("All of them.", "https://h/v1"))
        self.assertEqual(described(get({})).base, "")

    def test_names(self) -> None:
        """Names are those of operations, fit for tools, and each only once."""
        made = described(
            document(
                {
                    "/a": {"get": {"operationId": "pets.get all!"}, "post": {}},
                    "/b": {"get": {"operationId": "x" * 80}, "put": {"operationId": "post_a"}},
                    "no-path": {"get": {}},
                    "/c": 7,
                }
            )
        )
        names = [one.name for one in made.service.operations]
        self.assertEqual(names[:2], ["pets.get_all", "post_a"])
        self.assertEqual(len(names[2]), 64)
        self.assertTrue(names[3].startswith("x" * 55) or names[3].startswith("post_a_"))
        self.assertEqual(len(set(names)), 4)

    def test_allowed(self) -> None:
        """Only what is allowed is made, and what is denied is not."""
        paths = {f"/{n}": {"get": {"operationId": n}} for n in ("getA", "getB", "putC")}
        made = described(document(paths), allow=("get*",), deny=("*B",))
        self.assertEqual([one.name for one in made.service.operations], ["getA"])

    def test_too_many(self) -> None:
        """Tools have a bound."""
        self.patch(rest_document, "MAX_TOOLS", 2)
        made = described(document({f"/{n}": {"get": {}} for n in range(3)}))
        self.assertEqual(len(made.service.operations), 2)
        self.assertEqual(len(made.service.left_out), 1)

    def test_foreign(self) -> None:
        """References to elsewhere are found, wherever they are."""
        value = {"a": [{"$ref": "#/x"}, {"$ref": "other.yaml#/x"}], "b": {"$id": "https://h"}}
        self.assertEqual(set(foreign_references(value)), {"other.yaml#/x", "https://h"})


class OperationTests(SynchronousTestCase):
    """One operation."""

    def test_words(self) -> None:
        """What it is for is told, and whether it changes anything."""
        made = described(get({"summary": "List", "description": "All."}))
        told = tool(made)
        self.assertEqual((told["title"], told["description"]), ("List", "List\n\nAll."))
        self.assertTrue(told["annotations"]["readOnlyHint"])
        told = tool(described(document({"/x": {"delete": {}}})))
        self.assertEqual(told["description"], "DELETE /x")
        self.assertTrue(told["annotations"]["destructiveHint"])

    def test_parameters(self) -> None:
        """Those of the path's own are overridden; each is one argument."""
        made = described(
            document(
                {
                    "/x/{id}": {
                        "parameters": [PARAMETER, {"$ref": "#/components/parameters/T"}],
                        "get": {
                            "parameters": [
                                {**PARAMETER, "description": "Which."},
                                {"name": "id", "in": "query"},
                                {
                                    "name": "f",
                                    "in": "query",
                                    "content": {"application/json": {"schema": {"type": "object"}}},
                                },
                                {"name": "Accept", "in": "header"},
                                {"name": "a b", "in": "header"},
                                {"name": "c", "in": "cookie"},
                                {"in": "query"},
                            ]
                        },
                    }
                },
                components={
                    "parameters": {
                        "T": {"name": "t", "in": "header", "style": "simple", "explode": True}
                    }
                },
            )
        )
        (operation,) = made.service.operations
        self.assertEqual(
            [(p.argument, p.place, p.style, p.explode) for p in operation.parameters],
            [
                ("id", "path", "simple", False),
                ("t", "header", "simple", True),
                ("query_id", "query", "form", True),
                ("f", "query", "json", False),
            ],
        )
        schema = tool(made)["inputSchema"]
        self.assertEqual(schema["required"], ["id"])
        self.assertEqual(schema["properties"]["id"], {"type": "string", "description": "Which."})
        self.assertEqual(schema["properties"]["f"], {"type": "object"})

    def test_unfit(self) -> None:
        """What can not be called is left out, with the reason."""
        for told, why in (
            ({"parameters": [{"name": "c", "in": "cookie", "required": True}]}, "cookie"),
            ({"requestBody": {"required": True, "content": {"image/png": {}}}}, "image/png"),
            ({"requestBody": {"content": {"*/*": {}}}}, "any kind"),
            (
                {
                    "parameters": [
                        {"name": "query_a", "in": "header"},
                        {"name": "a", "in": "header"},
                        {"name": "a", "in": "query"},
                    ]
                },
                "two of its",
            ),
            (
                {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"description": "x" * 300_000}}}
                    }
                },
                "too large",
            ),
        ):
            made = described(get(told))
            self.assertEqual(made.service.operations, ())
            self.assertIn(why, made.service.left_out[0])

    def test_body(self) -> None:
        """The body is one argument, in the first kind that can be written."""
        body = {
            "required": True,
            "content": {"image/png": {}, "application/vnd.x+json": {"schema": {"type": "array"}}},
        }
        made = described(
            get(
                {
                    "requestBody": {"$ref": "#/components/requestBodies/B"},
                    "parameters": [{"name": "body", "in": "query"}],
                },
                components={"requestBodies": {"B": body}},
            )
        )
        (operation,) = made.service.operations
        self.assertEqual((operation.body, operation.media), ("body", "application/vnd.x+json"))
        self.assertEqual(operation.parameters[0].argument, "query_body")
        self.assertEqual(tool(made)["inputSchema"]["required"], ["body"])
        optional = described(get({"requestBody": {"content": {"image/png": {}}}}))
        self.assertEqual(optional.service.operations[0].body, "")


class SchemaTests(SynchronousTestCase):
    """Schemas become the tool's own."""

    def test_references(self) -> None:
        """What is referred to becomes a definition, once, however it refers to itself."""
        whole = schema_of(
            {"$ref": "#/components/schemas/Pet"},
            Pet={
                "properties": {
                    "next": {"$ref": "#/components/schemas/Pet"},
                    "kind": {"$ref": "#/components/schemas/Kind/properties/x"},
                    "x": {"$ref": "#/components/schemas/x"},
                    "gone": {"$ref": "#/components/schemas/None"},
                    "wrong": {"$ref": 7},
                }
            },
            Kind={"properties": {"x": {"enum": ["a"]}}},
            x={"type": "string"},
        )
        self.assertEqual(whole["properties"]["body"], {"$ref": "#/$defs/Pet"})
        properties = whole["$defs"]["Pet"]["properties"]
        self.assertEqual(properties["next"], {"$ref": "#/$defs/Pet"})
        self.assertEqual((properties["gone"], properties["wrong"]), ({}, {}))
        self.assertEqual(len(whole["$defs"]), 3)
        self.assertNotEqual(properties["kind"], properties["x"])

    def test_bounded(self) -> None:
        """Definitions and depth have bounds."""
        self.patch(rest_document, "MAX_DEFINITIONS", 1)
        parts = [{"$ref": f"#/components/schemas/{n}"} for n in "ab"]
        whole = schema_of({"allOf": parts}, a={"type": "object"}, b={"type": "object"})
        self.assertEqual(whole["properties"]["body"]["allOf"], [{"$ref": "#/$defs/a"}, {}])
        deep: dict[str, object] = {"type": "string"}
        for _ in range(40):
            deep = {"not": deep}
        self.assertNotIn("string", str(schema_of(deep)))

    def test_3_0(self) -> None:
        """What 3.0 says in its own way is said in that of JSON Schema."""
        for told, wanted in (
            ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
            (
                {"type": "string", "enum": ["a"], "nullable": True},
                {"type": ["string", "null"], "enum": ["a", None]},
            ),
            ({"enum": [1], "nullable": True}, {"anyOf": [{"enum": [1]}, {"type": "null"}]}),
            ({"nullable": True}, {}),
            ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
            ({"maximum": 1, "exclusiveMaximum": False}, {"maximum": 1}),
            ({"exclusiveMinimum": True}, {}),
            ({"x-own": 1, "xml": {}, "default": {"$ref": "x"}}, {"default": {"$ref": "x"}}),
            (
                {"items": True, "prefixItems": [True, {}]},
                {"items": True, "prefixItems": [True, {}]},
            ),
        ):
            self.assertEqual(schema_of(told)["properties"]["body"], wanted)

    def test_pointers(self) -> None:
        """References go through lists and escapes; a loop of them ends."""
        made = described(
            document(
                {
                    "/x": {"get": {"parameters": [{"$ref": "#/paths/~1y/get/parameters/0"}]}},
                    "/y": {"get": {"parameters": [{"name": "q", "in": "query"}]}},
                    "/z": {"$ref": "#/paths/~1z"},
                    "/w": {"$ref": "#/paths/~1y/get/parameters/7/x"},
                }
            )
        )
        self.assertEqual([one.path for one in made.service.operations], ["/x", "/y"])
        self.assertEqual(made.service.operations[0].parameters[0].name, "q")
