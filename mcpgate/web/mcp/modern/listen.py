"""
Streams of ``subscriptions/listen``: towards the client, and from a modern server.

The client's stream outlives the server's instance: when that stops the stream waits, and when it
runs again the subscription is made anew and the client told that anything may have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import BackendTimeout, BadBackendAnswer, Draining, GateError
from mcpgate.gate.results import ResultCache
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Response,
    encode,
    error_response,
)
from mcpgate.mcp.listening import ACKNOWLEDGED, Filter, acknowledgement, farewell, tagged
from mcpgate.model import Caller, Principal, ServerSpec
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.mcp.modern.ask import Asker
from mcpgate.web.mcp.modern.post import ModernPost, keeps_status, status_of
from mcpgate.web.mcp.standing import StandingStream
from mcpgate.web.refusal import JSON, NO_STORE, refusal_fields

log = Logger()

# Frames kept for a client that reads too slowly; alike ones are kept once.
MAX_PENDING = 1024
# An acknowledgement is the first thing a server says, once it runs; some say it when their first
# event is due.
ACK_S: Final = 30.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
# A subscription that lasted this long was a good one.
GOOD_S = 30.0


class OpenListen(Protocol):
    """A subscription of a client, as `Listens` knows it."""

    def wake(self) -> None:
        """Ask the server again if it was lost."""

    def tell(self, notification: Notification) -> None:
        """Say something of the gate's own, if it was asked for."""

    def close(self) -> None:
        """End the stream politely."""


