"""
An OpenAPI document (3.0 or 3.1) as the tools of an MCP server.

Values in, values out; that the document is valid, and refers to nothing but itself, was checked.
Parameters and body become one schema: each parameter an argument of its name, the body the
argument ``body``.  Schemas that are referred to become definitions of the tool's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

from mcpgate.model import RESTOperation, RESTParameter, RESTService

MAX_TOOLS: Final = 1000
MAX_DEFINITIONS: Final = 200
TOOL_BYTES: Final = 256 * 1024
NAME_CHARS: Final = 64
TEXT_CHARS: Final = 8000

_DIGEST_CHARS: Final = 8
_DEPTH: Final = 32
_STEPS: Final = 8
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_IDEMPOTENT: Final = frozenset({"get", "head", "options", "put", "delete"})
_READING: Final = frozenset({"get", "head", "options"})
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_BODIES: Final = ("application/json", "application/x-www-form-urlencoded", "text/plain")
_STYLES: Final = {"path": "simple", "query": "form", "header": "simple"}
# The gate's own, or the operator's, to say.
_NOT_ARGUMENTS: Final = frozenset(
    "accept accept-encoding authorization connection content-length content-type cookie expect "
    "host keep-alive proxy-authorization te trailer transfer-encoding upgrade".split()
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DATA: Final = frozenset({"const", "default", "enum", "example", "examples"})
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_DROPPED: Final = frozenset(
    "$schema $id $anchor $dynamicRef $dynamicAnchor $defs discriminator xml externalDocs "
    "nullable".split()
)


@dataclass(frozen=True, slots=True)
class Described:
    """
    What a document describes.

    :ivar base: the first of its ``servers``; empty when it names none.
    """

    service: RESTService
    base: str


def foreign_references(value: object) -> Iterator[str]:
    """
    Find references that lead out of a document: they are never followed.

    A schema with an address of its own moves those in it to there.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            reference, own = one.get("$ref"), one.get("$id")
            if isinstance(reference, str) and not reference.startswith("#"):
                yield reference
            if isinstance(own, str):
                yield own
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def described(
    document: Mapping[str, object], *, allow: Sequence[str] = (), deny: Sequence[str] = ()
) -> Described:
    """
    Make tools of a document.

    :param allow: patterns of the names of tools that are made; empty: all.
    :param deny: patterns of those that are not.
    """
    operations: dict[str, RESTOperation] = {}
    left_out: list[str] = []
    for method, path, shared, told in _operations(document):
        name = _name(told.get("operationId"), method, path, operations)
        allowed = not allow or any(fnmatchcase(name, one) for one in allow)
        if not allowed or any(fnmatchcase(name, one) for one in deny):
            continue
        if len(operations) >= MAX_TOOLS:
            left_out.append(f"operations beyond {MAX_TOOLS}")
            break
        try:
            operations[name] = _Reader(document).operation(name, method, path, shared, told)
        except _UnfitError as why:
            left_out.append(f"{method.upper()} {path}: {why}")
    info = _dict(document.get("info"))
    service = RESTService(
        title=_text(info.get("title")),
        version=_text(info.get("version")),
        instructions=_text(info.get("description")),
        operations=tuple(operations.values()),
        left_out=tuple(left_out),
    )
    return Described(service, _base(document))


class _UnfitError(Exception):
    """An operation can not become a tool; the text says why."""


def _operations(
    document: Mapping[str, object],
) -> Iterator[tuple[str, str, object, dict[str, object]]]:
    for path, found in _dict(document.get("paths")).items():
        item = _resolved(document, found)
        for method in _METHODS:
            told = item.get(method)
            if isinstance(told, dict) and path.startswith("/"):
                yield method, path, item.get("parameters"), told


def _name(told: object, method: str, path: str, taken: Mapping[str, object]) -> str:
    whole = told if isinstance(told, str) and told else f"{method}{path}"
    name = _UNSAFE.sub("_", whole).strip("_") or method
    if len(name) <= NAME_CHARS and name not in taken:
        return name
    digest = sha256(f"{whole} {method} {path}".encode("utf-8", "replace")).hexdigest()
    return f"{name[: NAME_CHARS - _DIGEST_CHARS - 1]}_{digest[:_DIGEST_CHARS]}"


