"""
How a `GateError` looks to a client.

Two faces: plain JSON with the HTTP status for routes that are not MCP, and a JSON-RPC error for
the MCP endpoint.  A refusal of a call on a live session is HTTP 200 with the call's id, since real
clients drop their whole session on 429, 500 or 503; identity (401, 403), an unknown session (404)
and what the protocol demands keep their status.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import ceil

from mcpgate.errors import Forbidden, GateError, SessionNotFound, Unauthenticated
from mcpgate.http.heads import RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.mcp.jsonrpc import encode, error_response

JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")


def refusal_fields(error: GateError) -> list[tuple[bytes, bytes]]:
    """Give the fields every form of this refusal carries."""
    fields = [JSON, NO_STORE, *error.fields]
    if error.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
    return fields


def refuse(inbound: IInbound, error: GateError) -> None:
    """Answer a request that is not an MCP call."""
    inbound.notes["reason"] = error.reason
    if inbound.started:
        inbound.abort()
        return
    told: dict[str, object] = {
        "reason": error.reason,
        "message": error.detail,
        "requestId": inbound.request_id,
    }
    if error.retry_after_s is not None:
        told["retryAfterMs"] = max(1, ceil(error.retry_after_s * 1000))
    body = json.dumps({"error": {**told, **error.data}}).encode()
    inbound.respond(error.status, refusal_fields(error), body)


def refuse_message(
    inbound: IInbound, error: GateError, message_id: int | str | None, *, live: bool
) -> None:
    """
    Answer an MCP message.

    :param message_id: of the request refused; None for notifications and unreadable bodies.
    :param live: the message belongs to a live session.
    """
    inbound.notes["reason"] = error.reason
    if inbound.started:
        inbound.abort()
        return
    keeps_status = isinstance(error, Unauthenticated | Forbidden | SessionNotFound)
    status = 200 if live and message_id is not None and not keeps_status else error.status
    # An unknown session and somebody else's must look the same to the last byte.
    request_id = "" if isinstance(error, SessionNotFound) else inbound.request_id
    body = encode(error_response(message_id, error, request_id))
    inbound.respond(status, refusal_fields(error), body)


def refuse_batch(
    inbound: IInbound, error: GateError, message_ids: Iterable[int | str | None]
) -> None:
    """Answer a batch of a live session: each of its requests is refused under its own id."""
    inbound.notes["reason"] = error.reason
    bodies = [encode(error_response(id, error, inbound.request_id)) for id in message_ids]
    inbound.respond(200, refusal_fields(error), b"[" + b",".join(bodies) + b"]")


def accepts(head: RequestHead) -> tuple[bool, bool]:
    """
    Read ``Accept``: may the answer be JSON, may it be an event stream.

    An absent field and wildcards mean both, as curl and simple clients send them.
    """
    memo = head.memo
    known: tuple[bool, bool] | None = None if memo is None else memo.get("accepts")
    if known is None:
        known = _accepts(head.fields.get(b"accept"))
        if memo is not None:
            memo["accepts"] = known
    return known


def _accepts(value: bytes | None) -> tuple[bool, bool]:
    if value is None:
        return True, True
    json_ok = stream_ok = False
    for part in value.lower().split(b","):
        kind = part.split(b";")[0].strip()
        if kind == b"*/*":
            return True, True
        json_ok = json_ok or kind in (b"application/json", b"application/*")
        stream_ok = stream_ok or kind in (b"text/event-stream", b"text/*")
    return json_ok, stream_ok
