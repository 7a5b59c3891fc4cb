"""
What a modern server says, in the words of a legacy client; what a legacy client asks, in modern.

Pure translation of one message at a time (protocol.md 4.3).  Clients of the legacy era are strict
in places where the modern era is loose: one tool with a schema they do not expect costs them the
whole list, a key too many in an empty result is an error.  So what they could trip over is mended
here, by the revision the session has negotiated.

What takes several messages (``input_required``) is in `mcpgate.mcp.driver`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.methods import LIST_CHANGED, RESOURCE_UPDATED
from mcpgate.mcp.modern import (
    ASKING,
    META_SERVER,
    META_SUBSCRIPTION,
    MODERN,
    REMOVED,
    Context,
    stamped,
)

CALL: Final = "tools/call"
READ: Final = "resources/read"

RESOURCE_NOT_FOUND: Final = -32002
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_REVISION: Final = -32022

# Of results: what only the modern era has.
_OF_RESULTS: Final = frozenset({"resultType", "ttlMs", "cacheScope"})
# Capabilities that the bridge can not carry to a client.
_NOT_CARRIED: Final = frozenset({"extensions", "tasks"})
_STRUCTURED_SINCE: Final = "2025-06-18"
_URL_MODE_SINCE: Final = "2025-11-25"
_NOT_FOUND: Final = ("not found", "unknown resource", "no such resource", "does not exist")


# --- From the client --------------------------------------------------------------------------


def declared(capabilities: Mapping[str, object], revision: str) -> dict[str, object]:
    """
    Give the capabilities to declare to a modern server for a legacy client.

    Only what the bridge can really carry: a server that knows the client can not be asked says
    so at once, and one that is told too much would wait for an answer that never comes.
    """
    carried: dict[str, object] = {}
    for name, value in capabilities.items():
        if name == "experimental" and isinstance(value, dict):
            carried[name] = value
        elif name == "sampling":
            carried[name] = value if isinstance(value, dict) else {}
        elif name == "roots":
            carried[name] = {}
        elif name == "elicitation":
            carried[name] = _elicitation(value, revision)
        elif name == "extensions" and isinstance(value, dict):
            kept = {key: what for key, what in value.items() if not key.endswith("/tasks")}
            if kept:
                carried[name] = kept
    return carried


def _elicitation(value: object, revision: str) -> dict[str, object]:
    """Say ``form`` where a client of before modes said nothing, ``url`` only where it may be."""
    modes = value if isinstance(value, dict) else {}
    kept: dict[str, object] = {}
    if "form" in modes or "url" not in modes:
        kept["form"] = modes.get("form", {})
    if "url" in modes and revision >= _URL_MODE_SINCE:
        kept["url"] = modes["url"]
    return kept


def context(initialize: Mapping[str, object], revision: str, log_level: str = "") -> Context:
    """
    Give the context that every request of a session carries.

    :param initialize: the params of the client's ``initialize``.
    :param log_level: what the session asked for with ``logging/setLevel``; empty for no logs.
    """
    capabilities, client = initialize.get("capabilities"), initialize.get("clientInfo")
    return Context(
        version=MODERN,
        capabilities=declared(capabilities if isinstance(capabilities, dict) else {}, revision),
        client=client if isinstance(client, dict) else None,
        log_level=log_level,
    )


def is_asked(method: str) -> bool:
    """Tell whether a client's method exists in the modern era (or is a vendor's)."""
    modern_only = method in ("server/discover", "subscriptions/listen")
    return method not in REMOVED and not modern_only and not method.startswith("tasks/")


def request(asked: Request, said: Context, message_id: int | str) -> Request:
    """Give a client's request as a modern server shall see it."""
    params = dict(asked.params or {})
    if asked.method == CALL:
        # Tasks of 2025-11-25 are not declared; a receiver without them works as usual.
        params.pop("task", None)
    if asked.method in ASKING:
        # What a server gave is repeated by the gate alone (`driver`).
        params.pop("inputResponses", None)
        params.pop("requestState", None)
    return Request(message_id, asked.method, stamped(params, said))


# --- From the server --------------------------------------------------------------------------


