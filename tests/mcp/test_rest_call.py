"""Tests of mcpgate.mcp.rest_call."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import InvalidParams
from mcpgate.mcp.rest_call import Call, call_of, result_of
from mcpgate.model import RESTOperation, RESTParameter


def parameter(name: str, place: str = "query", **more: Any) -> RESTParameter:
    """Make a parameter as most are."""
    style = {"query": "form"}.get(place, "simple")
    plain = {"style": style, "explode": style == "form", "required": place == "path"}
    return RESTParameter(argument=name, name=name, place=place, **{**plain, **more})


def operation(*parameters: RESTParameter, path: str = "/x", **more: Any) -> RESTOperation:
    """Make an operation."""
    return RESTOperation(
        name="t", method="GET", path=path, parameters=parameters, tool="{}", **more
    )


class TargetTests(SynchronousTestCase):
    """Arguments in the address."""

    def target(self, one: RESTParameter, value: object, path: str = "/x") -> str:
        """Give the address for one argument."""
        return call_of(operation(one, path=path), {one.argument: value}).target

    def test_query(self) -> None:
        """Values are written as the document says, and nothing in them means anything."""
        for more, value, wanted in (
            ({}, "a&b=c#?", "/x?q=a%26b%3Dc%23%3F"),
            ({}, True, "/x?q=true"),
            ({}, 1.5, "/x?q=1.5"),
            ({}, [1, "b"], "/x?q=1&q=b"),
            ({"explode": False}, [1, "b,c"], "/x?q=1,b%2Cc"),
            ({"explode": False, "style": "spaceDelimited"}, ["a", "b"], "/x?q=a%20b"),
            ({"explode": False, "style": "pipeDelimited"}, ["a", "b"], "/x?q=a%7Cb"),
            ({}, {"a": 1, "b": "c"}, "/x?a=1&b=c"),
            ({"explode": False}, {"a": 1}, "/x?q=a,1"),
            ({"style": "deepObject"}, {"a": {"b": 1}}, "/x?q%5Ba%5D=%7B%22b%22%3A1%7D"),
            ({"style": "json"}, {"a": 1}, "/x?q=%7B%22a%22%3A%201%7D"),
        ):
            self.assertEqual(self.target(parameter("q", **more), value), wanted)
        self.assertEqual(self.target(parameter("q"), None), "/x")

    def test_path(self) -> None:
        """An argument stays within its own step of the path."""
        for more, value, wanted in (
            ({}, "a/../b", "/y/a%2F..%2Fb/z"),
            ({}, ["a", "b"], "/y/a,b/z"),
            ({}, {"a": 1}, "/y/a,1/z"),
            ({"explode": True}, {"a": 1}, "/y/a%3D1/z"),
            ({"style": "label"}, "a", "/y/.a/z"),
            ({"style": "matrix"}, "a", "/y/;p=a/z"),
            ({"style": "json"}, {}, "/y/%7B%7D/z"),
        ):
            self.assertEqual(self.target(parameter("p", "path", **more), value, "/y/{p}/z"), wanted)
        bad: object
        for bad in ("", ".", "..", [], "\ud800", None):
            with self.assertRaises(InvalidParams):
                self.target(parameter("p", "path"), bad, "/y/{p}/z")

    def test_not_filled(self) -> None:
        """A path that names what is no parameter can not be called."""
        with self.assertRaises(InvalidParams):
            call_of(operation(path="/{a}"), {})

    def test_too_long(self) -> None:
        """An address has a bound."""
        with self.assertRaises(InvalidParams):
            self.target(parameter("q"), "x" * 9000)

    def test_unknown(self) -> None:
        """An argument that is none of the tool's is refused."""
        for name in ("other", ""):
            with self.assertRaises(InvalidParams):
                call_of(operation(parameter("q")), {name: 1})


class FieldTests(SynchronousTestCase):
    """Arguments in fields."""

    def test_field(self) -> None:
        """Values are text of one line."""
        one = parameter("X-Trace", "header")
        call = call_of(operation(one), {"X-Trace": ["a", 1]})
        self.assertIn((b"x-trace", b"a,1"), call.fields)
        call = call_of(operation(parameter("X-T", "header", style="json")), {"X-T": {"a": 1}})
        self.assertIn((b"x-t", b'{"a": 1}'), call.fields)
        for value in ("a\r\nHost: b", "é", "x" * 5000):
            with self.assertRaises(InvalidParams):
                call_of(operation(one), {"X-Trace": value})


class BodyTests(SynchronousTestCase):
    """The argument that is the body."""

    def call(self, value: object, media: str = "application/json", *, needed: bool = False) -> Call:
        """Call with a body."""
        made = operation(body="body", media=media, body_required=needed)
        return call_of(made, {} if value is None else {"body": value})

    def test_kinds(self) -> None:
        """It is written as its media type says."""
        form = "application/x-www-form-urlencoded"
        self.assertEqual(self.call({"a": "é"}).body, '{"a": "é"}'.encode())
        self.assertEqual(self.call({"a": [1, "&"], "b": True}, form).body, b"a=1&a=%26&b=true")
        self.assertEqual(self.call("hello", "text/plain; charset=utf-8").body, b"hello")
        self.assertIn((b"content-type", b"application/json"), self.call([]).fields)

    def test_none(self) -> None:
        """It may be left out where it is not needed."""
        self.assertEqual(self.call(None).body, b"")
        self.assertNotIn(b"content-type", dict(self.call(None).fields))

    def test_bad(self) -> None:
        """What can not be written is refused."""
        for value, media, needed in (
            (None, "application/json", True),
            ("x", "application/x-www-form-urlencoded", False),
            ("\ud800", "application/json", False),
        ):
            with self.assertRaises(InvalidParams):
                self.call(value, media, needed=needed)


class ResultTests(SynchronousTestCase):
    """Answers as results."""

    def test_json(self) -> None:
        """JSON is text; an object is structured as well."""
        result = result_of(200, "application/problem+json; charset=utf-8", b'{"a": 1}')
        self.assertEqual(result["structuredContent"], {"a": 1})
        self.assertEqual(result["content"], [{"type": "text", "text": '{"a": 1}'}])
        for body in (b"[1]", b"{"):
            self.assertNotIn("structuredContent", result_of(200, "application/json", body))

    def test_kinds(self) -> None:
        """Pictures and sound are what they are, other bytes are passed on whole."""
        for kind, wanted in (
            ("text/html", {"type": "text", "text": "x"}),
            ("image/png", {"type": "image", "data": "eA==", "mimeType": "image/png"}),
            ("audio/wav", {"type": "audio", "data": "eA==", "mimeType": "audio/wav"}),
            (
                "",
                {
                    "type": "resource",
                    "resource": {
                        "uri": "rest:answer",
                        "mimeType": "application/octet-stream",
                        "blob": "eA==",
                    },
                },
            ),
        ):
            self.assertEqual(result_of(200, kind, b"x")["content"], [wanted])
        self.assertEqual(result_of(204, "", b"")["content"], [])

    def test_failures(self) -> None:
        """Other statuses are failures, told with what the service says."""
        result = result_of(404, "application/json", b'{"why": "gone"}')
        told = 'The service answered HTTP 404.\n{"why": "gone"}'
        self.assertTrue(result["isError"])
        self.assertEqual(result["content"], [{"type": "text", "text": told}])
        told = "The service answered HTTP 302."
        result = result_of(302, "image/png", b"x")
        self.assertEqual(result["content"], [{"type": "text", "text": told}])
