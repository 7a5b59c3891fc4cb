"""
JSON-RPC 2.0 messages: bytes to values and back, within bounds.

`decode` is strict: it reads what clients send, and refuses everything two readers could take to
mean different things (R18 to R20).  `decode_server_line` reads what servers print, and forgives
what does no harm there.  Nothing here looks inside ``params`` or ``result``: fields nobody knows
pass unchanged.  Unknown members beside ``jsonrpc``, ``id``, ``method`` .. are dropped.

How many bytes may come is the reader's business (HTTP body, stdio line), not decided here.
"""

from __future__ import annotations

import gc
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, isinf
from typing import Final, NoReturn, TypeGuard

from mcpgate.errors import BadRequest, GateError, ParseError


@dataclass(frozen=True, slots=True)
class Request:
    """A request: wants an answer under ``id``."""

    id: int | str
    method: str
    params: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification: wants no answer."""

    method: str
    params: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The successful answer to the request ``id``."""

    id: int | str
    result: dict[str, object]


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The failed answer; ``id`` is None where the request's id could not be read."""

    id: int | str | None
    code: int
    message: str
    data: object = None


Message = Request | Notification | Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Batch:
    """Several messages in one array, never empty.  Only revision 2025-03-26 allows it."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """
    How large a document may be once parsed (R18).

    :ivar depth: objects and arrays within each other.
    :ivar nodes: values of every kind, keys not counted.
    :ivar number_chars: characters of one number.
    :ivar id_chars: characters of a message's id.
    :ivar batch: messages in one array.
    """

    depth: int = 64
    nodes: int = 100_000
    number_chars: int = 400
    id_chars: int = 128
    batch: int = 100


DEFAULT_BOUNDS: Final = Bounds()

_BOM: Final = b"\xef\xbb\xbf"
# For depth both kinds of brackets are one; nothing counts but them, and quotes around some.
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')
# What a number is made of, and where one might have an exponent.
_NUMERIC: Final = bytes.maketrans(b"0123456789.eE+-", b"0" * 15)
_EXPONENTS: Final = bytes.maketrans(b"0123456789.E", b"0" * 11 + b"e")
# So many digits no double overflows of.
_DOUBLE_DIGITS: Final = 300
# With so many values it pays to look at the whole text before.
_MANY: Final = 2000
# Where they are longer than this, they are texts.
_PART_BYTES: Final = 32
_HALF_PAIR: Final = re.compile(r"[\ud800-\udfff]")
# Where an answer's own id stands: before the result (Python), or last (TypeScript).
_ID_FIRST: Final = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,\s*'
    rb'(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"\s*:'
)
_ID_LAST: Final = re.compile(
    rb',\s*"id"\s*:\s*(\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z'
)
_TAIL_BYTES: Final = 256

_encode_json = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode


# --- Bytes to messages ------------------------------------------------------------------------


def decode(data: bytes, *, bounds: Bounds = DEFAULT_BOUNDS) -> Message | Batch:
    """
    Read one message, or an array of them, as a client sent it.

    ``params: null`` counts as absent.  An array of which one element is malformed is refused
    whole; whether arrays are allowed at all is for the caller to decide, by revision.

    :raises ParseError: not JSON in UTF-8, or beyond ``bounds``.
    :raises BadRequest: a key twice in one object, or not a legal message.  Ask `salvage_id` for
        the id to answer under.
    """
    return _messages(_load(data, bounds, _decoder(bounds.number_chars, True)), bounds)


def decode_value(data: bytes, *, bounds: Bounds = DEFAULT_BOUNDS) -> object:
    """
    Read any JSON value as strictly as `decode` reads a message.

    :raises ParseError: not JSON in UTF-8, or beyond ``bounds``.
    :raises BadRequest: a key twice in one object.
    """
    return _load(data, bounds, _decoder(bounds.number_chars, True))


def decode_server_line(line: bytes, *, bounds: Bounds = DEFAULT_BOUNDS) -> Message | Batch | None:
    """
    Read one line of a server's stdout; None for what is no message (banners, stray prints).

    Forgiven: a byte order mark, a key twice (the last counts, and only that is passed on), half
    of a surrogate pair (becomes U+FFFD; JavaScript servers that cut a text write it so).
    """
    if line.startswith(_BOM):
        line = line[len(_BOM) :]
    if not line.lstrip().startswith((b"{", b"[")):
        return None
    try:
        value = _load(line, bounds, _decoder(bounds.number_chars, False), mend=True)
        return _messages(value, bounds)
    except GateError:
        return None


def salvage_id(data: bytes, *, bounds: Bounds = DEFAULT_BOUNDS) -> int | str | None:
    """Find the id of a message that `decode` refused with `BadRequest`; None when there is none."""
    try:
        value = _load(data, bounds, _decoder(bounds.number_chars, False))
    except GateError:
        return None
    if isinstance(value, dict):
        found = value.get("id")
        if _is_id(found, bounds):
            return found
    return None


def glimpse_answer_id(line: bytes) -> int | None:
    """
    Guess which request a line answers that `decode_server_line` could not read.

    Knows only integer ids, such as the gate mints, and only where SDKs put them.
    """
    found = _ID_FIRST.match(line) or _ID_LAST.search(line[-_TAIL_BYTES:])
    return int(found[1]) if found and line.lstrip().startswith(b"{") else None


def _load(data: bytes, bounds: Bounds, decoder: json.JSONDecoder, *, mend: bool = False) -> object:
    if data.startswith(_BOM):
        raise ParseError("The body begins with a byte order mark; send plain UTF-8.")
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ParseError(f"The body is not UTF-8 (byte {error.start}).") from None
    # Brackets and commas inside strings count here, so this only ever overestimates.
    openings = data.count(b"[") + data.count(b"{")
    parts = openings + data.count(b",")
    if parts >= bounds.nodes:
        _count_values(data, bounds)
    if openings > bounds.depth:
        _check_depth(data, bounds)
    try:
        if parts < _MANY:
            value: object = decoder.decode(text)
        else:
            value = _parse_many(text, _numbers_checked(data, parts, bounds, decoder))
    except json.JSONDecodeError as error:
        raise ParseError(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    if "\\ud" in text or "\\uD" in text:
        # Only an escape can have made half a pair; written out again, it is easy to find.
        text = _encode_json(value)
        if _HALF_PAIR.search(text) is not None:
            if not mend:
                raise ParseError("A string holds half of a surrogate pair.")
            return decoder.decode(_HALF_PAIR.sub("\ufffd", text))
    return value


def _count_values(data: bytes, bounds: Bounds) -> None:
    """
    Check the number of values before anything is built, all in C.

    Wrong only for what is not JSON, and then only behind the byte the parser stops at.
    """
    too_many = ParseError(f"The body holds more than {bounds.nodes} values.")
    unescaped = _without_escapes(data)
    # At most half of all strings are keys, and each key has a value.
    if unescaped.count(b'"') > 4 * bounds.nodes:
        raise too_many
    structure = b"0".join(unescaped.split(b'"')[::2]).translate(None, b" \t\r\n")
    openings = structure.count(b"[") + structure.count(b"{")
    empties = structure.count(b"[]") + structure.count(b"{}")
    if 1 + openings + structure.count(b",") - empties > bounds.nodes:
        raise too_many


def _check_depth(data: bytes, bounds: Bounds) -> None:
    """Check how deep values are within each other; the rest as in `_count_values`."""
    brackets = _without_escapes(data).translate(_ONE_KIND, _NO_MARKS)
    # What is left of a string without brackets; of two strings side by side it makes one.
    brackets = brackets.replace(b'""', b"")
    if b'"' in brackets:
        brackets = b"".join(brackets.split(b'"')[::2])
    if brackets.count(b"[") <= bounds.depth:
        return
    if 2 * brackets.count(b"]") != len(brackets):
        raise ParseError("The body is not valid JSON: brackets do not match.")
    for _ in range(bounds.depth):
        size = len(brackets)
        # The innermost ones, all over the text.
        brackets = brackets.replace(b"[]", b"")
        if not brackets or len(brackets) == size:
            return
    raise ParseError(f"The body is nested deeper than {bounds.depth} levels.")


def _without_escapes(data: bytes) -> bytes:
    """Leave out what would make a quote look like the end of a string, or hide one."""
    return data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data


def _numbers_checked(
    data: bytes, parts: int, bounds: Bounds, decoder: json.JSONDecoder
) -> json.JSONDecoder:
    """Check the numbers of a text of many values at once; give what parses the rest."""
    if len(data) >= _PART_BYTES * parts:
        return decoder
    long = b"0" * (min(bounds.number_chars, _DOUBLE_DIGITS) + 1)
    if long in data.translate(_NUMERIC) or b"0e" in data.translate(_EXPONENTS):
        return decoder
    return _decoder(0, decoder.object_pairs_hook is not None)


def _parse_many(text: str, decoder: json.JSONDecoder) -> object:
    """Parse without the garbage collector, which would walk through all of it again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        value: object = decoder.decode(text)
    finally:
        if collecting:
            gc.enable()
    return value