def _base(document: Mapping[str, object]) -> str:
    servers = document.get("servers")
    first = _dict(servers[0]) if isinstance(servers, list) and servers else {}
    url = _text(first.get("url"))
    for name, variable in _dict(first.get("variables")).items():
        url = url.replace("{" + name + "}", _text(_dict(variable).get("default")))
    return url


# --- References -------------------------------------------------------------------------------


def _found(document: object, pointer: str) -> object:
    """Follow a reference into the document; None when it leads nowhere."""
    value = document
    for step in pointer.removeprefix("#").split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _resolved(document: object, value: object) -> dict[str, object]:
    """Give an object, or the one it refers to."""
    for _ in range(_STEPS):
        if not isinstance(value, dict):
            return {}
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return value
        value = _found(document, reference)
    return {}


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value[:TEXT_CHARS] if isinstance(value, str) else ""


# --- One operation ----------------------------------------------------------------------------


class _Reader:
    """Reads one operation; its schemas' definitions are its own."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self._document = document
        self._names: dict[str, str] = {}
        self._waiting: list[str] = []

    def operation(
        self, name: str, method: str, path: str, shared: object, told: Mapping[str, object]
    ) -> RESTOperation:
        """Make the tool of an operation."""
        properties: dict[str, object] = {}
        required: list[str] = []
        operation = RESTOperation(name=name, method=method.upper(), path=path, tool="")
        media, body = self._body(told)
        parameters: list[RESTParameter] = []
        for told_of in self._parameters(shared, told.get("parameters")):
            parameter = self._parameter(told_of, {*properties, *(["body"] if media else [])})
            if parameter is None:
                continue
            parameters.append(parameter)
            properties[parameter.argument] = self._argument(told_of)
            if parameter.required:
                required.append(parameter.argument)
        if media:
            schema = _dict(_dict(_dict(body.get("content")).get(media))).get("schema")
            properties["body"] = self._schema(schema if schema is not None else {}, 0)
            needed = body.get("required") is True
            if needed:
                required.append("body")
            operation = replace(operation, body="body", body_required=needed, media=media)
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        definitions = self._definitions()
        if definitions:
            schema["$defs"] = definitions
        tool = json.dumps(_tool(name, method, path, told, schema))
        if len(tool) > TOOL_BYTES:
            raise _UnfitError("its schema is too large")
        return replace(operation, parameters=tuple(parameters), tool=tool)

    def _parameters(self, *lists: object) -> list[dict[str, object]]:
        found: dict[tuple[object, object], dict[str, object]] = {}
        for told in lists:
            for one in told if isinstance(told, list) else []:
                parameter = _resolved(self._document, one)
                found[parameter.get("in"), parameter.get("name")] = parameter
        return list(found.values())

    def _parameter(self, told: Mapping[str, object], taken: set[str]) -> RESTParameter | None:
        place, name = told.get("in"), told.get("name")
        needed = told.get("required") is True
        if not isinstance(name, str) or not isinstance(place, str):
            return None
        if place not in _STYLES:
            if needed:
                raise _UnfitError(f"it needs a parameter in {place}")
            return None
        if place == "header" and (name.lower() in _NOT_ARGUMENTS or not _TOKEN.fullmatch(name)):
            return None
        style = told.get("style")
        style = style if isinstance(style, str) else _STYLES[place]
        if "content" in told:
            style = "json"
        explode = told.get("explode")
        argument = name if name not in taken else f"{place}_{name}"
        if argument in taken:
            raise _UnfitError(f"two of its parameters are called {name}")
        return RESTParameter(
            argument=argument,
            name=name,
            place=place,
            style=style,
            explode=explode if isinstance(explode, bool) else style == "form",
            required=needed or place == "path",
        )

    def _argument(self, told: Mapping[str, object]) -> dict[str, object]:
        schema = told.get("schema")
        content = _dict(told.get("content"))
        if schema is None and content:
            schema = _dict(next(iter(content.values()))).get("schema")
        made = self._schema(schema if schema is not None else {}, 0)
        argument = made if isinstance(made, dict) else {}
        description = _text(told.get("description"))
        return {**argument, "description": description} if description else argument

    def _body(self, told: Mapping[str, object]) -> tuple[str, dict[str, object]]:
        """Give media type and description of the body; empty when there is none."""
        body = _resolved(self._document, told.get("requestBody"))
        content = _dict(body.get("content"))
        for wanted in _BODIES:
            for media in content:
                kind = media.partition(";")[0].strip().lower()
                if kind == wanted or (wanted == _BODIES[0] and kind.endswith("+json")):
                    return media, body
        if "*/*" in content:
            raise _UnfitError("its body may be of any kind")
        if content and body.get("required") is True:
            raise _UnfitError(f"its body is {next(iter(content))}")
        return "", {}

    # --- Schemas --------------------------------------------------------------------------------

    def _definitions(self) -> dict[str, object]:
        made: dict[str, object] = {}
        while self._waiting:
            pointer = self._waiting.pop()
            made[self._names[pointer]] = self._schema(_found(self._document, pointer), 0)
        return made

    def _reference(self, pointer: str) -> dict[str, object]:
        name = self._names.get(pointer)
        if name is None:
            if len(self._names) >= MAX_DEFINITIONS or _found(self._document, pointer) is None:
                return {}
            name = _UNSAFE.sub("_", unquote(pointer.rpartition("/")[2])) or "_"
            if name in self._names.values():
                name = f"{name}_{len(self._names)}"
            self._names[pointer] = name
            self._waiting.append(pointer)
        return {"$ref": f"#/$defs/{name}"}

    def _schema(self, value: object, depth: int) -> object:
        if isinstance(value, bool):
            return value
        if depth > _DEPTH or not isinstance(value, dict):
            return {}
        schema: dict[str, object] = {}
        for word, inner in value.items():
            if word in _DROPPED or word.startswith("x-"):
                continue
            if word == "$ref":
                if isinstance(inner, str):
                    schema.update(self._reference(inner))
            elif word in _DATA or not isinstance(inner, dict | list):
                schema[word] = inner
            elif word in _MAPS and isinstance(inner, dict):
                schema[word] = {name: self._schema(one, depth + 1) for name, one in inner.items()}
            elif isinstance(inner, list):
                schema[word] = [
                    self._schema(one, depth + 1) if isinstance(one, dict) else one for one in inner
                ]
            else:
                schema[word] = self._schema(inner, depth + 1)
        return _of_3_0(schema, nullable=value.get("nullable") is True)


def _of_3_0(schema: dict[str, object], *, nullable: bool) -> dict[str, object]:
    """Say in JSON Schema what OpenAPI 3.0 says in words of its own."""
    for word, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(word), bool):
            exclusive = schema.pop(word)
            if exclusive and limit in schema:
                schema[word] = schema.pop(limit)
    if not nullable:
        return schema
    kind = schema.get("type")
    if isinstance(kind, str):
        values = schema.get("enum")
        if isinstance(values, list) and None not in values:
            schema["enum"] = [*values, None]
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def _tool(
    name: str, method: str, path: str, told: Mapping[str, object], schema: dict[str, object]
) -> dict[str, object]:
    summary, text = _text(told.get("summary")), _text(told.get("description"))
    tool: dict[str, object] = {
        "name": name,
        "description": "\n\n".join(one for one in (summary, text) if one)
        or f"{method.upper()} {path}",
        "inputSchema": schema,
        "annotations": {
            "readOnlyHint": method in _READING,
            "destructiveHint": method not in _READING and method != "post",
            "idempotentHint": method in _IDEMPOTENT,
            "openWorldHint": True,
        },
    }
    return {**tool, "title": summary} if summary else tool
