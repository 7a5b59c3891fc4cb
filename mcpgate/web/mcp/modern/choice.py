"""
Who carries modern requests to a server: the relay, or the bridge to the legacy era.

That is the server's to decide (`mcpgate.gate.eras`).  A server on HTTP of which nothing is known
is asked once, whoever comes first; who comes meanwhile waits for the same answer.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BadRequest, GateError
from mcpgate.gate.eras import EraBook
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp.evidence import Finding, of_discover
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Request, Response
from mcpgate.mcp.methods import DISCOVER, LISTEN
from mcpgate.mcp.modern import MODERN, Context
from mcpgate.model import Caller, ServerSpec, Transport
from mcpgate.web.mcp.modern.ask import AskedExchange, NotModern
from mcpgate.web.mcp.modern.endpoint import refuse_request
from mcpgate.web.mcp.modern.exchange import Carrier
from mcpgate.web.mcp.modern.post import ModernPost, ModernSpeaker
from mcpgate.web.mcp.over_http.fetch import too_late
from mcpgate.web.mcp.session_state import public

log = Logger()

ASKED_BY = Context(version=MODERN, capabilities={}, client={"name": "mcpgate", "version": "1"})


class EraProbe:
    """
    Asks servers on HTTP whether they speak the modern era.

    :param book: where the answers are written down.
    """

    def __init__(self, carrier: Carrier, book: EraBook) -> None:
        self._carrier = carrier
        self._book = book
        self._waiting: dict[str, list[Deferred[None]]] = {}

    def find_out(self, spec: ServerSpec, caller: Caller) -> Deferred[None]:
        """
        See that the book knows.

        Fails with a `GateError` when that can not be told now.
        """
        if self._book.known(spec).modern is not None:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        waiting = self._waiting.get(spec.name)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        self._waiting[spec.name] = [waiter]
        self.ask(spec, caller).addBoth(lambda outcome: self._told(spec, outcome))
        return waiter

    def ask(self, spec: ServerSpec, caller: Caller) -> Deferred[bool]:
        """Ask one server, whatever the book says; fails when that can not be told now."""
        answered: Deferred[Message] = Deferred(lambda _: exchange.cancel())
        request = Request("mcpgate-discover", DISCOVER, {"_meta": ASKED_BY.meta()})
        exchange = AskedExchange(
            self._carrier,
            spec,
            caller,
            request,
            lambda: self._carrier.fields(spec, caller, request, None),
            _ProbeSink(answered),
        )

        def judge(response: Message) -> bool:
            assert isinstance(response, Response | ErrorResponse)
            status = exchange.head.status if exchange.head is not None else 200
            finding = of_discover(status, response)
            if finding is Finding.UNKNOWN:
                raise NotModern(surely=False, status=status)
            return finding is Finding.MODERN

        def surely(failure: Failure) -> bool:
            if isinstance(failure.value, NotModern) and failure.value.surely:
                return False
            failure.raiseException()

        # All who come wait for it: as long as for a handshake, whatever a call may take.
        life = spec.lifetime
        answered.addTimeout(life.start_wait_s + life.start_s, self._carrier.clock, too_late)
        judged = answered.addCallback(judge).addErrback(surely)
        exchange.begin()
        return judged

    def _told(self, spec: ServerSpec, outcome: bool | Failure) -> None:
        if isinstance(outcome, Failure):
            log.info(
                "The era of {server} can not be told now: {why}",
                server=spec.name,
                why=outcome.value,
            )
        else:
            self._book.note(spec, modern=outcome)
        for waiter in self._waiting.pop(spec.name, []):
            waiter.callback(outcome if isinstance(outcome, Failure) else None)


@implementer(IMessageSink)
class _ProbeSink:
    """Passes the answer on; see `IMessageSink`."""

    def __init__(self, answered: Deferred[Message]) -> None:
        self._answered = answered

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        self._answered.callback(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._answered.errback(error)


class ModernChoice:
    """
    See `mcpgate.web.mcp.modern.post.ModernSpeaker`: hands on to the one for the server's era.

    :param relay: for servers of the modern era.
    :param bridge: for those of the legacy one; None refuses, so that clients fall back.
    :param used: told of each server somebody uses; looks again at what has grown old.
    """

    def __init__(
        self,
        book: EraBook,
        probe: EraProbe,
        *,
        relay: ModernSpeaker,
        bridge: ModernSpeaker | None,
        used: Callable[[ServerSpec, Caller], None] = lambda spec, caller: None,
    ) -> None:
        self._used = used
        self._book = book
        self._probe = probe
        self._relay = relay
        self._bridge = bridge

    def call(self, post: ModernPost) -> None:
        """See `ModernSpeaker.call`."""
        self._serve(post)

    def listen(self, post: ModernPost) -> None:
        """See `ModernSpeaker.listen`."""
        self._serve(post)

    def _serve(self, post: ModernPost) -> None:
        relayed = self._is_relayed(post.spec)
        if relayed is not None:
            self._used(post.spec, post.caller)
            self._hand_on(post, relayed)
            return
        finding = self._probe.find_out(post.spec, post.caller)
        finding.addCallback(lambda _: self._found(post))
        finding.addErrback(self._refuse, post)

    def _is_relayed(self, spec: ServerSpec) -> bool | None:
        verdict = self._book.known(spec)
        if spec.transport is Transport.STDIO:
            # A process serves one era, and the legacy one where it can.
            return verdict.legacy is False
        return verdict.modern

    def _found(self, post: ModernPost) -> None:
        if post.inbound.finished:
            post.release()
        else:
            self._hand_on(post, bool(self._is_relayed(post.spec)))

    def _hand_on(self, post: ModernPost, relayed: bool) -> None:
        speaker = self._relay if relayed else self._bridge
        if speaker is None:
            raise BadRequest("This server speaks older revisions: send initialize.")
        if post.request.method == LISTEN:
            speaker.listen(post)
        else:
            speaker.call(post)

    def _refuse(self, failure: Failure, post: ModernPost) -> None:
        post.release()
        refuse_request(post.inbound, public(failure, post.inbound), post.request)
