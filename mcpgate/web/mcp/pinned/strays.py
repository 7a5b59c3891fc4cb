"""
Lists of tools in answers to something else.

Clients of an HTTP server match answers by their id, whatever stream they come on.  So a server
could put a list past whoever reads the answers to ``tools/list`` alone: on the stream of another
call, or on that of the session.  Where tools are blocked such answers are dropped on their way in.
"""

from __future__ import annotations

from twisted.logger import Logger

from mcpgate.errors import BadBackendAnswer
from mcpgate.mcp.framing import SSEReader, sse_event
from mcpgate.mcp.jsonrpc import Response
from mcpgate.mcp.methods import TOOLS_LIST
from mcpgate.model import Pinning, ServerSpec
from mcpgate.web.mcp.over_http.fetch import MAX_EVENT_BYTES, messages_in

log = Logger()


def looks(spec: ServerSpec, method: str = "") -> bool:
    """
    Tell whether answers of a server are looked through.

    :param method: of the request; the answer to ``tools/list`` is read elsewhere.
    """
    return spec.tools_pinned is Pinning.BLOCK and method != TOOLS_LIST


def harmless(data: bytes) -> bool:
    """Tell, without reading it, that JSON has no member ``tools``: not even an escaped one."""
    return b'tools"' not in data and b"\\u" not in data


def is_stray(data: bytes, own: int | str | None) -> bool:
    """
    Tell whether JSON holds a list of tools that answers something else.

    What can not be read does, for all we know.

    :param own: id of the request that is answered; None: none is.
    """
    if harmless(data):
        return False
    messages = messages_in(data)
    return not messages or any(
        isinstance(one, Response)
        and isinstance(one.result.get("tools"), list)
        and not (one.id == own and type(one.id) is type(own))
        for one in messages
    )


def without_strays(events: bytes, own: int | str | None) -> bytes:
    """Give whole events without those that hold such lists; mostly the same bytes."""
    if harmless(events):
        return events
    try:
        found = SSEReader(MAX_EVENT_BYTES).feed(events)
    except BadBackendAnswer:
        found = []
    if not any(event.data and is_stray(event.data, own) for event in found):
        return events
    log.warn("A server put a list of tools into the answer to something else", ev="stray_list")
    return b"".join(
        sse_event(event.data, event=event.event, id=event.id, retry_ms=event.retry_ms)
        for event in found
        if not (event.data and is_stray(event.data, own))
    )
