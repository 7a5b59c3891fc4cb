"""JSON-RPC messages: what is read, what is refused, how it is written."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadRequest, GateError, Overloaded, ParseError
from mcpgate.mcp.jsonrpc import (
    Batch,
    Bounds,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    decode,
    decode_server_line,
    decode_value,
    encode,
    error_response,
    glimpse_answer_id,
    salvage_id,
)


def request(params: bytes = b"{}", id: bytes = b"1", method: bytes = b'"m"') -> bytes:
    """Write a request of raw JSON parts."""
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (id, method, params)


def value(inner: bytes) -> bytes:
    """Write a request that holds one raw JSON value."""
    return request(b'{"v":%b}' % inner)


# What is refused, and how.  R18: -32700; R19, R20: -32600.
REFUSED: list[tuple[str, bytes, type[GateError]]] = [
    ("nothing", b"", ParseError),
    ("white space", b" \n", ParseError),
    ("a word", b"hello", ParseError),
    ("cut off", b'{"jsonrpc":"2.0","id":1,', ParseError),
    ("a second document", request() + b"{}", ParseError),
    ("trailing comma", value(b"[1,]"), ParseError),
    ("single quotes", b"{'jsonrpc':'2.0'}", ParseError),
    ("comment", request() + b"//x", ParseError),
    ("65 arrays", value(b"[" * 63 + b"]" * 63), ParseError),
    ("a hundred thousand arrays", b"[" * 100_000, ParseError),
    ("a million objects", b'{"a":' * 1_000_000, ParseError),
    ("closed too often", value(b"[" * 70 + b"]" * 80), ParseError),
    ("100 001 values", value(b"[" + b"1," * 100_000 + b"1]"), ParseError),
    ("100 001 strings", value(b"[" + b'"",' * 100_000 + b'""]'), ParseError),
    ("very many strings", value(b"[" + b'"",' * 300_000 + b'""]'), ParseError),
    ("401 digits", value(b"1" * 401), ParseError),
    ("401 digits in a fraction", value(b"1." + b"1" * 400), ParseError),
    ("10 000 digits", value(b"1" * 10_000), ParseError),
    ("401 characters of exponent", value(b"1e" + b"0" * 400), ParseError),
    ("bad UTF-8", value(b'"\xff"'), ParseError),
    ("overlong UTF-8", value(b'"\xc0\xaf"'), ParseError),
    ("surrogate in UTF-8", value(b'"\xed\xa0\x80"'), ParseError),
    ("cut UTF-8", value(b'"\xe2\x82"'), ParseError),
    ("UTF-16", request().decode().encode("utf-16-le"), ParseError),
    ("byte order mark", b"\xef\xbb\xbf" + request(), ParseError),
    ("NaN", value(b"NaN"), ParseError),
    ("Infinity", value(b"Infinity"), ParseError),
    ("-Infinity", value(b"-Infinity"), ParseError),
    ("float overflow", value(b"1e999"), ParseError),
    ("negative float overflow", value(b"-1e999"), ParseError),
    ("high surrogate", value(rb'"\ud83d"'), ParseError),
    ("low surrogate", value(rb'"\ude00"'), ParseError),
    ("surrogates swapped", value(rb'"\uDE00\uD83D"'), ParseError),
    ("two high surrogates", value(rb'"\ud83d\ud83d\ude00"'), ParseError),
    ("surrogate in a key", request(rb'{"\udfff":1}'), ParseError),
    ("line break in a string", value(b'"\n"'), ParseError),
    ("NUL in a string", value(b'"\0"'), ParseError),
    ("method twice", b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}', BadRequest),
    ("id twice", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}', BadRequest),
    ("a deep key twice", value(b'[{"a":{"b":1,"b":1}}]'), BadRequest),
    ("a key twice, once escaped", request(rb'{"a":1,"\u0061":2}'), BadRequest),
    ("a string", b'"x"', BadRequest),
    ("a number", b"1", BadRequest),
    ("null", b"null", BadRequest),
    ("no version", b'{"id":1,"method":"a"}', BadRequest),
    ("version 1.0", b'{"jsonrpc":"1.0","id":1,"method":"a"}', BadRequest),
    ("version as number", b'{"jsonrpc":2.0,"id":1,"method":"a"}', BadRequest),
    ("id null", request(id=b"null"), BadRequest),
    ("id float", request(id=b"1.0"), BadRequest),
    ("id true", request(id=b"true"), BadRequest),
    ("id object", request(id=b"{}"), BadRequest),
    ("id array", request(id=b"[1]"), BadRequest),
    ("id of 129 characters", request(id=b'"%b"' % (b"x" * 129)), BadRequest),
    ("id of 129 digits", request(id=b"1" * 129), BadRequest),
    ("method number", request(method=b"1"), BadRequest),
    ("method null", request(method=b"null"), BadRequest),
    ("method empty", request(method=b'""'), BadRequest),
    ("params array", request(b"[]"), BadRequest),
    ("params string", request(b'"x"'), BadRequest),
    ("notification with id", request(method=b'"notifications/initialized"'), BadRequest),
    ("request and answer", b'{"jsonrpc":"2.0","id":1,"method":"a","result":{}}', BadRequest),
    ("result and error", b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', BadRequest),
    ("neither", b'{"jsonrpc":"2.0","id":1}', BadRequest),
    ("result without id", b'{"jsonrpc":"2.0","result":{}}', BadRequest),
    ("result of id null", b'{"jsonrpc":"2.0","id":null,"result":{}}', BadRequest),
    ("result array", b'{"jsonrpc":"2.0","id":1,"result":[]}', BadRequest),
    ("error text", b'{"jsonrpc":"2.0","id":1,"error":"x"}', BadRequest),
    ("error without code", b'{"jsonrpc":"2.0","id":1,"error":{"message":"x"}}', BadRequest),
    (
        "error with float code",
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":""}}',
        BadRequest,
    ),
    ("error without message", b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}', BadRequest),
    ("empty batch", b"[]", BadRequest),
    ("batch in a batch", b"[[%b]]" % request(), BadRequest),
    ("batch with a bad element", b"[%b,{}]" % request(), BadRequest),
    ("batch of 101", b"[" + b",".join([request()] * 101) + b"]", BadRequest),
]

ACCEPTED: list[tuple[str, bytes, Message | Batch]] = [
    ("request", request(), Request(1, "m", {})),
    ("spaces", b" \t\r\n" + request() + b"\n", Request(1, "m", {})),
    ("no params", b'{"jsonrpc":"2.0","id":1,"method":"m"}', Request(1, "m")),
    ("params null", request(b"null"), Request(1, "m")),
    ("id 0", request(id=b"0"), Request(0, "m", {})),
    ("id text 0", request(id=b'"0"'), Request("0", "m", {})),
    ("id empty text", request(id=b'""'), Request("", "m", {})),
    ("id negative", request(id=b"-5"), Request(-5, "m", {})),
    ("id of 128 characters", request(id=b'"%b"' % (b"x" * 128)), Request("x" * 128, "m", {})),
    ("id of 128 digits", request(id=b"1" * 128), Request(int("1" * 128), "m", {})),
    (
        "64 levels",
        value(b"[" * 62 + b"]" * 62),
        Request(1, "m", {"v": json.loads("[" * 62 + "]" * 62)}),
    ),
    ("brackets in a string", value(b'"%b"' % (b"[{" * 99)), Request(1, "m", {"v": "[{" * 99})),
    ("quotes in a string", value(rb'["\"[[\\",1]'), Request(1, "m", {"v": ['"[[\\', 1]})),
    ("400 digits", value(b"1" * 400), Request(1, "m", {"v": int("1" * 400)})),
    ("surrogate pair", value(rb'"\ud83d\uDE00"'), Request(1, "m", {"v": "\U0001f600"})),
    ("escaped backslash", value(rb'"\\ud83d"'), Request(1, "m", {"v": "\\ud83d"})),
    ("unknown member", b'{"x":1,"jsonrpc":"2.0","id":1,"method":"m"}', Request(1, "m")),
    (
        "notification",
        b'{"jsonrpc":"2.0","method":"notifications/x"}',
        Notification("notifications/x"),
    ),
    ("result", b'{"result":{"a":1},"jsonrpc":"2.0","id":"q"}', Response("q", {"a": 1})),
    (
        "error",
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no","data":[1]}}',
        ErrorResponse(1, -1, "no", [1]),
    ),
    (
        "error without id",
        b'{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}}',
        ErrorResponse(None, -1, "no"),
    ),
    (
        "error of id null",
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}',
        ErrorResponse(None, -1, "no"),
    ),
    (
        "batch",
        b"[%b,%b]" % (request(), request(id=b"2")),
        Batch((Request(1, "m", {}), Request(2, "m", {}))),
    ),
]

json_values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
json_objects: Any = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=4
)
ids: Any = st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=128)
messages: Any = (
    st.builds(Request, ids, st.text("abc/", min_size=1), st.none() | json_objects)
    | st.builds(Notification, st.text("abc/", min_size=1), st.none() | json_objects)
    | st.builds(Response, ids, json_objects)
    | st.builds(ErrorResponse, st.none() | ids, st.integers(), st.just("x"), json_values)
)


class DecodeTests(SynchronousTestCase):
    """Reading what clients send."""

    def test_refused(self) -> None:
        """Everything ambiguous, broken or too large is refused with its JSON-RPC code."""
        for name, data, error in REFUSED:
            with self.subTest(name):
                self.assertRaises(error, decode, data)

    def test_accepted(self) -> None:
        """Legal messages come out as values, types of ids kept."""
        for name, data, message in ACCEPTED:
            with self.subTest(name):
                self.assertEqual(decode(data), message)

    def test_exactly_the_bound(self) -> None:
        """A document of exactly as many values as allowed is read, one more is refused."""
        for inner in (b"[1,2,3]", b'["[",[],{ }]', b'[{"a":1},2]'):
            data = value(inner)
            bounds = Bounds(nodes=9)
            self.assertIsInstance(decode(data, bounds=bounds), Request)
            self.assertRaises(ParseError, decode, data, bounds=replace(bounds, nodes=8))

    def test_codes(self) -> None:
        """Broken JSON is -32700, a broken message -32600, both HTTP 400."""
        self.assertEqual((ParseError.code, ParseError.status), (-32700, 400))
        self.assertEqual((BadRequest.code, BadRequest.status), (-32600, 400))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes, the outcome is a message or a clean refusal."""
        for text in (data, value(data)):
            try:
                decode(text)
            except GateError as error:
                self.assertIn(error.code, (-32700, -32600))
            decode_server_line(text)
            salvage_id(text)
            glimpse_answer_id(text)

    @settings(max_examples=100, deadline=None)
    @given(messages)
    def test_round_trip(self, message: Message) -> None:
        """What is written reads back as the same value, from one line."""
        line = encode(message)
        self.assertNotIn(b"\n", line)
        self.assertNotIn(b"\r", line)
        self.assertEqual(decode(line), message)
        self.assertEqual(decode_server_line(line), message)