@lru_cache(maxsize=16)
def _decoder(number_chars: int, unique_keys: bool) -> json.JSONDecoder:
    """
    Give the decoder with these rules.

    :param number_chars: 0: numbers are known to be within bounds.
    """

    def integer(text: str) -> int:
        if len(text) > number_chars:
            raise ParseError(f"A number has more than {number_chars} characters.")
        return int(text)

    def fraction(text: str) -> float:
        if len(text) > number_chars:
            raise ParseError(f"A number has more than {number_chars} characters.")
        value = float(text)
        if isinf(value):
            raise ParseError("A number is too large for a double.")
        return value

    return json.JSONDecoder(
        object_pairs_hook=_unique if unique_keys else None,
        parse_int=integer if number_chars else None,
        parse_float=fraction if number_chars else None,
        parse_constant=_refuse_constant,
    )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadRequest("A key stands twice in one object.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ParseError(f"{name} is not JSON.")


# --- Values to messages -----------------------------------------------------------------------


def _messages(value: object, bounds: Bounds) -> Message | Batch:
    if not isinstance(value, list):
        return _message(value, bounds)
    if not value:
        raise BadRequest("An empty batch.")
    if len(value) > bounds.batch:
        raise BadRequest(f"More than {bounds.batch} messages in one batch.")
    return Batch(tuple(_message(element, bounds) for element in value))


def _is_id(value: object, bounds: Bounds) -> TypeGuard[int | str]:
    if type(value) is int:
        # Below 2**63 without counting digits.
        return value.bit_length() < 64 or len(str(value)) <= bounds.id_chars
    return type(value) is str and len(value) <= bounds.id_chars


def _message(value: object, bounds: Bounds) -> Message:
    if type(value) is not dict:
        raise BadRequest("A message is a JSON object.")
    if value.get("jsonrpc") != "2.0":
        raise BadRequest('"jsonrpc" must be "2.0".')
    identity = value.get("id")
    if "id" in value and not _is_id(identity, bounds):
        # An error whose request could not be read has no other id than null.
        if identity is not None or "error" not in value:
            raise BadRequest(
                f'"id" must be a string or an integer of at most {bounds.id_chars} characters.'
            )
    if "method" in value:
        return _asking(value, identity)
    return _answering(value, identity)


def _asking(value: dict[str, object], identity: object) -> Request | Notification:
    method = value["method"]
    if type(method) is not str or not method:
        raise BadRequest('"method" must be a string.')
    if "result" in value or "error" in value:
        raise BadRequest("A message is either a request or an answer.")
    params = value.get("params")
    if params is not None and type(params) is not dict:
        raise BadRequest('"params" must be an object.')
    if "id" not in value:
        return Notification(method, params)
    if method.startswith("notifications/"):
        raise BadRequest("A notification has no id.")
    assert isinstance(identity, int | str)
    return Request(identity, method, params)


def _answering(value: dict[str, object], identity: object) -> Response | ErrorResponse:
    if "error" in value:
        if "result" in value:
            raise BadRequest('An answer holds either "result" or "error".')
        error = value["error"]
        if type(error) is not dict:
            raise BadRequest('"error" must be an object.')
        code, text = error.get("code"), error.get("message")
        if type(code) is not int or type(text) is not str:
            raise BadRequest('"error" needs an integer "code" and a string "message".')
        assert identity is None or isinstance(identity, int | str)
        return ErrorResponse(identity, code, text, error.get("data"))
    if "result" not in value:
        raise BadRequest('A message needs one of "method", "result" and "error".')
    if not isinstance(identity, int | str):
        raise BadRequest('An answer needs an "id".')
    result = value["result"]
    if type(result) is not dict:
        raise BadRequest('"result" must be an object.')
    return Response(identity, result)


# --- Messages to bytes ------------------------------------------------------------------------


def encode(message: Message | Batch) -> bytes:
    """
    Write a message as one line: UTF-8, compact, no line break in it or after it.

    Half surrogate pairs (never from `decode`) become ``?``.

    :raises ValueError: a NaN or infinite float; only code of ours can have put it there.
    """
    if isinstance(message, Batch):
        return b"[" + b",".join(encode(element) for element in message.messages) + b"]"
    return _encode_json(_plain(message)).encode("utf-8", "replace")


def _plain(message: Message) -> dict[str, object]:
    value: dict[str, object] = {"jsonrpc": "2.0"}
    if isinstance(message, Response):
        value["id"] = message.id
        value["result"] = message.result
        return value
    if isinstance(message, ErrorResponse):
        value["id"] = message.id
        error: dict[str, object] = {"code": message.code, "message": message.message}
        if message.data is not None:
            error["data"] = message.data
        value["error"] = error
        return value
    if isinstance(message, Request):
        value["id"] = message.id
    value["method"] = message.method
    if message.params is not None:
        value["params"] = message.params
    return value


def error_response(id: int | str | None, error: GateError, request_id: str) -> ErrorResponse:
    """
    Make the answer a client gets for a failure of ours.

    ``data`` holds what the error carries, then ``reason``, ``requestId`` and, where asking again
    makes sense, ``retryAfterMs``.
    """
    data: dict[str, object] = dict(error.data)
    data["reason"] = error.reason
    if error.retry_after_s is not None:
        data["retryAfterMs"] = max(1, ceil(error.retry_after_s * 1000))
    data["requestId"] = request_id
    return ErrorResponse(id, error.code, error.detail, data)
