"""
What the HTTP fields of a modern request (2026-07-28) repeat of its body, and whether they agree.

``Mcp-Method`` and ``Mcp-Name`` let intermediaries route without reading bodies, and a tool's
``x-mcp-header`` annotations do the same for arguments (``basic/transports/streamable-http``).
Whoever reads the body has to hold both against each other: two readers must never take one
request for two different ones.

Field names are lower-case here, as the gate keeps them.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from mcpgate.errors import HeaderMismatch
from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.mcp.modern import META_VERSION, meta_of

VERSION: Final = b"mcp-protocol-version"
METHOD: Final = b"mcp-method"
NAME: Final = b"mcp-name"
PARAM: Final = b"mcp-param-"
ANNOTATION: Final = "x-mcp-header"

# Method -> the parameter that ``Mcp-Name`` repeats; the last three are of the tasks extension.
NAMED_BY: Final[dict[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}

_ROUTING: Final = frozenset({VERSION, METHOD, NAME})
_PLAIN: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_PREFIX: Final = "=?base64?"
_SUFFIX: Final = "?="
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NUMBER: Final = re.compile(r"-?\d{1,20}(?:\.0{1,20})?")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
# What a JavaScript peer can count exactly.
_SAFE_INTEGER: Final = 2**53 - 1
# Keywords that hold further schemas, by the shape of their value; ``properties`` is none of them.
_HOLDS_ONE: Final = frozenset(
    {
        *("items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames"),
        *("unevaluatedProperties", "not", "if", "then", "else", "contentSchema"),
    }
)
_HOLDS_MANY: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_HOLDS_NAMED: Final = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})

Lines = Iterable[tuple[bytes, bytes]]
Path = tuple[str, ...]


# --- Values -----------------------------------------------------------------------------------


def encode_value(text: str) -> bytes:
    """Write a value of ``Mcp-Name`` or ``Mcp-Param-*``: as it is, or in Base64 where it has to."""
    if not text or (_PLAIN.fullmatch(text) and not _looks_encoded(text)):
        return text.encode("ascii")
    # Half surrogate pairs never come from our reader.
    return b"=?base64?" + b64encode(text.encode("utf-8", "replace")) + b"?="


def decode_value(value: bytes) -> str:
    """
    Read a value of ``Mcp-Name`` or ``Mcp-Param-*``.

    :raises HeaderMismatch: neither plain ASCII nor what `encode_value` writes.
    """
    text = value.strip(b" \t").decode("latin-1")
    if not _looks_encoded(text):
        if text and not _PLAIN.fullmatch(text):
            raise HeaderMismatch("A header value holds characters that need Base64.")
        return text
    inner = text[len(_PREFIX) : -len(_SUFFIX)].encode("latin-1")
    try:
        decoded = b64decode(inner, validate=True)
        # Only one spelling of a value is good: stray bits would make it another for others.
        if b64encode(decoded) == inner:
            return decoded.decode("utf-8")
    except (NotBase64, UnicodeDecodeError):
        pass
    raise HeaderMismatch("A header value is not valid Base64 of UTF-8.")


def _looks_encoded(text: str) -> bool:
    return (
        len(text) >= len(_PREFIX) + len(_SUFFIX)
        and text.startswith(_PREFIX)
        and text.endswith(_SUFFIX)
    )


# --- Routing fields ---------------------------------------------------------------------------


def name_of(message: Request | Notification) -> str | None:
    """Give what ``Mcp-Name`` has to say of a message; None where it says nothing."""
    key = NAMED_BY.get(message.method)
    value = (message.params or {}).get(key) if key is not None else None
    return value if isinstance(value, str) else None


def routing_fields(request: Request, version: str) -> list[tuple[bytes, bytes]]:
    """Make the fields that go with a request."""
    fields = [
        (VERSION, version.encode("ascii", "replace")),
        (METHOD, request.method.encode("utf-8")),
    ]
    name = name_of(request)
    if name is not None:
        fields.append((NAME, encode_value(name)))
    return fields


def check(lines: Lines, request: Request) -> None:
    """
    Hold the fields of a request against its body.

    What a tool's schema demands is not known here: see `check_params`.

    :raises HeaderMismatch: a field is missing, doubled, undecodable or says something else.
    """
    found = _gathered(lines)
    _agree(found, VERSION, meta_of(request).get(META_VERSION))
    _agree(found, METHOD, request.method)
    key = NAMED_BY.get(request.method)
    if key is not None and key in (request.params or {}):
        # A name that is no string is nothing a field can say; the server refuses it anyway.
        _agree(found, NAME, name_of(request), decode=True)


def check_present(lines: Lines, notification: Notification) -> None:
    """
    Hold the fields of a notification against its body; none has to be there.

    :raises HeaderMismatch: as `check`.
    """
    found = _gathered(lines)
    if METHOD in found:
        _agree(found, METHOD, notification.method)


def _gathered(lines: Lines) -> dict[bytes, bytes]:
    """Gather what must not stand there twice; every parameter has to be readable."""
    found: dict[bytes, bytes] = {}
    for name, value in lines:
        param = name.startswith(PARAM)
        if not param and name not in _ROUTING:
            continue
        if name in found:
            raise HeaderMismatch(f"The header {_shown(name)} stands there twice.")
        found[name] = value
        if param:
            decode_value(value)
    return found


def _agree(found: dict[bytes, bytes], name: bytes, body: object, *, decode: bool = False) -> None:
    value = found.get(name)
    if value is None:
        raise HeaderMismatch(f"The header {_shown(name)} is missing.")
    said = decode_value(value) if decode else value.strip(b" \t").decode("utf-8", "replace")
    if said != body:
        raise HeaderMismatch(f"The header {_shown(name)} and the body say different things.")


def _shown(name: bytes) -> str:
    if name == VERSION:
        return "MCP-Protocol-Version"
    return "-".join(word.capitalize() for word in name.decode("latin-1").split("-"))


# --- Arguments of tools -----------------------------------------------------------------------


def annotation_fault(schema: object) -> str:
    """
    Tell why the ``x-mcp-header`` annotations of an input schema are not valid; empty when they are.

    A client must leave a tool with invalid ones out of its list (``server/tools``).
    """
    names: set[str] = set()
    for path, node in _nodes(schema):
        if ANNOTATION not in node:
            continue
        name, kind = node[ANNOTATION], node.get("type")
        if not path:
            return f"{ANNOTATION} stands where no chain of properties leads."
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            return f"{ANNOTATION} of {path[-1]!r} is no token."
        if not isinstance(kind, str) or kind not in _TYPES:
            return f"{ANNOTATION} of {path[-1]!r} needs the type string, integer or boolean."
        if name.lower() in names:
            return f"{ANNOTATION} {name!r} stands there twice."
        names.add(name.lower())
    return ""


def annotated(schema: object) -> dict[Path, str]:
    """Give the names of the headers by path of the argument, in a schema without a fault."""
    return {
        path: name
        for path, node in _nodes(schema)
        if path and isinstance(name := node.get(ANNOTATION), str)
    }


def param_fields(schema: object, arguments: object) -> list[tuple[bytes, bytes]]:
    """Make the ``Mcp-Param-*`` fields of a ``tools/call``; absent and null arguments have none."""
    fields: list[tuple[bytes, bytes]] = []
    for path, name in annotated(schema).items():
        text = _text(_at(arguments, path))
        if text is not None:
            fields.append((PARAM + name.lower().encode("ascii"), encode_value(text)))
    return fields


def check_params(lines: Lines, schema: object, arguments: object) -> None:
    """
    Hold the ``Mcp-Param-*`` fields of a ``tools/call`` against its arguments.

    Fields of unknown names do not matter.

    :raises HeaderMismatch: one is missing, says something else, or has no argument.
    """
    found = _gathered(lines)
    for path, name in annotated(schema).items():
        field = PARAM + name.lower().encode("ascii")
        value, wanted = found.get(field), _at(arguments, path)
        if wanted is None and value is None:
            continue
        if value is None:
            raise HeaderMismatch(f"The header {_shown(field)} is missing.")
        if not _says(decode_value(value), wanted):
            raise HeaderMismatch(f"The header {_shown(field)} and the body say different things.")


def _says(text: str, value: object) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # 42.0 is 42, in whichever of the two it stands.
        if isinstance(value, float) and not value.is_integer():
            return False
        whole, _, _ = text.partition(".")
        return _NUMBER.fullmatch(text) is not None and int(whole) == int(value)
    return value is not None and text == _text(value)


def _text(value: object) -> str | None:
    """Write an argument as a field says it; None for what no field can say."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value) if abs(value) <= _SAFE_INTEGER else None
    return value if isinstance(value, str) else None


def _at(arguments: object, path: Path) -> object:
    for key in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(key)
    return arguments


def _nodes(schema: object) -> Iterator[tuple[Path, dict[str, object]]]:
    """
    Walk through every place of a schema that is a schema itself; no ``$ref`` is followed.

    The path is that of the argument, empty for the root and wherever no property alone leads to.
    """
    waiting: list[tuple[Path, bool, object]] = [((), True, schema)]
    while waiting:
        path, straight, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield (path if straight else ()), node
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, dict):
                waiting += [((*path, name), straight, inner) for name, inner in value.items()]
            elif keyword in _HOLDS_ONE and isinstance(value, dict):
                waiting.append((path, False, value))
            elif keyword in _HOLDS_MANY and isinstance(value, list):
                waiting += [(path, False, inner) for inner in value]
            elif keyword in _HOLDS_NAMED and isinstance(value, dict):
                waiting += [(path, False, inner) for inner in value.values()]