class Listens:
    """The subscriptions that are open, by whose they are."""

    def __init__(self) -> None:
        self._open: dict[Principal, dict[OpenListen, str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def add(self, principal: Principal, server: str, listen: OpenListen) -> None:
        """Take note of one that was opened."""
        self._open.setdefault(principal, {})[listen] = server

    def remove(self, principal: Principal, listen: OpenListen) -> None:
        """Forget one that has ended."""
        found = self._open.get(principal)
        if found is not None:
            found.pop(listen, None)
            if not found:
                del self._open[principal]

    def wake(self, spec: ServerSpec, caller: Caller) -> None:
        """Tell a caller's streams that its server is in use."""
        for listen, server in tuple(self._open.get(caller.principal, {}).items()):
            if server == spec.name:
                listen.wake()

    def tell(self, server: str, notification: Notification) -> None:
        """Say something of the gate's own to whoever listens to a server."""
        for listens in tuple(self._open.values()):
            for listen, name in tuple(listens.items()):
                if name == server:
                    listen.tell(notification)

    def close(self, principal: Principal) -> None:
        """End what a principal has open: its key is not good any more."""
        for listen in tuple(self._open.get(principal, ())):
            listen.close()

    def close_all(self) -> None:
        """End everything: the gate is shutting down."""
        for principal in tuple(self._open):
            self.close(principal)


class ClientListen:
    """
    The client's end of one subscription, whatever is behind it.

    The acknowledgement comes first, every frame names the subscription, nothing is told that was
    not asked for, and alike frames a slow client has not read are told once.

    :param over: called once when the stream has ended, whoever ended it.
    :ivar filter: what the client asked for.
    :ivar honoured: what of it is honoured; None before the acknowledgement.
    """

    def __init__(
        self,
        post: ModernPost,
        *,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        keepalive_s: float,
        over: Callable[[], None],
    ) -> None:
        self.filter = Filter.of(post.request)
        self.honoured: Filter | None = None
        self._post = post
        self._clock = clock
        self._wheel = wheel
        self._keepalive_s = keepalive_s
        self._over: Callable[[], None] | None = over
        self._stream: StandingStream | None = None
        self._pending: dict[bytes, None] = {}
        # Who waits for the first byte does not wait for ever.
        self._patience: Deadline | None = wheel.arm(keepalive_s, self._open)
        post.inbound.on_gone(self._ended)

    @property
    def over(self) -> bool:
        """Tell whether the stream has ended."""
        return self._over is None

    def acknowledge(self, honoured: Filter) -> None:
        """Begin: tell what of the filter is honoured."""
        self.honoured = honoured
        self._open()
        self._send(acknowledgement(honoured))

    def tell(self, notification: Notification) -> None:
        """Pass on what the client asked for; anything else is dropped."""
        if self.honoured is not None and self.filter.wants(notification):
            self._send(notification)

    def refuse(self, error: GateError) -> None:
        """Answer with a refusal of the gate instead."""
        inbound, request = self._post.inbound, self._post.request
        inbound.notes["reason"] = error.reason
        status = error.status if keeps_status(error, request.method) else 200
        response = error_response(request.id, error, inbound.request_id)
        self._answer(response, status, refusal_fields(error))

    def answer(self, response: ErrorResponse) -> None:
        """Answer with an error of the server instead."""
        request_id = self._post.request.id
        told = ErrorResponse(request_id, response.code, response.message, response.data)
        self._answer(told, status_of(response.code), [JSON, NO_STORE])

    def close(self) -> None:
        """End the stream politely."""
        if self._over is None:
            return
        if self.honoured is None:
            self.refuse(Draining(retry_after_s=5.0))
            return
        assert self._stream is not None
        self._stream.send(sse_event(encode(farewell(self._post.request.id))))
        self._stream.close()

    def _answer(
        self, response: ErrorResponse, status: int, fields: list[tuple[bytes, bytes]]
    ) -> None:
        if self._over is None:
            return
        if self._stream is not None:
            self._stream.send(sse_event(encode(response)))
            self._stream.close()
        else:
            self._post.inbound.respond(status, fields, encode(response))
            self._ended()

    def _open(self) -> None:
        self._lose_patience()
        if self._stream is None and self._over is not None:
            self._stream = StandingStream(
                self._post.inbound,
                wheel=self._wheel,
                keepalive_s=self._keepalive_s,
                ended=lambda _: self._ended(),
                drained=self._flush,
            )

    def _send(self, notification: Notification) -> None:
        event = sse_event(encode(tagged(notification, self._post.request.id)))
        if not self._pending and self._stream is not None and self._stream.send(event):
            return
        self._pending.pop(event, None)
        self._pending[event] = None
        if len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]

    def _flush(self) -> None:
        while self._pending and self._stream is not None:
            event = next(iter(self._pending))
            if not self._stream.send(event):
                break
            self._pending.pop(event, None)

    def _lose_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _ended(self) -> None:
        self._lose_patience()
        over, self._over = self._over, None
        if over is not None:
            self._post.release()
            over()


@implementer(IMessageSink)
class ListenRelay:
    """A client's subscription on a modern server.  See `IMessageSink`, and `OpenListen`."""

    def __init__(
        self, asker: Asker, listens: Listens, results: ResultCache, post: ModernPost
    ) -> None:
        self._asker = asker
        self._carrier = asker.carrier
        self._listens = listens
        self._results = results
        self._post = post
        self._take_back: Callable[[], None] | None = None
        self._asks = False
        self._lost = False
        self._tries = 0
        self._since_s = 0.0
        self._pause: Deadline | None = None
        self._due: Deadline | None = None
        self._client = ClientListen(
            post,
            clock=self._carrier.clock,
            wheel=self._carrier.wheel,
            keepalive_s=self._carrier.keepalive_s,
            over=self._over,
        )

    def begin(self) -> None:
        """Ask the server, started if need be."""
        if self._client.over:
            return
        self._listens.add(self._post.caller.principal, self._post.spec.name, self)
        self._ask()

    def wake(self) -> None:
        """See `OpenListen.wake`."""
        if self._lost and not self._asks and self._pause is None and not self._client.over:
            self._pause = self._carrier.wheel.arm(0, self._again)

    def tell(self, notification: Notification) -> None:
        """See `OpenListen.tell`."""
        self._client.tell(notification)

    def close(self) -> None:
        """See `OpenListen.close`."""
        self._client.close()

    # --- IMessageSink -------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        if not isinstance(message, Notification):
            return
        if message.method == ACKNOWLEDGED:
            self._acknowledged(Filter.acknowledged(message))
            return
        self._results.heard(self._post.spec.name, message)
        self._client.tell(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        self._asked()
        if isinstance(response, Response):
            # The server wants no more of it, perhaps because it is restarted.
            self._missing(BadBackendAnswer("The server ended the subscription."))
        elif self._client.honoured is None:
            assert isinstance(response, ErrorResponse)
            self._client.answer(response)
        else:
            self._client.close()

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._asked()
        self._missing(error)

    # --- Finding the server again -------------------------------------------------------------

    def _ask(self) -> None:
        post = self._post
        self._asks = True
        self._since_s = self._carrier.clock.seconds()
        self._due = self._carrier.wheel.arm(self._patience_s(), self._silent)
        take_back = self._asker.ask(post.spec, post.caller, post.request, self, source=post.inbound)
        if self._asks:
            self._take_back = take_back

    def _patience_s(self) -> float:
        """Give how long the acknowledgement may take: a start on the way is no silence."""
        lease = self._carrier.ready(self._post.spec, self._post.caller)
        if lease is None:
            return self._post.spec.lifetime.start_wait_s + ACK_S
        lease.release()
        return ACK_S

    def _silent(self) -> None:
        self._due = None
        take_back = self._take_back
        if take_back is not None:
            take_back()
        self.fail(BackendTimeout("The server did not acknowledge in time."))

    def _asked(self) -> None:
        """Take note that nothing is asked of the server any more."""
        self._asks = False
        self._take_back = None
        self._forget_due()

    def _forget_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _acknowledged(self, honoured: Filter) -> None:
        self._forget_due()
        if self._client.honoured is None:
            self._client.acknowledge(honoured)
            return
        if self._lost:
            self._lost = False
            for notification in honoured.all_changed():
                self._results.heard(self._post.spec.name, notification)
                self._client.tell(notification)

    def _missing(self, error: GateError) -> None:
        """Go on without the server until it can be asked again."""
        if self._client.over:
            return
        if self._client.honoured is None:
            self._client.refuse(error)
            return
        self._lost = True
        # What it would have told is not heard any more.
        self._results.forget(self._post.spec.name)
        if self._carrier.clock.seconds() - self._since_s > GOOD_S:
            self._tries = 0
        if not self._post.spec.url:
            lease = self._carrier.ready(self._post.spec, self._post.caller)
            if lease is None:
                return  # Nobody starts a server to be told that nothing happened.
            lease.release()
        pause_s = min(FIRST_PAUSE_S * 2**self._tries, LONGEST_PAUSE_S)
        self._tries = min(self._tries + 1, 16)
        log.debug("A subscription was lost: {why}", why=error)
        self._pause = self._carrier.wheel.arm(pause_s, self._again)

    def _again(self) -> None:
        self._pause = None
        if not self._client.over and not self._asks:
            self._ask()

    def _over(self) -> None:
        self._listens.remove(self._post.caller.principal, self)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._forget_due()
        take_back, self._take_back = self._take_back, None
        if take_back is not None:
            take_back()
