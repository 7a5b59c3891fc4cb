"""
What a legacy server says, in the words of the modern era (2026-07-28).  Pure.

Results get what that era demands of them, and lose what it does not know; requests of the server
become input requests; errors get the codes of today.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response
from mcpgate.mcp.modern import CACHEABLE, COMPLETE, META_SERVER, MODERN

ELICIT: Final = "elicitation/create"
SAMPLE: Final = "sampling/createMessage"
ROOTS: Final = "roots/list"

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
URL_REQUIRED: Final = -32042
_RESOURCE_NOT_FOUND: Final = -32002

# How the Python SDK 1 refuses a method it does not know: a request of no form it has.
_UNKNOWN_TO_PYTHON: Final = "Invalid request parameters"
# What a legacy server knows, if it offers it.
_KNOWN: Final = frozenset(
    {
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
    }
)

# A server that wants more pages opened at once is not taken seriously.
MAX_URLS: Final = 16
# Deeper schemas than this are passed on as they are; `jsonrpc.Bounds` cuts earlier.
_MAX_DEPTH: Final = 64
_ANNOTATION: Final = "x-mcp-header"


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """
    The capability class of a client: what a server may ask of it.

    A legacy server is told once, at ``initialize``, so clients of different classes need
    different sessions.
    """

    form: bool = False
    url: bool = False
    sampling: bool = False
    sampling_tools: bool = False
    sampling_context: bool = False
    roots: bool = False

    @classmethod
    def of(cls, capabilities: Mapping[str, object]) -> Powers:
        """Read what a client declares of itself."""
        elicitation = capabilities.get("elicitation")
        sampling = capabilities.get("sampling")
        asked = elicitation if isinstance(elicitation, dict) else {}
        sampled = sampling if isinstance(sampling, dict) else {}
        return cls(
            # An empty object means forms: URLs came later.
            form=isinstance(elicitation, dict) and ("form" in asked or "url" not in asked),
            url="url" in asked,
            sampling=isinstance(sampling, dict),
            sampling_tools="tools" in sampled,
            sampling_context="context" in sampled,
            roots=isinstance(capabilities.get("roots"), dict),
        )

    def declared(self) -> dict[str, object]:
        """Give the ``capabilities`` of ``initialize`` that say this."""
        out: dict[str, object] = {}
        modes = {"form": self.form, "url": self.url}
        if any(modes.values()):
            out["elicitation"] = {mode: {} for mode, able in modes.items() if able}
        if self.sampling:
            parts = {"tools": self.sampling_tools, "context": self.sampling_context}
            out["sampling"] = {part: {} for part, able in parts.items() if able}
        if self.roots:
            out["roots"] = {}
        return out

    def lacking(self, request: Request) -> dict[str, object] | None:
        """
        Tell what a client had to declare to be asked this; None when it has declared it.

        Give this only requests that `is_input`.
        """
        params = request.params or {}
        if request.method == ELICIT:
            mode = "url" if params.get("mode") == "url" else "form"
            able = self.url if mode == "url" else self.form
            return None if able else {"elicitation": {mode: {}}}
        if request.method == SAMPLE:
            if not self.sampling:
                return {"sampling": {}}
            tools = bool(params.get("tools")) and not self.sampling_tools
            return {"sampling": {"tools": {}}} if tools else None
        return None if self.roots else {"roots": {}}


ALL_POWERS: Final = Powers(
    form=True, url=True, sampling=True, sampling_tools=True, sampling_context=True, roots=True
)


# --- The server itself ------------------------------------------------------------------------


def capabilities_of(initialized: Mapping[str, object]) -> dict[str, object]:
    """Give the capabilities of a server for modern clients; its tasks are of another protocol."""
    found = initialized.get("capabilities")
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if name != "tasks"}


def has(capabilities: Mapping[str, object], name: str, part: str = "") -> bool:
    """Tell whether a server declared a capability, and a part of it."""
    found = capabilities.get(name)
    if not isinstance(found, dict):
        return False
    return not part or bool(found.get(part))


def discovered(initialized: Mapping[str, object]) -> dict[str, object]:
    """Make the result of ``server/discover`` of that of ``initialize``."""
    result: dict[str, object] = {
        "supportedVersions": [MODERN],
        "capabilities": capabilities_of(initialized),
    }
    instructions = initialized.get("instructions")
    if isinstance(instructions, str):
        result["instructions"] = instructions
    return completed("server/discover", result, server_info(initialized))


def server_info(initialized: Mapping[str, object]) -> dict[str, object] | None:
    """Give who the server says it is."""
    info = initialized.get("serverInfo")
    named = isinstance(info, dict) and isinstance(info.get("name"), str)
    return info if named and isinstance(info, dict) else None


# --- Results and errors -----------------------------------------------------------------------


def completed(
    method: str, result: Mapping[str, object], server: Mapping[str, object] | None = None
) -> dict[str, object]:
    """
    Give a result the form of the modern era.

    What a legacy list may be cached for is not known, so: not at all, and by nobody else.
    """
    out = {**result, "resultType": COMPLETE}
    if method in CACHEABLE:
        out["ttlMs"] = 0
        out["cacheScope"] = "private"
    if method == "tools/list" and isinstance(result.get("tools"), list):
        out["tools"] = [_tool(tool) for tool in _list(result["tools"])]
    if server is not None:
        meta = result.get("_meta")
        kept = meta if isinstance(meta, dict) else {}
        out["_meta"] = {META_SERVER: dict(server), **kept}
    return out


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _tool(tool: object) -> object:
    if not isinstance(tool, dict):
        return tool
    out = {key: value for key, value in tool.items() if key != "execution"}
    schema = tool.get("inputSchema")
    if isinstance(schema, dict):
        # In a legacy schema it means nothing; clients would send fields that nobody checks.
        out["inputSchema"] = without_annotations(schema)
    return out


def without_annotations(value: object, depth: int = 0) -> object:
    """Leave ``x-mcp-header`` out of a schema; below ``properties`` names are free."""
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, list):
        return [without_annotations(element, depth + 1) for element in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, object] = {}
    for key, inner in value.items():
        if key == _ANNOTATION:
            continue
        if key == "properties" and isinstance(inner, dict):
            out[key] = {
                name: without_annotations(schema, depth + 2) for name, schema in inner.items()
            }
        elif key in ("const", "default", "enum", "examples"):
            out[key] = inner
        else:
            out[key] = without_annotations(inner, depth + 1)
    return out


def failed(method: str, response: ErrorResponse) -> ErrorResponse:
    """Give an error the code it has in the modern era."""
    if (
        method not in _KNOWN
        and response.code == INVALID_PARAMS
        and response.message == _UNKNOWN_TO_PYTHON
        and not response.data
    ):
        return ErrorResponse(response.id, METHOD_NOT_FOUND, "Method not found", response.data)
    if response.code == _RESOURCE_NOT_FOUND:
        return ErrorResponse(response.id, INVALID_PARAMS, response.message, response.data)
    if response.code == URL_REQUIRED:
        return ErrorResponse(response.id, INTERNAL_ERROR, response.message, response.data)
    return response


def is_failure(response: Response | ErrorResponse) -> bool:
    """Tell whether a call did not do what it was asked for: an error, or a tool's own failure."""
    return isinstance(response, ErrorResponse) or response.result.get("isError") is True


