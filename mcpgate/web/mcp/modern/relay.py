"""
Modern clients on modern servers: requests passed on, answers passed back.

Over HTTP the body goes up as it came and the answer comes down as it came, its events cut at their
boundaries so that a failure can still be told in words; over stdio messages are re-encoded under
ids of the gate's own.  Looked at is only what has to be: results that may be kept, and results that
ask a client for what it did not declare.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import (
    BadBackendAnswer,
    CallCancelled,
    GateError,
    HeaderMismatch,
    MissingCapability,
)
from mcpgate.gate.results import ResultCache
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp import input_requests
from mcpgate.mcp.framing import SSEReader, sse_event
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Response,
    encode,
)
from mcpgate.mcp.methods import DISCOVER
from mcpgate.mcp.modern import ASKING, CACHEABLE, MODERN
from mcpgate.model import Isolation, ServerSpec, Transport
from mcpgate.web.event_stream import EventAligner
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.cold.snapshots import uses_caller
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.modern.ask import (
    MAX_HELD_BYTES,
    Asker,
    NotModern,
    is_not_modern,
    not_an_answer,
)
from mcpgate.web.mcp.modern.exchange import ModernExchange, public_error
from mcpgate.web.mcp.modern.listen import ListenRelay, Listens
from mcpgate.web.mcp.modern.post import ModernPost, keeps_status, status_of
from mcpgate.web.mcp.modern.tool_headers import ToolHeaders
from mcpgate.web.mcp.over_http.fetch import (
    EVENT_STREAM,
    JSON_TYPE,
    MAX_EVENT_BYTES,
    media_type,
    messages_in,
    responses_in,
)
from mcpgate.web.mcp.pinned import strays
from mcpgate.web.mcp.session_state import with_id

# A JSON answer up to this size is held until it is whole and then written at once.
HOLD_BYTES = 256 * 1024
_STATUSES = frozenset({200, 400, 404})


class ModernRelay:
    """
    See `mcpgate.web.mcp.modern.post.ModernSpeaker`.

    :param not_modern: called with a server whose answer shows that it is of the other era.
    """

    def __init__(
        self,
        asker: Asker,
        results: ResultCache,
        listens: Listens,
        *,
        not_modern: Callable[[ServerSpec], None] = lambda spec: None,
    ) -> None:
        self.asker = asker
        self.carrier = asker.carrier
        self.results = results
        self.listens = listens
        self.not_modern = not_modern
        self.tool_headers = ToolHeaders(asker)

    def call(self, post: ModernPost) -> None:
        """See `ModernSpeaker.call`."""
        spec, request, principal = post.spec, post.request, post.caller.principal
        kept = self.results.find(spec.name, principal, request)
        answer = RelayedAnswer(self, post)
        if answer.over:
            return
        if kept is not None:
            if isinstance(post.inbound, Errand):
                post.inbound.kept = True
            answer.told(Response(request.id, kept))
            return
        # A call of the gate's own has no fields of parameters: they are made for the server's tool.
        own_call = isinstance(post.inbound, Errand) and request.method == "tools/call"
        if spec.transport is Transport.STDIO and not own_call:
            self._ask_child(post, answer)
        elif own_call or spec.transport is not Transport.HTTP:
            answer.take_back = self.asker.ask(
                spec, post.caller, request, answer, source=post.inbound
            )
        else:
            exchange = RelayedExchange(self, post, answer)
            answer.take_back = exchange.cancel
            answer.flow(exchange.pause, exchange.resume)
            exchange.begin()
        # Whoever calls has the server running: streams that lost it can have it again.
        self.listens.wake(spec, post.caller)

    def _ask_child(self, post: ModernPost, answer: RelayedAnswer) -> None:
        calls = post.request.method == "tools/call"
        if not calls or self.tool_headers.knows(post.spec, post.caller.principal):
            self._to_child(post, answer)
            return
        learning = self.tool_headers.learn(post.spec, post.caller, post.context, post.inbound)
        answer.take_back = learning.cancel
        learning.addCallback(lambda _: self._to_child(post, answer))
        learning.addErrback(answer.failed)

    def _to_child(self, post: ModernPost, answer: RelayedAnswer) -> None:
        if answer.over:
            return
        if post.request.method == "tools/call":
            try:
                self.tool_headers.check(post)
            except HeaderMismatch as error:
                answer.fail(error)
                return
        answer.take_back = self.asker.ask(
            post.spec, post.caller, post.request, answer, source=post.inbound
        )

    def listen(self, post: ModernPost) -> None:
        """See `ModernSpeaker.listen`."""
        ListenRelay(self.asker, self.listens, self.results, post).begin()


def sharable(spec: ServerSpec) -> bool:
    """
    Tell whether a server is the same for every caller, so that its word ``public`` counts.

    What runs for one key alone may tell of its owner without knowing that there are others.  Of a
    group every key is shown those servers that it may use.
    """
    if spec.group is not None:
        return False
    return spec.isolation is Isolation.SHARED or bool(spec.url) or not uses_caller(spec)


@implementer(IMessageSink)
class RelayedAnswer:
    """
    What answers one request of a modern client.  See `IMessageSink`.

    :ivar take_back: takes the request back when its client has gone.
    :ivar looks: the result has to be read before it is passed on.
    """

    def __init__(self, relay: ModernRelay, post: ModernPost) -> None:
        self._relay = relay
        self._post = post
        self._mark = relay.results.mark(post.spec.name)
        self._over = False
        self.take_back: Callable[[], None] = lambda: None
        request, capabilities = post.request, post.context.capabilities
        self._polices = request.method in ASKING and not input_requests.can_all(capabilities)
        self.looks = self._polices or request.method in CACHEABLE
        self.answer = Answer(
            post.inbound,
            wheel=relay.carrier.wheel,
            keepalive_s=relay.carrier.keepalive_s,
            accepts=post.accepts,
            ids=[request.id],
        )
        post.inbound.on_gone(self._gone)

    @property
    def over(self) -> bool:
        """Tell whether the request is answered, or its client has gone."""
        return self._over

    def flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Have the source of the answer paused while the client reads too slowly."""
        self._post.inbound.register_flow(pause, resume)

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self.answer.stream(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert isinstance(response, Response | ErrorResponse)
        status = status_of(response.code) if isinstance(response, ErrorResponse) else 200
        self.told(self.judged(response, 0), status)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        request = self._post.request
        if request.method == DISCOVER and not isinstance(error, MissingCapability):
            last = self._relay.results.last_discovery(
                self._post.spec.name, self._post.caller.principal, request
            )
            if last is not None:
                self.told(Response(request.id, last))
                return
        if keeps_status(error, request.method):
            self.answer.refuse(error, request.id)
        else:
            self.answer.fail(error, request.id)
        self.end()

    def failed(self, failure: Failure) -> None:
        """Tell that something went wrong on the way; nothing for who has gone."""
        if not self._over:
            self.fail(public_error(failure, self._post.request.method))

    def judged(
        self, response: Response | ErrorResponse, size: int
    ) -> Response | ErrorResponse | GateError:
        """
        Look at a result: may it be told to this client, may it be kept.

        :param size: of the bytes it came in; 0 when that is not known.
        """
        post = self._post
        if isinstance(response, ErrorResponse):
            if is_not_modern(response):
                self._relay.not_modern(post.spec)
            return response
        result = response.result
        if self._polices and input_requests.asks(result):
            lacking = input_requests.missing(result, post.context.capabilities)
            if lacking:
                return MissingCapability(data={"requiredCapabilities": lacking})
        if post.request.method == DISCOVER:
            response = Response(response.id, {**result, "supportedVersions": [MODERN]})
        if post.request.method in CACHEABLE:
            if post.request.method == "tools/list" and post.spec.transport is Transport.STDIO:
                told = result.get("tools")
                self._relay.tool_headers.told(post.spec, post.caller.principal, told)
            self._relay.results.keep(
                post.spec.name,
                post.caller.principal,
                post.request,
                response.result,
                size or len(encode(response)),
                mark=self._mark,
                sharable=sharable(post.spec),
            )
        return response

    def told(self, outcome: Response | ErrorResponse | GateError, status: int = 200) -> None:
        """Answer, and be over."""
        if isinstance(outcome, GateError):
            self.fail(outcome)
            return
        self.answer.whole(encode(outcome), status)
        self.end()

    def end(self) -> None:
        """Give the slot back."""
        if not self._over:
            self._over = True
            self._post.release()

    def _gone(self) -> None:
        # In this era that takes the request back.
        if not self._over:
            self._post.inbound.notes["reason"] = CallCancelled.reason
            self.end()
            self.take_back()


class RelayedExchange(ModernExchange):
    """One request over HTTP whose answer is passed back as it comes."""

    def __init__(self, relay: ModernRelay, post: ModernPost, answer: RelayedAnswer) -> None:
        carrier = relay.carrier
        super().__init__(
            carrier,
            post.spec,
            post.caller,
            post.request,
            post.body,
            lambda: carrier.relayed_fields(post.spec, post.caller, post.request, post.inbound),
        )
        self._relay = relay
        self._post = post
        self._told = answer
        self._answer = answer.answer
        self._looks = strays.looks(post.spec, post.request.method)
        self._aligner: EventAligner | None = None
        self._held: bytearray | None = None

    @override
    def sending(self) -> None:
        self._aligner = self._held = None

    @override
    def began(self, head: ResponseHead) -> None:
        kind = media_type(head.fields)
        good = 200 <= head.status < 300
        length = head.content_length
        if good and kind == EVENT_STREAM:
            self._aligner = EventAligner(MAX_EVENT_BYTES)
        elif (
            good
            and kind == JSON_TYPE
            and not self._told.looks
            and not self._looks
            and length is not None
            and length > HOLD_BYTES
            and self._answer.begin_body(length)
        ):
            pass
        else:
            self._held = bytearray()

    @override
    def taken(self, data: bytes) -> None:
        if self._aligner is not None:
            events = self._aligner.feed(data)
            if events:
                self._pass_on(events)
        elif self._held is not None:
            self._held += data
            if len(self._held) > MAX_HELD_BYTES:
                raise BadBackendAnswer("The server's answer is too large.")
        else:
            self._answer.body(data)

    def _pass_on(self, events: bytes) -> None:
        if self._looks:
            events = strays.without_strays(events, self.request.id)
            if not events:
                return
        final = b'"result"' in events or b'"error"' in events
        if not final and self._post.accepts[1]:
            self._answer.events(events)
            return
        if final and not self._told.looks and self._post.accepts[1] and b'"method"' not in events:
            # Neither a request nor a notification: no need to read it.
            self._answer.answered(self.request.id)
            self._answer.events(events)
            return
        for event in SSEReader(MAX_EVENT_BYTES).feed(events):
            for message in messages_in(event.data):
                if self.over:
                    return
                if not isinstance(message, Response | ErrorResponse):
                    self._answer.stream(message)
                elif message.id in (self.request.id, None):
                    self._respond(message, event.data)
                    return

    def _respond(self, message: Response | ErrorResponse, raw: bytes) -> None:
        """Give the answer, in the bytes it came in where nothing has to be another."""
        outcome = self._told.judged(message, len(raw))
        if outcome is message and message.id == self.request.id and self._answer_streams():
            self._answer.answered(self.request.id)
            self._answer.events(sse_event(raw))
            self._answer.end()
            self._told.end()
        elif isinstance(outcome, GateError):
            self._told.fail(outcome)
        else:
            self._told.told(with_id(outcome, self.request.id))
        self.end()

    def _answer_streams(self) -> bool:
        return self._post.accepts[1] and self._post.inbound.started

    @override
    def ended(self) -> None:
        if self._held is not None:
            self._whole(bytes(self._held))
            return
        if self._aligner is not None and self._answer.waiting:
            self.lost(BadBackendAnswer("The server's event stream ended without an answer."))
            return
        self._answer.end()
        self._told.end()
        self.end()

    def _whole(self, body: bytes) -> None:
        head = self.head
        assert head is not None
        kind = media_type(head.fields)
        good = 200 <= head.status < 300
        if self._looks and kind == JSON_TYPE and strays.is_stray(body, self.request.id):
            self.fail(BadBackendAnswer("The server answered something else with its tools."))
            return
        if good and kind == JSON_TYPE and not self._told.looks and body.strip():
            self._answer.whole(body)
            self._told.end()
            self.end()
            return
        answers = responses_in(kind, body)
        if not answers:
            error = not_an_answer(head.status)
            if isinstance(error, NotModern):
                self._relay.not_modern(self.spec)
            self.fail(error)
            return
        # By the exchange: errors may come without the id (protocol.md 1.5).
        answer = answers[-1]
        outcome = self._told.judged(with_id(answer, self.request.id), len(body))
        if isinstance(outcome, GateError):
            self._told.fail(outcome)
        else:
            status = 200
            if isinstance(outcome, ErrorResponse):
                status = head.status if head.status in _STATUSES else status_of(outcome.code)
            self._told.told(outcome, status)
        self.end()

    @override
    def fail(self, error: GateError) -> None:
        if not self.over:
            if self.head is not None and self._answer_begun():
                # Inside a JSON body, or a stream: told in the form that is still possible.
                self._answer.fail_rest(error)
                self._told.end()
            else:
                self._told.fail(error)
            self.end()

    def _answer_begun(self) -> bool:
        return self._post.inbound.started
