"""
A JSON Schema of files of MCP servers, for editors: what ``include`` and ``import`` understand.

``python -m mcpgate.config.servers_schema > mcpgate/config/mcp-servers.schema.json`` writes it.
Names of other programs that the gate passes over are not complaints here: the file is theirs, too.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from mcpgate.config import kinds
from mcpgate.config.schema import SERVER, Key

ID: Final = "https://json-schema.org/draft/2020-12/schema"
# Said with these by the entry itself, in the words of other programs.
_ELSEWHERE: Final = frozenset({"command", "url"})
_SAYS_WHAT: Final = ("command", "url", "httpUrl", "serverUrl", "uri", "openapi")

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_SECONDS: Final = {"type": "number", "exclusiveMinimum": 0}


def as_schema() -> dict[str, Any]:
    """Give the schema."""
    servers = {
        "type": "object",
        "maxProperties": 500,
        "additionalProperties": {"$ref": "#/$defs/server"},
    }
    listed = {
        "type": "array",
        "maxItems": 500,
        "items": {"allOf": [{"$ref": "#/$defs/server"}], "required": ["name"]},
    }
    return {
        "$schema": ID,
        "title": "MCP servers",
        "description": "Servers for mcpgate's [gate] include and mcpgate import.",
        "type": "object",
        "properties": {
            "$schema": _TEXT,
            "mcpServers": servers,
            "servers": {"anyOf": [servers, listed]},
            "mcpProxy": {"type": "object"},
        },
        "anyOf": [{"required": ["mcpServers"]}, {"required": ["servers"]}],
        "$defs": {"server": _server(), "mcpgate": _own()},
    }


def _server() -> dict[str, Any]:
    described: dict[str, tuple[dict[str, Any], str]] = {
        "name": (_TEXT, "Of an entry of a list; becomes a-z, 0-9 and -."),
        "command": (
            {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
            "What is run; a docker run line becomes a container of the gate.",
        ),
        "args": ({"type": "array", "items": {"type": ["string", "number"]}}, "Its arguments."),
        "env": (_TEXTS, "Its environment; ${NAME} and ${NAME:-default} are filled in."),
        "cwd": (_TEXT, "Where it is run."),
        "url": (_TEXT, "Of a server elsewhere."),
        "openapi": (_TEXT, "Of a REST service: its OpenAPI document, a path or a URL."),
        "type": (_TEXT, "stdio, http, streamable-http or sse; told from the URL if it is missing."),
        "headers": (_TEXTS, "Fields of every request to it."),
        "timeout": (_SECONDS, "Of a call, in seconds; over 1000 it is milliseconds."),
        "disabled": ({"type": "boolean"}, "Not served."),
        "enabled": ({"type": "boolean"}, "Not served if false."),
        "options": ({"type": "object"}, "Of other proxies; mostly passed over, and said so."),
    }
    properties: dict[str, Any] = {
        name: {**kind, "description": text} for name, (kind, text) in described.items()
    }
    properties["mcpgate"] = {
        "$ref": "#/$defs/mcpgate",
        "description": "Keys of [server:NAME] in gate.ini; they win.",
    }
    return {
        "type": "object",
        "properties": properties,
        "anyOf": [
            *({"required": [name]} for name in _SAYS_WHAT),
            {"required": ["mcpgate"], "properties": {"mcpgate": {"required": ["openapi"]}}},
        ],
    }


def _own() -> dict[str, Any]:
    keys = [key for key in SERVER.keys if key.name not in _ELSEWHERE]
    patterns = {
        f"^{key.name.removesuffix('NAME')}.+$".replace(".", r"\.", 1): _value(key)
        for key in keys
        if key.open
    }
    return {
        "type": "object",
        "properties": {key.name: _value(key) for key in keys if not key.open},
        "patternProperties": patterns,
        "additionalProperties": False,
    }


def _value(key: Key) -> dict[str, Any]:
    told = key.effect.replace("``", "")
    described = {"description": f"{told} Kind: {key.kind.label}."}
    if key.kind is kinds.FLAG:
        return {"anyOf": [{"type": "boolean"}, {"enum": ["on", "off", "yes", "no"]}], **described}
    return {"type": ["string", "number"], **described}


def as_json() -> str:
    """Give the schema as text."""
    return json.dumps(as_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_json())
