"""
A tool call as a request to a REST service, and the service's answer as the tool's result.

Values in, values out.  No argument can change which path of the service is called, nor add a field
or a line to the request.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from mcpgate.errors import GateError, InvalidParams
from mcpgate.mcp.jsonrpc import decode_value
from mcpgate.mcp.modern import COMPLETE
from mcpgate.model import RESTOperation, RESTParameter

TARGET_BYTES: Final = 8000
FIELD_CHARS: Final = 4000
# What is shown of an answer that is an error.
ERROR_CHARS: Final = 8000

_FORM: Final = "application/x-www-form-urlencoded"
_JOINED: Final = {"spaceDelimited": " ", "pipeDelimited": "|"}

Lines = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Call:
    """A request: ``target`` is path and query, below where the service begins."""

    method: str
    target: str
    fields: Lines
    body: bytes


def call_of(operation: RESTOperation, arguments: Mapping[str, object]) -> Call:
    """
    Make the request of a tool call.

    :raises InvalidParams: the arguments are not those of the tool.
    """
    known = {one.argument for one in operation.parameters} | {operation.body}
    for name in arguments:
        if name not in known or not name:
            raise InvalidParams(f"{name[:100]} is no argument of {operation.name}.")
    path = operation.path
    parts: dict[str, str] = {}
    query: list[str] = []
    fields: Lines = [(b"accept", b"application/json, */*;q=0.5")]
    for parameter in operation.parameters:
        value = arguments.get(parameter.argument)
        if value is None:
            if parameter.required:
                raise InvalidParams(f"{parameter.argument} is missing.")
            continue
        if parameter.place == "path":
            parts[parameter.name] = _segment(parameter, value)
        elif parameter.place == "query":
            query += _query(parameter, value)
        else:
            fields.append((parameter.name.lower().encode("ascii"), _field(parameter, value)))
    target = _filled(path, parts)
    if query:
        target += "?" + "&".join(query)
    if len(target) > TARGET_BYTES:
        raise InvalidParams("The arguments are too long for an address.")
    body = _body(operation, arguments.get(operation.body) if operation.body else None)
    if operation.body and body is not None:
        fields.append((b"content-type", operation.media.encode("latin-1", "replace")))
    return Call(operation.method, target, fields, body or b"")


def _filled(path: str, parts: Mapping[str, str]) -> str:
    out: list[str] = []
    rest = path
    while True:
        before, brace, after = rest.partition("{")
        out.append(quote(before, safe="/:@!$&'()*+,;=~%"))
        if not brace:
            break
        name, _, rest = after.partition("}")
        if name not in parts:
            raise InvalidParams(f"The path needs {name[:100]}.")
        out.append(parts[name])
    filled = "".join(out)
    if any(step in (".", "..") for step in filled.split("/")):
        raise InvalidParams("An argument of the path may not be a dot.")
    return filled


def _words(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _pairs(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, _words(inner)


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise InvalidParams("An argument holds half of a surrogate pair.") from None


def _listed(parameter: RESTParameter, value: object) -> list[str]:
    """Give the parts of a value that is written as a list."""
    if isinstance(value, list):
        return [_words(one) for one in value]
    if isinstance(value, dict):
        if parameter.explode:
            return [f"{name}={inner}" for name, inner in _pairs(value)]
        return [part for pair in _pairs(value) for part in pair]
    return [_words(value)]


def _segment(parameter: RESTParameter, value: object) -> str:
    if parameter.style == "json":
        return _quoted(_words(value))
    text = ",".join(_quoted(one) for one in _listed(parameter, value))
    if not text:
        raise InvalidParams(f"{parameter.argument} may not be empty.")
    if parameter.style == "label":
        return f".{text}"
    return f";{_quoted(parameter.name)}={text}" if parameter.style == "matrix" else text


def _query(parameter: RESTParameter, value: object) -> list[str]:
    name = _quoted(parameter.name)
    if parameter.style == "json":
        return [f"{name}={_quoted(json.dumps(value))}"]
    if isinstance(value, dict) and parameter.style == "deepObject":
        return [f"{name}%5B{_quoted(key)}%5D={_quoted(inner)}" for key, inner in _pairs(value)]
    if isinstance(value, dict) and parameter.explode:
        return [f"{_quoted(key)}={_quoted(inner)}" for key, inner in _pairs(value)]
    parts = _listed(parameter, value)
    if parameter.explode:
        return [f"{name}={_quoted(one)}" for one in parts]
    mark = _quoted(_JOINED.get(parameter.style, ","))
    return [f"{name}={(',' if mark == '%2C' else mark).join(_quoted(one) for one in parts)}"]


def _field(parameter: RESTParameter, value: object) -> bytes:
    text = json.dumps(value) if parameter.style == "json" else ",".join(_listed(parameter, value))
    if not text.isascii() or not text.isprintable() or len(text) > FIELD_CHARS:
        raise InvalidParams(f"{parameter.argument} can not stand in an HTTP field.")
    return text.strip().encode("ascii")


def _body(operation: RESTOperation, value: object) -> bytes | None:
    if value is None:
        if operation.body_required:
            raise InvalidParams(f"{operation.body} is missing.")
        return None
    kind = operation.media.partition(";")[0].strip().lower()
    try:
        if kind == _FORM:
            if not isinstance(value, dict):
                raise InvalidParams(f"{operation.body} must be an object.")
            flat = {
                name: [_words(one) for one in inner] if isinstance(inner, list) else _words(inner)
                for name, inner in value.items()
            }
            return urlencode(flat, doseq=True).encode("ascii")
        if kind == "text/plain":
            return _words(value).encode("utf-8")
        return json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidParams("An argument holds half of a surrogate pair.") from None


# --- Answers ----------------------------------------------------------------------------------


def result_of(status: int, content_type: str, body: bytes) -> dict[str, object]:
    """
    Make the result of a call.

    JSON is told as text, and an object as structured content too; pictures and sound as such,
    other bytes as an embedded resource.  Any status but 2xx is a failure of the tool, redirects
    among them: they are not followed.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not 200 <= status < 300:
        text = body.decode("utf-8", "replace")[:ERROR_CHARS].strip() if _is_text(kind) else ""
        told = f"The service answered HTTP {status}."
        return {
            "resultType": COMPLETE,
            "content": [{"type": "text", "text": f"{told}\n{text}" if text else told}],
            "isError": True,
        }
    result: dict[str, object] = {"resultType": COMPLETE, "content": []}
    if not body:
        return result
    if _is_text(kind):
        text = body.decode("utf-8", "replace")
        result["content"] = [{"type": "text", "text": text}]
        value = _json(body) if _is_json(kind) else None
        if isinstance(value, dict):
            result["structuredContent"] = value
        return result
    data = b64encode(body).decode("ascii")
    for family in ("image", "audio"):
        if kind.startswith(f"{family}/"):
            result["content"] = [{"type": family, "data": data, "mimeType": kind}]
            return result
    resource = {
        "uri": "rest:answer",
        "mimeType": kind or "application/octet-stream",
        "blob": data,
    }
    result["content"] = [{"type": "resource", "resource": resource}]
    return result


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _is_text(kind: str) -> bool:
    return (
        _is_json(kind)
        or kind.startswith("text/")
        or kind.endswith("+xml")
        or kind in ("application/xml", "application/x-ndjson", "application/yaml")
    )


def _json(body: bytes) -> object:
    try:
        return decode_value(body)
    except GateError:
        return None