def result(method: str, found: Mapping[str, object], revision: str) -> dict[str, object]:
    """Give the complete result of a request as a client of this revision may see it."""
    plain = _plain(found)
    if method == "tools/list":
        tools = plain.get("tools")
        if isinstance(tools, list):
            plain["tools"] = [tool(each, revision) for each in tools if isinstance(each, dict)]
    elif method == CALL:
        _mend_call(plain, revision)
    elif method == "prompts/get" and revision < _STRUCTURED_SINCE:
        _mend_messages(plain)
    return plain


def _plain(found: Mapping[str, object]) -> dict[str, object]:
    kept = {key: value for key, value in found.items() if key not in _OF_RESULTS}
    meta = kept.get("_meta")
    if isinstance(meta, dict) and META_SERVER in meta:
        rest = {key: value for key, value in meta.items() if key != META_SERVER}
        if rest:
            kept["_meta"] = rest
        else:
            del kept["_meta"]
    return kept


def tool(listed: Mapping[str, object], revision: str) -> dict[str, object]:
    """
    Mend one tool: an input schema is that of an object, an output schema too or it is left out.

    The TypeScript SDK v1 loses the whole list over one schema of another form.
    """
    mended = dict(listed)
    schema = mended.get("inputSchema")
    mended["inputSchema"] = object_schema(schema if isinstance(schema, dict) else {})
    output = mended.pop("outputSchema", None)
    # Without ``type`` it may be anything: also what is no object.
    if isinstance(output, dict) and output.get("type") == "object":
        if revision >= _STRUCTURED_SINCE:
            mended["outputSchema"] = object_schema(output)
    return mended


def object_schema(schema: Mapping[str, object]) -> dict[str, object]:
    """Mend a schema so that it is surely one of an object."""
    mended = {**schema, "type": "object"}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        mended["properties"] = {name: _as_object(each) for name, each in properties.items()}
    elif properties is not None:
        del mended["properties"]
    required = schema.get("required")
    if required is not None and not (
        isinstance(required, list) and all(isinstance(name, str) for name in required)
    ):
        del mended["required"]
    return mended


def _as_object(schema: object) -> object:
    """Write the schemas ``true`` and ``false``, which TypeScript clients refuse, as objects."""
    if schema is True:
        return {}
    return {"not": {}} if schema is False else schema


