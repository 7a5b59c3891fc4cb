"""
The modern face of the MCP endpoint (2026-07-28): each POST stands for itself.

Which era a message is of is told by its header and its body together; where they contradict each
other nobody is served.  Here is what the transport demands of modern requests, and what they cost;
who carries them to the server is the `ModernSpeaker`'s business.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from mcpgate.errors import (
    BadRequest,
    GateError,
    HeaderMismatch,
    MethodNotAllowed,
    MethodNotFound,
    NotAcceptable,
    UnsupportedRevision,
)
from mcpgate.gate.pipeline import Gate
from mcpgate.http.heads import RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.mcp import headers
from mcpgate.mcp.jsonrpc import Batch, Message, Notification, Request
from mcpgate.mcp.methods import DISCOVER, INITIALIZE, LISTEN
from mcpgate.mcp.modern import MODERN, REMOVED, Context, claims_modern
from mcpgate.mcp.revisions import REVISIONS
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.mcp.modern.post import ModernPost, ModernSpeaker, keeps_status
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse_message

ALLOW = ((b"allow", b"POST"),)


def is_modern(head: RequestHead, message: Message | Batch | None = None) -> bool:
    """
    Tell whether a message is of the modern era, by header and body.

    A revision nobody knows is modern when the body claims it too.

    :raises HeaderMismatch: the two contradict each other.
    """
    value = head.fields.get(headers.VERSION)
    known = REVISIONS.get(value.decode("latin-1")) if value is not None else None
    claims = type(message) is Request and claims_modern(message)
    if known is not None and not known.legacy:
        if not claims and type(message) is Request and message.method == INITIALIZE:
            raise HeaderMismatch("initialize is of older revisions than the header says.")
        return True
    if not claims:
        return False
    if value is None:
        raise HeaderMismatch("The header MCP-Protocol-Version is missing.")
    if known is not None:
        raise HeaderMismatch("MCP-Protocol-Version and the body name revisions of two eras.")
    return True


class ModernEndpoint:
    """
    Serves what `is_modern` of ``/{server}/mcp``.

    :param speaker: gives who carries modern requests to a server.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        speaker: Callable[[ServerSpec], ModernSpeaker],
        streams_per_key: int,
    ) -> None:
        self._gate = gate
        self._speaker = speaker
        self._streams_per_key = streams_per_key

    def refuse_method(self) -> None:
        """
        Refuse GET and DELETE: there are no sessions.

        :raises MethodNotAllowed: always.
        """
        raise MethodNotAllowed("This revision knows POST alone.", fields=ALLOW)

    def posted(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        message: Message | Batch,
        body: bytes,
        accepts: tuple[bool, bool],
    ) -> None:
        """Answer one message."""
        try:
            if isinstance(message, Notification):
                self._told(inbound, caller, message)
            elif isinstance(message, Request):
                self._asked(inbound, caller, spec, message, body, accepts)
            else:
                raise BadRequest("The body must be one request or notification.")
        except Exception:
            error = public(Failure(), inbound)
            if isinstance(message, Request):
                refuse_request(inbound, error, message)
            else:
                refuse_message(inbound, error, None, live=False)

    def _told(self, inbound: IInbound, caller: Caller, message: Notification) -> None:
        # Over HTTP a client has nothing to tell: it cancels by going.  So nothing is passed on.
        headers.check_present(inbound.head.fields.lines, message)
        self._gate.hears(caller, count=1)
        inbound.respond(202, [], b"")

    def _asked(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        request: Request,
        body: bytes,
        accepts: tuple[bool, bool],
    ) -> None:
        context = Context.of(request)
        headers.check(inbound.head.fields.lines, request)
        if context.version != MODERN:
            raise UnsupportedRevision(data={"supported": [MODERN], "requested": context.version})
        if request.method in REMOVED:
            raise MethodNotFound(f"{request.method} is no method of this revision.")
        listens = request.method == LISTEN
        if listens and not accepts[1]:
            raise NotAcceptable("Accept must list text/event-stream to listen.")
        release: Callable[[], None]
        if request.method == DISCOVER:
            # Refused for its rate, clients would take it that the era is not spoken here.
            release = _nothing
        else:
            self._gate.charge(caller, spec)
            if listens:
                release = self._gate.open_stream(caller, self._streams_per_key)
            else:
                release = self._gate.enter(caller)
        inbound.notes["era"] = MODERN
        post = ModernPost(
            inbound=inbound,
            caller=caller,
            spec=spec,
            body=body,
            request=request,
            context=context,
            accepts=accepts,
            release=release,
        )
        try:
            speaker = self._speaker(spec)
            if listens:
                speaker.listen(post)
            else:
                speaker.call(post)
        except BaseException:
            release()
            raise


def refuse_request(inbound: IInbound, error: GateError, request: Request) -> None:
    """Answer a modern request with a refusal of the gate."""
    refuse_message(inbound, error, request.id, live=not keeps_status(error, request.method))


def _nothing() -> None:
    """Give nothing back: nothing was taken."""
