"""
Modern requests put to servers for whoever asks within the gate; see `ModernAsker`.

Over HTTP each request is an exchange of its own; over stdio they share the child, which tells
them apart by ids of its upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import BadBackendAnswer, GateError, WrongEra
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.framing import SSEReader
from mcpgate.mcp.headers import annotated, annotation_fault, param_fields
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    encode,
)
from mcpgate.mcp.modern import MODERN, Context
from mcpgate.model import Caller, ServerSpec, Transport
from mcpgate.timing.deferreds import deferred
from mcpgate.web.mcp.modern.exchange import Carrier, Fields, ModernExchange
from mcpgate.web.mcp.modern.post import ModernAsker
from mcpgate.web.mcp.modern.stdio import StdioAsking
from mcpgate.web.mcp.over_http.fetch import (
    EVENT_STREAM,
    MAX_EVENT_BYTES,
    media_type,
    messages_in,
    responses_in,
    too_late,
)
from mcpgate.web.mcp.session_state import with_id

log = Logger()

HEADER_MISMATCH = -32020
UNSUPPORTED_REVISION = -32022
# A list that goes on for longer than this is not read to its end.
MAX_PAGES = 50
MAX_HELD_BYTES = 16 * 1024 * 1024

# What servers of the other era answer to a request they do not know (protocol.md 2.9).
_LEGACY_STATUS = frozenset({400, 404, 405, 406, 415})


class NotModern(WrongEra):
    """
    The server's answer is none of the modern era.

    :ivar surely: nothing but a server of the legacy era answers so.
    """

    def __init__(self, detail: str = "", *, surely: bool, status: int = 0) -> None:
        super().__init__(detail, data={"status": status} if status else None)
        self.surely = surely


class AskedExchange(ModernExchange):
    """One request over HTTP whose answer is wanted as messages."""

    def __init__(
        self,
        carrier: Carrier,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        fields: Callable[[], Fields],
        sink: IMessageSink,
    ) -> None:
        super().__init__(carrier, spec, caller, request, encode(request), fields)
        self._sink = sink
        self._reader: SSEReader | None = None
        self._held = bytearray()

    @override
    def sending(self) -> None:
        self._reader = None
        self._held.clear()

    @override
    def began(self, head: ResponseHead) -> None:
        if 200 <= head.status < 300 and media_type(head.fields) == EVENT_STREAM:
            self._reader = SSEReader(MAX_EVENT_BYTES)

    @override
    def taken(self, data: bytes) -> None:
        if self._reader is None:
            self._held += data
            if len(self._held) > MAX_HELD_BYTES:
                raise BadBackendAnswer("The server's answer is too large.")
            return
        for event in self._reader.feed(data):
            for message in messages_in(event.data):
                if self.over:
                    return
                self._heard(message)

    def _heard(self, message: Message) -> None:
        if isinstance(message, Response | ErrorResponse):
            if message.id in (self.request.id, None):
                self.end()
                self._sink.finish(with_id(message, self.request.id))
        elif isinstance(message, Notification):
            self._sink.deliver(message)
        # A request of the server is not legal here; nobody could answer it.

    @override
    def ended(self) -> None:
        if self._reader is not None:
            self.lost(BadBackendAnswer("The server's event stream ended without an answer."))
            return
        head = self.head
        assert head is not None
        answers = responses_in(media_type(head.fields), bytes(self._held))
        if answers:
            # By the exchange: errors may come without the id (protocol.md 1.5).
            answer = with_id(answers[-1], self.request.id)
            self.end()
            self._sink.finish(answer)
        else:
            self.fail(not_an_answer(head.status))

    @override
    def fail(self, error: GateError) -> None:
        if not self.over:
            self.end()
            self._sink.fail(error)


def not_an_answer(status: int) -> GateError:
    """Make the error for an HTTP answer without a JSON-RPC one."""
    text = f"The server answered HTTP {status} without an answer to this call."
    if status in _LEGACY_STATUS:
        return NotModern(text, surely=True, status=status)
    return BadBackendAnswer(text, data={"status": status})


class Asker:
    """
    See `mcpgate.web.mcp.modern.post.ModernAsker`.

    :ivar together: asks groups of servers.
    :ivar rest: asks REST services.
    """

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.together: ModernAsker | None = None
        self.rest: ModernAsker | None = None

    def ask(
        self,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        *,
        source: IInbound | None = None,
        params_fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> Callable[[], None]:
        """See `ModernAsker.ask`."""
        if self.together is not None and spec.group is not None:
            return self.together.ask(spec, caller, request, sink, source=source)
        if self.rest is not None and spec.transport is Transport.REST:
            return self.rest.ask(spec, caller, request, sink, source=source)
        if spec.transport is Transport.STDIO:
            asking = StdioAsking(self.carrier, spec, caller, request, sink)
            asking.begin()
            return asking.cancel
        if request.method == "tools/call":
            calling = _ToolCall(self, spec, caller, request, sink, source)
            calling.begin(list(params_fields))
            return calling.cancel
        return self.send(spec, caller, request, sink, source, [])

    def send(
        self,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        source: IInbound | None,
        params_fields: Fields,
    ) -> Callable[[], None]:
        """Put a request to a server on HTTP, once."""

        def fields() -> Fields:
            return self.carrier.fields(spec, caller, request, source) + params_fields

        exchange = AskedExchange(self.carrier, spec, caller, request, fields, sink)
        exchange.begin()
        return exchange.cancel

    def answer(
        self, spec: ServerSpec, caller: Caller, request: Request, *, source: IInbound | None = None
    ) -> Deferred[Response | ErrorResponse]:
        """Put a request to a server; what comes beside its answer is not heard."""
        sink = _OneAnswer()
        sink.taken_back = self.ask(spec, caller, request, sink, source=source)
        return sink.answered

    def tools(
        self,
        spec: ServerSpec,
        caller: Caller,
        context: Context,
        source: IInbound | None = None,
    ) -> Deferred[list[dict[str, object]]]:
        """
        Read the server's list of tools as it is now, to its end.

        All pages together have as long as one call may take at most.
        """
        reading = self._read_tools(spec, caller, context, source)
        return reading.addTimeout(spec.call_timeout_max_s, self.carrier.clock, too_late)

    @deferred
    async def _read_tools(
        self, spec: ServerSpec, caller: Caller, context: Context, source: IInbound | None
    ) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        cursor: object = None
        for _ in range(MAX_PAGES):
            params: dict[str, object] = {"_meta": context.meta()}
            if isinstance(cursor, str):
                params["cursor"] = cursor
            listing = Request("mcpgate-tools", "tools/list", params)
            answer = await self.answer(spec, caller, listing, source=source)
            page = answer.result if isinstance(answer, Response) else {}
            tools, cursor = page.get("tools"), page.get("nextCursor")
            if isinstance(tools, list):
                found += [tool for tool in tools if isinstance(tool, dict)]
            if not isinstance(cursor, str):
                break
        return found


@implementer(IMessageSink)
class _OneAnswer:
    """Waits for the answer alone."""

    def __init__(self) -> None:
        self.taken_back: Callable[[], None] | None = None
        self.answered: Deferred[Response | ErrorResponse] = Deferred(self._given_up)

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert isinstance(response, Response | ErrorResponse)
        if not self.answered.called:
            self.answered.callback(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        if not self.answered.called:
            self.answered.errback(error)

    def _given_up(self, _: object) -> None:
        if self.taken_back is not None:
            self.taken_back()


@implementer(IMessageSink)
class _ToolCall:
    """
    A ``tools/call`` that is sent again once if its headers were not the tool's.

    The server has refused it before running anything then.
    """

    def __init__(
        self,
        asker: Asker,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        source: IInbound | None,
    ) -> None:
        self._asker = asker
        self._spec = spec
        self._caller = caller
        self._request = request
        self._sink = sink
        self._source = source
        self._renewed = False
        self._over = False
        self._take_back: Callable[[], None] = lambda: None

    def begin(self, params_fields: Fields) -> None:
        """Send the call."""
        self._take_back = self._asker.send(
            self._spec, self._caller, self._request, self, self._source, params_fields
        )

    def cancel(self) -> None:
        """Take the call back."""
        self._over = True
        self._take_back()

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        if not self._over:
            self._sink.deliver(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        if self._over:
            return
        mismatch = isinstance(response, ErrorResponse) and response.code == HEADER_MISMATCH
        if not mismatch or self._renewed:
            self._over = True
            self._sink.finish(response)
            return
        self._renewed = True
        context = Context.of(self._request)
        looking = self._asker.tools(self._spec, self._caller, context, self._source)
        self._take_back = looking.cancel
        looking.addCallback(self._again, response)
        looking.addErrback(self._give_up, response)

    def _again(self, tools: list[dict[str, object]], refusal: Message) -> None:
        if self._over:
            return
        name = (self._request.params or {}).get("name")
        schema = next((t.get("inputSchema") for t in tools if t.get("name") == name), None)
        if not annotated(schema) or annotation_fault(schema):
            self.finish(refusal)
            return
        self.begin(param_fields(schema, (self._request.params or {}).get("arguments")))

    def _give_up(self, failure: Failure, refusal: Message) -> None:
        if not self._over:
            log.debug("The list of tools could not be read: {why}", why=failure.value)
            self.finish(refusal)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        if not self._over:
            self._over = True
            self._sink.fail(error)


def is_not_modern(error: ErrorResponse) -> bool:
    """Tell whether a server's error says that it does not speak this revision."""
    if error.code != UNSUPPORTED_REVISION:
        return False
    supported = error.data.get("supported") if isinstance(error.data, dict) else None
    return isinstance(supported, list) and MODERN not in supported
