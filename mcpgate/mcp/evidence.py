"""
What an answer tells about the era of the server that gave it (protocol.md 2.9).

The table is that of the official clients, with one difference: what says nothing about the era
(a failed login, a limit, a server in trouble) is `Finding.UNKNOWN`, so that what was known before
stays.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from mcpgate.mcp.jsonrpc import ErrorResponse, Response
from mcpgate.mcp.modern import MODERN
from mcpgate.mcp.revisions import revision
from mcpgate.mcp.to_legacy import HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_REVISION


class Finding(Enum):
    """What a probe found."""

    MODERN = "modern"
    NOT_MODERN = "not modern"
    UNKNOWN = "unknown"


# A server that does not know modern requests refuses them with one of these, or in words of
# JSON-RPC; any other status is about something else.
_REFUSALS: Final = frozenset({400, 404, 405, 406, 415})


def of_discover(status: int, answer: Response | ErrorResponse | None) -> Finding:
    """
    Judge the answer to ``server/discover``.

    :param status: of HTTP; 200 for an answer that came over stdio.
    :param answer: None when the body was no JSON-RPC response.
    """
    if isinstance(answer, Response):
        versions = answer.result.get("supportedVersions")
        speaks = isinstance(versions, list) and MODERN in versions
        return Finding.MODERN if speaks else Finding.NOT_MODERN
    if isinstance(answer, ErrorResponse):
        if answer.code == UNSUPPORTED_REVISION:
            return Finding.MODERN if MODERN in _supported(answer) else Finding.NOT_MODERN
        if answer.code in (HEADER_MISMATCH, MISSING_CAPABILITY):
            return Finding.MODERN
    if status in _REFUSALS or 200 <= status < 300:
        return Finding.NOT_MODERN
    return Finding.UNKNOWN


def refuses_legacy(error: ErrorResponse) -> bool:
    """Tell whether an error to ``initialize`` is of a server that speaks the modern era alone."""
    if error.code in (UNSUPPORTED_REVISION, HEADER_MISMATCH):
        return True
    named = [found for found in map(revision, _supported(error)) if found is not None]
    return bool(named) and not any(found.legacy for found in named)


def _supported(error: ErrorResponse) -> list[object]:
    data = error.data if isinstance(error.data, dict) else {}
    supported = data.get("supported")
    return supported if isinstance(supported, list) else []
