"""What the fields of a modern request repeat of its body."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import HeaderMismatch
from mcpgate.mcp.headers import (
    annotated,
    annotation_fault,
    check,
    check_params,
    check_present,
    decode_value,
    encode_value,
    param_fields,
    routing_fields,
)
from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.mcp.modern import META_VERSION, MODERN

META = {META_VERSION: MODERN}
SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "deep": {
            "type": "object",
            "properties": {"dry": {"type": "boolean", "x-mcp-header": "Dry-Run"}},
        },
        "other": {"type": "string"},
    },
}


def asking(method: str = "tools/call", **params: object) -> Request:
    """Make a request."""
    return Request(1, method, {**params, "_meta": META})


def lines(*more: tuple[bytes, bytes], **fields: str) -> list[tuple[bytes, bytes]]:
    """Make field lines; ``_`` stands for ``-``."""
    plain = [(k.replace("_", "-").encode(), v.encode()) for k, v in fields.items()]
    return [(b"host", b"gate.example"), *plain, *more]


CALL = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call"}


class ValueTests(SynchronousTestCase):
    """How values are written."""

    def test_table(self) -> None:
        """Plain where that is safe, Base64 everywhere else."""
        for text, value in (
            ("us-west1", b"us-west1"),
            ("", b""),
            ("a b\tc", b"a b\tc"),
            ("Hello, 世界", b"=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", b"=?base64?IHBhZGRlZCA=?="),
            ("a\nb", b"=?base64?YQpi?="),
            ("=?base64?YQ==?=", b"=?base64?PT9iYXNlNjQ/WVE9PT89?="),
            ("=?BASE64?YQ==?=", b"=?BASE64?YQ==?="),
            ("=?base64?=", b"=?base64?="),
        ):
            self.assertEqual(encode_value(text), value)
            self.assertEqual(decode_value(value), text)

    def test_what_is_broken_is_refused(self) -> None:
        """Bad padding, alphabet, stray bits, UTF-8, and bytes that should have been encoded."""
        for value in (
            b"=?base64?SGVsbG8?=",
            b"=?base64?SGVs!G8=?=",
            b"=?base64?SGVsbG9=?=",
            b"=?base64?/w==?=",
            b"caf\xc3\xa9",
            b"a\x01b",
        ):
            self.assertRaises(HeaderMismatch, decode_value, value)
        self.assertEqual(decode_value(b" \tx\t "), "x")

    @given(st.text(st.characters(codec="utf-8")))
    def test_round_trip(self, text: str) -> None:
        """Whatever the text, it comes back, and its field is visible ASCII."""
        value = encode_value(text)
        self.assertEqual(decode_value(value), text)
        self.assertTrue(all(32 <= byte < 127 or byte == 9 for byte in value))


class RoutingTests(SynchronousTestCase):
    """The fields every request has."""

    def test_what_is_made_agrees(self) -> None:
        """Fields made from a request pass the check of the same request."""
        for request in (
            asking(name="größe"),
            asking("prompts/get", name="p"),
            asking("resources/read", uri="file:///a b"),
            asking("tasks/get", taskId="t-1"),
            asking("tools/list"),
            asking(),
            asking(name=7),
        ):
            if request.params is None or request.params.get("name") != 7:
                check(routing_fields(request, MODERN), request)
        self.assertIn((b"mcp-name", b"p"), routing_fields(asking("prompts/get", name="p"), MODERN))

    def test_contradictions(self) -> None:
        """Missing, double, other and undecodable fields are refused."""
        request = asking(name="search")
        good = lines(**CALL, mcp_name="search")
        check(good, request)
        check(lines(**CALL, mcp_name="=?base64?c2VhcmNo?="), request)
        for bad in (
            lines(mcp_method="tools/call", mcp_name="search"),
            lines(mcp_protocol_version=MODERN, mcp_name="search"),
            lines(**CALL),
            lines(**CALL, mcp_name="Search"),
            lines(**CALL, mcp_name="=?base64?c2VhcmNo?"),
            lines(**{**CALL, "mcp_method": "Tools/call"}, mcp_name="search"),
            lines(**{**CALL, "mcp_protocol_version": "2025-11-25"}, mcp_name="search"),
            [*good, (b"mcp-name", b"search")],
            [*good, (b"mcp-method", b"tools/call")],
            [*good, (b"mcp-protocol-version", MODERN.encode())],
            [*good, (b"mcp-param-a", b"1"), (b"mcp-param-a", b"1")],
            [*good, (b"mcp-param-a", b"=?base64?x?=")],
        ):
            self.assertRaises(HeaderMismatch, check, bad, request)

    def test_a_name_nobody_needs_does_not_matter(self) -> None:
        """On other methods the field says nothing."""
        check(lines(mcp_protocol_version=MODERN, mcp_method="tools/list", mcp_name="x"),
              asking("tools/list"))  # fmt: skip

    def test_notifications(self) -> None:
        """Their fields need not be there; what is there must not lie."""
        told = Notification("notifications/cancelled")
        check_present(lines(mcp_protocol_version=MODERN), told)
        check_present(lines(mcp_method="notifications/cancelled"), told)
        wrong = lines(mcp_method="tools/call")
        self.assertRaises(HeaderMismatch, check_present, wrong, told)


class AnnotationTests(SynchronousTestCase):
    """``x-mcp-header`` in the schemas of tools."""

    def test_where_they_may_stand(self) -> None:
        """Only along properties, on simple types, each name once."""
        self.assertEqual(annotation_fault(SCHEMA), "")
        self.assertEqual(annotation_fault(True), "")
        good = {"type": "string", "x-mcp-header": "A"}
        for schema in (
            {"x-mcp-header": "A", "type": "string"},
            {"properties": {"a": {**good, "type": "number"}}},
            {"properties": {"a": {**good, "type": ["string", "null"]}}},
            {"properties": {"a": {"x-mcp-header": "A"}}},
            {"properties": {"a": {**good, "x-mcp-header": ""}}},
            {"properties": {"a": {**good, "x-mcp-header": "A b"}}},
            {"properties": {"a": {**good, "x-mcp-header": 7}}},
            {"properties": {"a": good, "b": {**good, "x-mcp-header": "a"}}},
            {"properties": {"a": {"type": "array", "items": good}}},
            {"properties": {"a": {"prefixItems": [good]}}},
            {"oneOf": [{"properties": {"a": good}}]},
            {"not": {"properties": {"a": good}}},
            {"$defs": {"a": good}},
        ):
            self.assertNotEqual(annotation_fault(schema), "", schema)
        # Data that looks like one is none.
        data = {"properties": {"a": {"type": "string", "default": {"x-mcp-header": ""}}}}
        self.assertEqual(annotation_fault(data), "")

    def test_fields_of_a_call(self) -> None:
        """Present arguments are told, in the form of the specification."""
        self.assertEqual(
            annotated(SCHEMA),
            {("region",): "Region", ("count",): "Count", ("deep", "dry"): "Dry-Run"},
        )
        arguments: dict[str, Any] = {"region": "köln", "count": 42.0, "deep": {"dry": True}}
        fields = param_fields(SCHEMA, arguments)
        self.assertEqual(
            sorted(fields),
            [
                (b"mcp-param-count", b"42"),
                (b"mcp-param-dry-run", b"true"),
                (b"mcp-param-region", b"=?base64?a8O2bG4=?="),
            ],
        )
        check_params(fields, SCHEMA, arguments)
        self.assertEqual(param_fields(SCHEMA, {"region": None, "deep": 1, "count": 2**60}), [])
        self.assertEqual(param_fields(SCHEMA, "nothing"), [])

    def test_fields_that_do_not_fit(self) -> None:
        """Integers are compared as numbers, everything else as text."""
        check_params([(b"mcp-param-count", b"42.0")], SCHEMA, {"count": 42})
        check_params([(b"mcp-param-unknown", b"x")], SCHEMA, {})
        check_params([], SCHEMA, {"count": None})
        for field, arguments in (
            ((b"mcp-param-count", b"43"), {"count": 42}),
            ((b"mcp-param-count", b"42.5"), {"count": 42.5}),
            ((b"mcp-param-count", b"x"), {"count": 42}),
            ((b"mcp-param-count", b"1"), {}),
            ((b"mcp-param-dry-run", b"True"), {"deep": {"dry": True}}),
            ((b"mcp-param-dry-run", b"1"), {"deep": {"dry": True}}),
            ((b"mcp-param-region", b"us"), {"region": "US"}),
            ((b"mcp-param-other", b"us"), {"region": "us"}),
        ):
            self.assertRaises(HeaderMismatch, check_params, [field], SCHEMA, arguments)