class ManyValuesTests(SynchronousTestCase):
    """Messages of very many values: the same rules, checked for all at once."""

    bounds = Bounds(depth=5, nodes=100_000, number_chars=400)

    def read(self, inner: bytes) -> object:
        """Read a value among many others."""
        message = decode_value(b"[%b[%b]]" % (b"1," * 5000, inner), bounds=self.bounds)
        assert isinstance(message, list)
        return message[-1][0]

    def test_numbers(self) -> None:
        """Numbers are what they are in a small message."""
        for text in (b"12", b"-0.5", b"1e3", b"1E-3", b"9" * 300, b"1" * 399, b"0." + b"3" * 380):
            self.assertEqual(self.read(text), json.loads(text))
        self.assertEqual(self.read(b'"%b"' % (b"9" * 900)), "9" * 900)
        for text in (b"9" * 401, b"1e999", b"-1E999", b"1.5e400", b"1" * 350 + b".0"):
            with self.assertRaises(ParseError):
                self.read(text)

    def test_keys(self) -> None:
        """A key twice is found."""
        self.assertEqual(self.read(b'{"a":1,"b":1}'), {"a": 1, "b": 1})
        with self.assertRaises(BadRequest):
            self.read(b'{"a":1,"a":1}')

    def test_collector(self) -> None:
        """The garbage collector works on as it did, whatever is read."""
        self.read(b"1")
        self.assertTrue(gc.isenabled())
        with self.assertRaises(ParseError):
            self.read(b"x")
        self.assertTrue(gc.isenabled())
        gc.disable()
        try:
            self.read(b"1")
            self.assertFalse(gc.isenabled())
        finally:
            gc.enable()

    @settings(max_examples=300, deadline=None)
    @given(
        st.recursive(
            st.none() | st.text(st.sampled_from('[]{}",\\a:')),
            lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}"\\'), inner),
            max_leaves=30,
        )
    )
    def test_depth(self, value: object) -> None:
        """Depth is counted as it is, whatever brackets, quotes and escapes stand in texts."""

        def depth(one: object) -> int:
            if isinstance(one, dict):
                one = list(one.values())
            return 1 + max(map(depth, one), default=0) if isinstance(one, list) else 0

        data = json.dumps(value).encode()
        deep = depth(value)
        for most in (1, 2, 3, 5):
            bounds = replace(self.bounds, depth=most)
            if deep <= most:
                self.assertEqual(decode_value(data, bounds=bounds), value)
            else:
                with self.assertRaises(ParseError):
                    decode_value(data, bounds=bounds)

    def test_brackets_that_do_not_match(self) -> None:
        """What is not JSON is refused, however its brackets stand."""
        for inner in (b"[" * 9, b"]" * 9, b"][" * 9, b"[}" * 9, b"[" * 9 + b"}" * 9, b'"[' * 9):
            with self.assertRaises(ParseError):
                self.read(inner)


