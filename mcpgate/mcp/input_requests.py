"""What an ``input_required`` result asks of a client, and whether that client can be asked."""

from __future__ import annotations

from collections.abc import Mapping

from mcpgate.mcp.modern import INPUT_REQUIRED

ELICIT = "elicitation/create"
SAMPLE = "sampling/createMessage"
ROOTS = "roots/list"


def asks(result: Mapping[str, object]) -> bool:
    """Tell whether a result asks the client for something before it can be complete."""
    return result.get("resultType") == INPUT_REQUIRED


def missing(
    result: Mapping[str, object], capabilities: Mapping[str, object]
) -> dict[str, dict[str, object]]:
    """
    Give what a client would have to declare to be asked what a result asks; empty when it has.

    In the form of ``clientCapabilities``, as ``data.requiredCapabilities`` of -32021 wants it.
    """
    lacking: dict[str, dict[str, object]] = {}
    requests = result.get("inputRequests")
    if not isinstance(requests, dict):
        return lacking
    for request in requests.values():
        if not isinstance(request, dict):
            continue
        params = request.get("params")
        name, part = _needed(request.get("method"), params if isinstance(params, dict) else {})
        if name and not _declared(capabilities, name, part):
            parts = lacking.setdefault(name, {})
            if part:
                parts[part] = {}
    return lacking


def can_all(capabilities: Mapping[str, object]) -> bool:
    """Tell whether a client can be asked everything: nothing has to be looked at then."""
    return all(
        _declared(capabilities, name, part)
        for name, part in (
            ("elicitation", "form"),
            ("elicitation", "url"),
            ("sampling", "tools"),
            ("roots", ""),
        )
    )


def _needed(method: object, params: Mapping[str, object]) -> tuple[str, str]:
    if method == ELICIT:
        return "elicitation", "url" if params.get("mode") == "url" else "form"
    if method == SAMPLE:
        return "sampling", "tools" if "tools" in params or "toolChoice" in params else ""
    if method == ROOTS:
        return "roots", ""
    return "", ""


def _declared(capabilities: Mapping[str, object], name: str, part: str) -> bool:
    found = capabilities.get(name)
    if not isinstance(found, dict):
        return False
    # ``elicitation: {}`` is from before there were modes: forms.
    return not part or part in found or (part == "form" and "url" not in found)
