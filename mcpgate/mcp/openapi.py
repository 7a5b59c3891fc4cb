"""
Tools as the operations of a REST service: the OpenAPI document, and results as plain JSON.

Values in, values out.  Schemas of tools are JSON Schema, as those of OpenAPI 3.1 are, but each is
a document of its own: put into one, its references have to follow, and those that lead out of it
are left out, so that whoever reads the document fetches nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from mcpgate.errors import (
    AuthUnavailable,
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    Draining,
    GateError,
    InvalidParams,
    MethodNotFound,
    MissingCapability,
    Overloaded,
    RateLimited,
    Starting,
    TooLarge,
    ToolAsks,
    ToolFailed,
)
from mcpgate.mcp.jsonrpc import ErrorResponse, decode_value
from mcpgate.mcp.modern import INPUT_REQUIRED

#: A document grows no larger than this; tools that do not fit are counted in it.
DOCUMENT_BYTES: Final = 4 * 1024 * 1024
TEXT_CHARS: Final = 4000
LEFT_OUT: Final = "x-mcpgate-left-out"

_DEPTH: Final = 64
_PLACE: Final = "#/components/schemas/"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_KEY_CHARS: Final = 100
# What is inside is data, not schemas.
_DATA: Final = frozenset({"const", "default", "enum", "example", "examples"})
_MAPS: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)
# They name documents, or places in them by other means than a path.
_DROPPED: Final = frozenset({"$schema", "$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor"})

_ERROR_KEY: Final = "mcpgate_error"
_ERROR: Final[dict[str, object]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["reason", "message"],
            "properties": {
                "reason": {"type": "string"},
                "message": {"type": "string"},
                "requestId": {"type": "string"},
                "retryAfterMs": {"type": "integer"},
            },
        }
    },
}

Tool = Mapping[str, object]


def tool_path(name: str) -> str:
    """Give the path of a tool below its server."""
    return f"/tools/{quote(name, safe='')}"


# --- The document -----------------------------------------------------------------------------


def document(
    tools: Iterable[Tool],
    *,
    title: str,
    version: str,
    url: str,
    limit_bytes: int = DOCUMENT_BYTES,
) -> dict[str, object]:
    """
    Describe tools, each as one POST.

    :param url: where the paths begin.
    :param limit_bytes: tools from the first on that does not fit any more are left out.
    """
    paths: dict[str, object] = {}
    schemas: dict[str, object] = {_ERROR_KEY: _ERROR}
    info: dict[str, object] = {"title": title, "version": version}
    size = left_out = 0
    for tool in tools:
        name = tool.get("name")
        if not isinstance(name, str) or not name or tool_path(name) in paths:
            continue
        own: dict[str, object] = {}
        operation = _operation(name, tool, own)
        size += len(json.dumps([operation, own]))
        if left_out or size > limit_bytes:
            left_out += 1
            continue
        paths[tool_path(name)] = {"post": operation}
        schemas.update(own)
    if left_out:
        info[LEFT_OUT] = left_out
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"apiKey": []}],
    }


def _operation(name: str, tool: Tool, schemas: dict[str, object]) -> dict[str, object]:
    key = _key(name)
    told = tool.get("inputSchema")
    schema = told if isinstance(told, dict) else {"type": "object"}
    _place(schema, f"{key}_input", schemas)
    answer: dict[str, object] = {}
    output = tool.get("outputSchema")
    if isinstance(output, dict):
        _place(output, f"{key}_output", schemas)
        answer = {"$ref": f"{_PLACE}{key}_output"}
    operation: dict[str, object] = {
        "operationId": name,
        "summary": _text(tool.get("title")) or name,
        "requestBody": {
            "required": bool(schema.get("required")),
            "content": {"application/json": {"schema": {"$ref": f"{_PLACE}{key}_input"}}},
        },
        "responses": {
            "200": {
                "description": "What the tool answered.",
                "content": {"application/json": {"schema": answer}},
            },
            "default": {
                "description": "Why it did not.",
                "content": {"application/json": {"schema": {"$ref": _PLACE + _ERROR_KEY}}},
            },
        },
    }
    description = _text(tool.get("description"))
    return {**operation, "description": description} if description else operation


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _key(name: str) -> str:
    """Make a name fit for a component; two that would be alike stay apart."""
    safe = _UNSAFE.sub("_", name)[:_KEY_CHARS]
    if safe == name:
        return safe
    return f"{safe}_{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


# --- Schemas ----------------------------------------------------------------------------------


def _place(schema: Mapping[str, object], key: str, schemas: dict[str, object]) -> None:
    """
    Put a schema among the components, and its definitions beside it, for simple readers.

    Titles of both go: generators name classes by them, and two tools may have the same.
    """
    moved = {"#": _PLACE + key}
    rest = dict(schema)
    held: dict[str, object] = {}
    for word in ("$defs", "definitions"):
        found = rest.pop(word, None)
        if not isinstance(found, dict):
            continue
        for name, value in found.items():
            own = f"{key}_{_key(name)}"
            moved[f"#/{word}/{name.replace('~', '~0').replace('/', '~1')}"] = _PLACE + own
            held[own] = value
    for own, value in {key: rest, **held}.items():
        placed = _moved(value, moved, 0)
        if isinstance(placed, dict):
            placed.pop("title", None)
        schemas[own] = placed


def _moved(value: object, moved: Mapping[str, str], depth: int) -> object:
    if isinstance(value, bool):
        return value
    if depth > _DEPTH or not isinstance(value, dict):
        return {}
    schema: dict[str, object] = {}
    for word, inner in value.items():
        if word in _DROPPED:
            continue
        if word == "$ref":
            target = _target(inner, moved)
            if target:
                schema[word] = target
        elif word in _DATA or not isinstance(inner, dict | list):
            schema[word] = inner
        elif word in _MAPS and isinstance(inner, dict):
            schema[word] = {name: _moved(one, moved, depth + 1) for name, one in inner.items()}
        elif isinstance(inner, list):
            schema[word] = [
                _moved(one, moved, depth + 1) if isinstance(one, dict) else one for one in inner
            ]
        else:
            schema[word] = _moved(inner, moved, depth + 1)
    return schema


def _target(reference: object, moved: Mapping[str, str]) -> str:
    """Tell where a reference leads now; empty when it leads out of its schema."""
    if not isinstance(reference, str):
        return ""
    if reference in moved:
        return moved[reference]
    head, rest = reference, ""
    while "/" in head:
        head, _, step = head.rpartition("/")
        rest = f"/{step}{rest}"
        if head in moved:
            return moved[head] + rest
    return ""


# --- Answers ----------------------------------------------------------------------------------


def plain(result: Mapping[str, object]) -> object:
    """
    Give the result of a call as a plain JSON value.

    Structured content, if there is any; else the one thing that was said, or a list of them:
    texts that are JSON as what they say, images and sound as ``data:`` URLs.

    :raises GateError: it is no success.
    """
    if result.get("resultType") == INPUT_REQUIRED:
        raise ToolAsks
    content = result.get("content")
    parts = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    if result.get("isError") is True:
        texts = [one["text"] for one in parts if isinstance(one.get("text"), str)]
        raise ToolFailed("\n".join(texts)[:TEXT_CHARS])
    structured = result.get("structuredContent")
    if structured is not None:
        return structured
    values = [_part(one) for one in parts]
    return values[0] if len(values) == 1 else (values or None)


def _part(part: Mapping[str, object]) -> object:
    text, data = part.get("text"), part.get("data")
    if part.get("type") == "text" and isinstance(text, str):
        return _read(text)
    if part.get("type") in ("image", "audio") and isinstance(data, str):
        return f"data:{_text(part.get('mimeType'))};base64,{data}"
    return dict(part)


def _read(text: str) -> object:
    try:
        return decode_value(text.encode("utf-8", "surrogatepass"))
    except GateError:
        return text


#: What the gate says of itself, by its codes; other errors are the server's own.
_OURS: Final[Mapping[int, type[GateError]]] = {
    one.code: one
    for one in (
        AuthUnavailable,
        BackendDied,
        BackendTimeout,
        BackendUnavailable,
        Draining,
        InvalidParams,
        MethodNotFound,
        Overloaded,
        RateLimited,
        Starting,
        TooLarge,
    )
}

# How a server ended.
_ENDS: Final = ("exitCode", "signal", "exitReason", "stderr")


def error_of(response: ErrorResponse) -> GateError:
    """Give what a REST client is told in place of an error in words of JSON-RPC."""
    if response.code == MissingCapability.code:
        return ToolAsks()
    data = response.data if isinstance(response.data, dict) else {}
    wait_ms = data.get("retryAfterMs")
    kind = _OURS.get(response.code, ToolFailed)
    return kind(
        response.message[:TEXT_CHARS],
        retry_after_s=wait_ms / 1000 if isinstance(wait_ms, int) and 0 < wait_ms < 1e7 else None,
        data={name: data[name] for name in _ENDS if name in data} if kind is BackendDied else None,
    )