class EncodeTests(SynchronousTestCase):
    """Writing messages."""

    def test_compact_utf8(self) -> None:
        """Texts stay readable UTF-8 and line breaks are escaped."""
        self.assertEqual(
            encode(Request("é", "m", {"t": "a\nb\u2028"})),
            '{"jsonrpc":"2.0","id":"é","method":"m","params":{"t":"a\\nb\u2028"}}'.encode(),
        )

    def test_batch(self) -> None:
        """A batch is an array."""
        self.assertEqual(
            encode(Batch((Notification("a"), ErrorResponse(None, 1, "x")))),
            b'[{"jsonrpc":"2.0","method":"a"},'
            b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}]',
        )

    def test_half_pair(self) -> None:
        """A broken text of our own making does not break the answer."""
        self.assertEqual(encode(Notification("a\ud800")), b'{"jsonrpc":"2.0","method":"a?"}')

    def test_nan(self) -> None:
        """NaN is never written."""
        self.assertRaises(ValueError, encode, Response(1, {"a": float("nan")}))

    def test_error_response(self) -> None:
        """A failure tells its reason, when to try again and the request's id."""
        error = Overloaded("full", retry_after_s=1.5, data={"sent": False})
        self.assertEqual(
            error_response(0, error, "req-1"),
            ErrorResponse(
                0,
                -31005,
                "full",
                {"sent": False, "reason": "overloaded", "retryAfterMs": 1500, "requestId": "req-1"},
            ),
        )
        plain = error_response(None, BadRequest(), "r")
        self.assertEqual(plain.data, {"reason": "bad_request", "requestId": "r"})