def _mend_call(plain: dict[str, object], revision: str) -> None:
    """Let structured content that a client would refuse be text."""
    content = plain.get("content")
    blocks = list(content) if isinstance(content, list) else []
    if "structuredContent" in plain:
        value = plain["structuredContent"]
        if not isinstance(value, dict) or revision < _STRUCTURED_SINCE:
            del plain["structuredContent"]
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not any(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
            if "structuredContent" not in plain or not blocks:
                blocks.append({"type": "text", "text": text})
    plain["content"] = [_block(block, revision) for block in blocks]


def _mend_messages(plain: dict[str, object]) -> None:
    messages = plain.get("messages")
    if isinstance(messages, list):
        plain["messages"] = [
            {**each, "content": _block(each.get("content"), "")} if isinstance(each, dict) else each
            for each in messages
        ]


def _block(block: object, revision: str) -> object:
    """Say a link to a resource in text where the revision has no links."""
    if (
        revision < _STRUCTURED_SINCE
        and isinstance(block, dict)
        and block.get("type") == "resource_link"
    ):
        name, uri = block.get("title") or block.get("name") or "Resource", block.get("uri")
        return {"type": "text", "text": f"{name}: {uri}"}
    return block


def initialize_result(
    discovered: Mapping[str, object], revision: str, server: str
) -> dict[str, object]:
    """
    Make the answer to ``initialize`` out of a DiscoverResult.

    :param revision: what was negotiated with the client.
    :param server: the name to give where the server gives none.
    """
    answer: dict[str, object] = {
        "protocolVersion": revision,
        "capabilities": capabilities(discovered),
        "serverInfo": _server_info(discovered, server),
    }
    instructions = discovered.get("instructions")
    if isinstance(instructions, str):
        answer["instructions"] = instructions
    return answer


def capabilities(discovered: Mapping[str, object]) -> dict[str, object]:
    """Give what a server can do, without what the bridge can not carry."""
    found = discovered.get("capabilities")
    if not isinstance(found, dict):
        return {}
    return {
        name: value
        for name, value in found.items()
        if name not in _NOT_CARRIED and isinstance(value, dict)
    }


def can(discovered: Mapping[str, object], capability: str, feature: str) -> bool:
    """Tell whether a server has a feature, as ``resources.subscribe``."""
    found = capabilities(discovered).get(capability)
    return isinstance(found, dict) and found.get(feature) is True


def _server_info(discovered: Mapping[str, object], server: str) -> dict[str, object]:
    meta = discovered.get("_meta")
    info = meta.get(META_SERVER) if isinstance(meta, dict) else None
    given = dict(info) if isinstance(info, dict) else {}
    if not isinstance(given.get("name"), str):
        given["name"] = server
    if not isinstance(given.get("version"), str):
        given["version"] = "0"
    return given


def error(asked: Request, failure: ErrorResponse) -> Response | ErrorResponse:
    """
    Give an error of the server in the words of the legacy era, under the client's id.

    A call that needs what its client can not do is a tool that failed, not a broken protocol.
    """
    if failure.code == MISSING_CAPABILITY:
        data = failure.data if isinstance(failure.data, dict) else {}
        needed = data.get("requiredCapabilities")
        names = ", ".join(sorted(needed)) if isinstance(needed, dict) else ""
        text = f"This needs a capability that the client does not have: {names or 'unknown'}."
        return failed(asked, text)
    if failure.code in (HEADER_MISMATCH, UNSUPPORTED_REVISION):
        # Between gate and server alone; the client could only guess what is meant.
        return ErrorResponse(asked.id, INTERNAL, failure.message)
    code = failure.code
    if asked.method == READ and code == INVALID_PARAMS and _is_not_found(failure):
        code = RESOURCE_NOT_FOUND
    return ErrorResponse(asked.id, code, failure.message, failure.data)


def _is_not_found(failure: ErrorResponse) -> bool:
    low = failure.message.lower()
    named = isinstance(failure.data, dict) and "uri" in failure.data
    return named or any(mark in low for mark in _NOT_FOUND)


def failed(asked: Request, text: str) -> Response | ErrorResponse:
    """Say that a request failed on the way: to a tool's caller as a result it can read."""
    if asked.method == CALL:
        content: list[object] = [{"type": "text", "text": text}]
        return Response(asked.id, {"content": content, "isError": True})
    return ErrorResponse(asked.id, INTERNAL, text)


# --- From listen streams ----------------------------------------------------------------------


def heard(message: Notification) -> Notification | None:
    """Give what a listen stream brought as a client may see it; None for what it must not."""
    if message.method not in LIST_CHANGED and message.method != RESOURCE_UPDATED:
        return None
    params = dict(message.params or {})
    meta = params.pop("_meta", None)
    if isinstance(meta, dict):
        kept = {key: value for key, value in meta.items() if key != META_SUBSCRIPTION}
        if kept:
            params["_meta"] = kept
    return Notification(message.method, params or None)


_LISTS: Final = (
    ("tools", "toolsListChanged", "notifications/tools/list_changed"),
    ("prompts", "promptsListChanged", "notifications/prompts/list_changed"),
    ("resources", "resourcesListChanged", "notifications/resources/list_changed"),
)


def listen_filter(
    discovered: Mapping[str, object] | None, subscriptions: tuple[str, ...]
) -> dict[str, object]:
    """
    Give the filter of a session's ``subscriptions/listen``: all that its server can tell.

    :param discovered: None where that is not known: every list.
    """
    wanted: dict[str, object] = {
        key: True
        for name, key, _ in _LISTS
        if discovered is None or can(discovered, name, "listChanged")
    }
    if subscriptions:
        wanted["resourceSubscriptions"] = list(subscriptions)
    return wanted


def honoured(acknowledgement: Notification) -> dict[str, object]:
    """Give the part of the filter that the server will serve."""
    found = (acknowledgement.params or {}).get("notifications")
    return found if isinstance(found, dict) else {}


def missed(served: Mapping[str, object]) -> list[Notification]:
    """Give what to tell a client after a gap: everything it hears of may have changed."""
    told = [Notification(method) for _, key, method in _LISTS if served.get(key) is True]
    uris = served.get("resourceSubscriptions")
    for uri in uris if isinstance(uris, list) else []:
        told.append(Notification(RESOURCE_UPDATED, {"uri": uri}))
    return told