# --- Requests of the server -------------------------------------------------------------------


def is_input(request: Request) -> bool:
    """Tell whether a server's request can be carried to a modern client."""
    return request.method in (ELICIT, SAMPLE, ROOTS)


def input_request(method: str, params: Mapping[str, object] | None) -> dict[str, object]:
    """Make an input request of a server's request: without what the modern era has no place for."""
    out: dict[str, object] = {"method": method}
    kept = {
        key: value
        for key, value in (params or {}).items()
        if key not in ("elicitationId", "task", "_meta")
    }
    if kept or method != ROOTS:
        out["params"] = kept
    return out


def url_inputs(response: ErrorResponse) -> list[dict[str, object]]:
    """Give the pages that a server wants visited first (-32042); empty for any other error."""
    data = response.data
    if response.code != URL_REQUIRED or not isinstance(data, dict):
        return []
    found: list[dict[str, object]] = []
    for wanted in _list(data.get("elicitations"))[:MAX_URLS]:
        if isinstance(wanted, dict) and isinstance(wanted.get("url"), str):
            found.append(input_request(ELICIT, {"message": "", **wanted, "mode": "url"}))
    return found


def input_answer(answer: Mapping[str, object]) -> dict[str, object]:
    """Give a client's answer as a legacy server shall see it; some are strict."""
    return {key: value for key, value in answer.items() if key != "resultType"}
