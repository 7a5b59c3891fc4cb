"""What every speaker keeps of a session's record, and how an unforeseen failure is shown."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import GateError, Internal
from mcpgate.interfaces import IInbound
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response
from mcpgate.mcp.methods import SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE
from mcpgate.mcp.revisions import REVISIONS
from mcpgate.model import SessionRecord

log = Logger()

# A client that subscribes to more than this loses the oldest on a restart of the server.
MAX_SUBSCRIPTIONS = 1000


def public(failure: Failure, inbound: IInbound) -> GateError:
    """Give the error a client may see; anything unforeseen goes to the log."""
    if isinstance(failure.value, GateError):
        return failure.value
    log.failure("Request {request_id} failed", failure=failure, request_id=inbound.request_id)
    return Internal()


def agreed(client: str, server: object) -> str:
    """
    Choose the revision of a session: the older of what client and server settled on.

    The dates sort as text.  A server that answers something unknown is taken at the client's word.
    """
    return min(client, server) if isinstance(server, str) and server in REVISIONS else client


def is_kept(request: Request) -> bool:
    """Tell whether a request changes what a fresh server would have to be told."""
    return request.method in (SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE)


def remember(record: SessionRecord, request: Request, answer: object) -> bool:
    """
    Keep what an answered request changed that a fresh server would have to be told.

    :return: whether the record has changed.
    """
    if not is_kept(request) or not isinstance(answer, Response):
        return False
    params = request.params or {}
    if request.method == SET_LEVEL:
        record.log_level = str(params.get("level", ""))
    elif request.method == SUBSCRIBE:
        uri = str(params.get("uri", ""))
        others = tuple(known for known in record.subscriptions if known != uri)
        record.subscriptions = (*others, uri)[-MAX_SUBSCRIPTIONS:]
    else:
        uri = str(params.get("uri", ""))
        record.subscriptions = tuple(known for known in record.subscriptions if known != uri)
    return True


def with_id(response: Response | ErrorResponse, message_id: int | str) -> Response | ErrorResponse:
    """Give the same answer under another id."""
    if isinstance(response, Response):
        return Response(message_id, response.result)
    return ErrorResponse(message_id, response.code, response.message, response.data)