class ServerLineTests(SynchronousTestCase):
    """Reading what servers print."""

    def test_noise(self) -> None:
        """Banners, blank lines, plain JSON and broken bytes are no messages."""
        for line in (
            b"", b"   ", b"Server running on stdio", b"{ not json", b"[INFO] ready", b"{}", b"12",
            b'"x"', b"null", b'{"level":30,"msg":"up"}', b'{"jsonrpc":"2.0","id":1,"result":{}} x',
            b'\xff\xfe{"jsonrpc"', b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}', b"[" * 99,
        ):  # fmt: skip
            with self.subTest(line):
                self.assertIdentical(decode_server_line(line), None)

    def test_forgiven(self) -> None:
        """Small sins of servers do not lose the answer."""
        good = Response(1, {"a": 2})
        for line in (
            b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"result":{"a":2}}',
            b'  {"jsonrpc":"2.0","id":1,"result":{"a":2}}\r',
            b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}',
        ):
            with self.subTest(line):
                self.assertEqual(decode_server_line(line), good)

    def test_half_pair_mended(self) -> None:
        """A text cut in the middle of an emoji arrives with a replacement character."""
        self.assertEqual(
            decode_server_line(rb'{"jsonrpc":"2.0","id":1,"result":{"a":"x\ud83d","b":"\\ud83d"}}'),
            Response(1, {"a": "x\ufffd", "b": "\\ud83d"}),
        )


class SalvageTests(SynchronousTestCase):
    """Finding the id of what can not be read as a message."""

    def test_salvage(self) -> None:
        """The refusal of a malformed request can carry the request's own id."""
        self.assertEqual(salvage_id(b'{"id":"a","method":"x"}'), "a")
        self.assertEqual(salvage_id(b'{"id":0,"id":0}'), 0)
        for data in (b'{"id":null}', b'{"id":1.5}', b"[]", b"{", b'{"method":"x"}'):
            self.assertIdentical(salvage_id(data), None)

    def test_glimpse(self) -> None:
        """An unreadable answer still tells which request it belongs to."""
        for line, found in (
            (b'{"jsonrpc":"2.0","id":7,"result":{"a":NaN}}', 7),
            (b'{"id":7,"jsonrpc":"2.0","result":[]}', 7),
            (b'{"result":"x","jsonrpc":"2.0","id":8}', 8),
            (b'{"result":"x","id":8,"jsonrpc":"2.0"}\r', 8),
            (b'{"jsonrpc":"2.0","result":{"id":9}}', None),
            (b'{"jsonrpc":"2.0","id":7,"method":"x","params":[]}', None),
            (b'say ,"id":8}', None),
        ):
            with self.subTest(line):
                self.assertEqual(glimpse_answer_id(line), found)
