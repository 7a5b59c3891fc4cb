"""What both legacy transports demand of ``initialize`` and of arrays of messages."""

from __future__ import annotations

import json

from mcpgate.errors import BadRequest, InvalidParams
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.mcp.jsonrpc import Batch, Message, Request
from mcpgate.mcp.methods import INITIALIZE
from mcpgate.mcp.revisions import REVISIONS, negotiate
from mcpgate.model import Caller, ServerSpec


def check_initialize(request: Request) -> tuple[str, dict[str, object]]:
    """
    Give the revision asked for and the client's capabilities.

    :raises InvalidParams: one of them is missing.
    """
    params = request.params or {}
    requested = params.get("protocolVersion")
    capabilities = params.get("capabilities")
    if not isinstance(requested, str) or not isinstance(capabilities, dict):
        raise InvalidParams("initialize needs protocolVersion and capabilities.")
    return requested, capabilities


def new_session(
    sessions: SessionTable,
    caller: Caller,
    spec: ServerSpec,
    request: Request,
    *,
    kept: bool = True,
) -> Session:
    """
    Make the session an ``initialize`` asks for; whether it may be is decided before.

    :param kept: see `SessionTable.create`; the same errors.
    """
    requested, capabilities = check_initialize(request)
    params = json.dumps(request.params, ensure_ascii=False, separators=(",", ":"))
    return sessions.create(
        caller.principal,
        spec.name,
        params.encode("utf-8", "replace"),
        negotiate(requested).name,
        capabilities,
        kept=kept,
    )


def taken_apart(message: Message | Batch, revision: str) -> tuple[Message, ...]:
    """
    Take a batch apart, where the session's revision knows batches.

    :raises BadRequest: it does not, or the batch holds what must not be in one.
    """
    if not isinstance(message, Batch):
        return (message,)
    if not REVISIONS[revision].batch:
        raise BadRequest("Batches are not part of this session's protocol revision.")
    requests = [m for m in message.messages if isinstance(m, Request)]
    if any(request.method == INITIALIZE for request in requests):
        raise BadRequest("initialize must not be part of a batch.")
    if len({request.id for request in requests}) < len(requests):
        raise BadRequest("Two requests of a batch have the same id.")
    return message.messages
