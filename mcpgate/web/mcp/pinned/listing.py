"""
The answer to one ``tools/list``, read on its way to the client.

Whoever carries the request is given an `Errand` in place of the client's connection.  A list that
is told as it came is passed on in the bytes it came in, but where tools are blocked.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.errors import BadBackendAnswer, CallCancelled, GateError
from mcpgate.gate.tool_pins import PinBook
from mcpgate.interfaces import IInbound
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response, encode
from mcpgate.mcp.tool_pins import unambiguous
from mcpgate.model import Pinning, Principal, ServerSpec
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.over_http.fetch import messages_in
from mcpgate.web.mcp.session_state import with_id

_RETRY_AFTER = b"retry-after"


class PinnedListing:
    """
    One request for a list.

    :param answer: towards the client, of this one request.
    :param refuse: says through it that the gate can not answer.
    :ivar errand: for whoever carries the request.
    """

    def __init__(
        self,
        pins: PinBook,
        spec: ServerSpec,
        principal: Principal,
        request: Request,
        inbound: IInbound,
        answer: Answer,
        refuse: Callable[[GateError], None],
    ) -> None:
        self._pins = pins
        self._spec = spec
        self._principal = principal
        self._request = request
        self._answer = answer
        self._refuse = refuse
        # Something came that is beyond the bounds of what is read.
        self._unread = False
        self.errand = Errand(
            inbound.head,
            inbound.peer,
            inbound.request_id,
            told=self._told,
            ended=self._ended,
            notes=inbound.notes,
        )
        inbound.register_flow(self.errand.pause, self.errand.resume)

    def _told(self, data: bytes) -> None:
        messages = messages_in(data)
        if not messages and self._spec.tools_pinned is not Pinning.BLOCK:
            self._unread = True
            self._raw(data)
            return
        # Beside other messages of an array only what was looked at passes, not the bytes.
        alone = data if len(messages) == 1 else None
        for message in messages:
            if isinstance(message, Response):
                self._responded(message, alone)
            elif isinstance(message, ErrorResponse):
                self._failed(message)
            else:
                self._answer.stream(message)

    def _responded(self, response: Response, data: bytes | None) -> None:
        own = self._request.id
        if response.id != own or type(response.id) is not type(own):
            return  # To something else: none of this answer's business.
        tools = response.result.get("tools")
        shown = tools
        if isinstance(tools, list):
            shown = self._pins.told(
                self._spec,
                self._principal,
                tools,
                cursor=(self._request.params or {}).get("cursor"),
                more=response.result.get("nextCursor"),
                fresh=not self.errand.kept,
            )
        if self._spec.tools_pinned is Pinning.BLOCK:
            # In its own bytes a member may stand twice, and clients take either.
            told = unambiguous(response.result, shown if isinstance(shown, list) else ())
            self._answer.complete(Response(own, told))
        elif shown is tools and data is not None:
            self._answer.whole(data)
        else:
            self._answer.complete(Response(own, {**response.result, "tools": shown}))

    def _failed(self, response: ErrorResponse) -> None:
        if response.id not in (self._request.id, None):
            return
        status, wait = self.errand.status, self.errand.fields.get(_RETRY_AFTER)
        if wait is not None:
            self._answer.add_fields([(_RETRY_AFTER, wait)])
        told = encode(with_id(response, self._request.id))
        self._answer.whole(told, status if self.errand.reader is None else 200)

    def _raw(self, data: bytes) -> None:
        if self.errand.reader is None:
            self._answer.whole(data)
        else:
            self._answer.events(sse_event(data))

    def _ended(self, errand: Errand) -> None:
        if self._answer.over:
            return
        if self._unread and not errand.cut:
            self._answer.answered(self._request.id)
            self._answer.end()
        elif errand.notes.get("reason") == CallCancelled.reason:
            self._refuse(CallCancelled())
        else:
            self._refuse(BadBackendAnswer("The server gave no list of tools that can be read."))
