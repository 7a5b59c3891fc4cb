"""
One modern request on its way to an HTTP server: leased, sent, perhaps sent once more, watched.

What becomes of the answer is told by two kinds: as bytes for the client that asked
(`mcpgate.web.mcp.modern.relay`), or as messages for whoever asks within the gate
(`mcpgate.web.mcp.modern.ask`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendDied, BackendTimeout, BadBackendAnswer, GateError, Internal
from mcpgate.http.forwarding import Forwarding
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IInbound, IInstancePool, ILease, IResponseReceiver, IUpstreamCall
from mcpgate.mcp.headers import routing_fields
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.methods import DISCOVER, LISTEN, is_repeatable
from mcpgate.mcp.modern import META_VERSION, MODERN, meta_of
from mcpgate.model import Caller, Exit, Isolation, Owner, ServerSpec
from mcpgate.runtime.attempt import exit_data
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.mcp.cold.leases import Leases
from mcpgate.web.mcp.over_http.sessions import target_of
from mcpgate.web.mcp.post import owner_of

log = Logger()

# How long the end of the process may lag behind that of its connections.
ENDING_S = 0.4
# A death needs a moment to be noticed before trying again.
PAUSE_S = 0.2
# What was surely not sent may be tried this often.
TRIES = 3

Fields = list[tuple[bytes, bytes]]


class Carrier:
    """
    What every modern request to a server needs, whoever asks.

    :param charge_start: takes what a cold start costs its caller; raises `RateLimited`.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        pool: IInstancePool,
        wheel: DeadlineWheel,
        forwarding: Forwarding,
        keepalive_s: float,
        charge_start: Callable[[Caller], None] = lambda caller: None,
    ) -> None:
        self.clock = clock
        self.wheel = wheel
        self.forwarding = forwarding
        self.keepalive_s = keepalive_s
        self._leases = Leases(pool, charge_start)
        # Finding out whether this era is spoken is never refused for its rate.
        self._free = Leases(pool, lambda caller: None)

    def owner(self, spec: ServerSpec, caller: Caller) -> Owner:
        """Tell whose instance serves; there are no sessions, so one of its own is the caller's."""
        return owner_of(spec, caller.principal, "")

    def ready(self, spec: ServerSpec, caller: Caller) -> ILease | None:
        """Lease the caller's instance if it runs."""
        return self._leases.ready(spec, self.owner(spec, caller))

    def runs(self, spec: ServerSpec, caller: Caller) -> bool:
        """Tell whether the caller's instance runs."""
        lease = self.ready(spec, caller)
        if lease is None:
            return False
        lease.release()
        return True

    async def lease(self, spec: ServerSpec, caller: Caller, request: Request) -> ILease:
        """Lease the caller's instance, started if need be."""
        leases = self._free if request.method == DISCOVER else self._leases
        return await leases.get(spec, self.owner(spec, caller), caller)

    def fields(
        self, spec: ServerSpec, caller: Caller, request: Request, source: IInbound | None
    ) -> Fields:
        """Make the fields of a request; ``Mcp-Param-*`` are left to whoever knows the tool."""
        version = meta_of(request).get(META_VERSION)
        routing = routing_fields(request, version if isinstance(version, str) else MODERN)
        if source is None:
            return self.forwarding.own_request(spec, caller) + routing
        return self.forwarding.modern_request(
            source.head, source.peer, spec, caller, routing, own_params=False
        )

    def relayed_fields(
        self, spec: ServerSpec, caller: Caller, request: Request, inbound: IInbound
    ) -> Fields:
        """Make the fields of a request that is passed on as it came."""
        return self.forwarding.modern_request(
            inbound.head,
            inbound.peer,
            spec,
            caller,
            routing_fields(request, MODERN),
            own_params=True,
        )

    def pause(self) -> Deferred[None]:
        """Give a death the moment it needs to be noticed."""
        return deferLater(self.clock, PAUSE_S, lambda: None)


def may_repeat(request: Request) -> bool:
    """
    Tell whether a request may be sent again although the server may have seen it (R35).

    One that goes on with an earlier one (``requestState``) may not: that state may be used up.
    """
    params = request.params or {}
    return (
        is_repeatable(request.method)
        and "requestState" not in params
        and "inputResponses" not in params
    )


def public_error(failure: Failure, what: str) -> GateError:
    """Give the error a caller may see; anything unforeseen goes to the log."""
    if isinstance(failure.value, GateError):
        return failure.value
    log.failure("Carrying {what} failed", failure=failure, what=what)
    return Internal()


def how_it_ended(
    lease: ILease | None, spec: ServerSpec, clock: IReactorTime, error: GateError
) -> Deferred[GateError]:
    """
    Tell a broken connection apart from the end of the process behind it.

    The end of a connection is known a moment before that of the process.  Never fails.
    """
    if lease is None or spec.url:
        return succeed(error)
    shared = spec.isolation is Isolation.SHARED

    def told(how: Exit) -> GateError:
        return BackendDied(data=exit_data(how, stderr=not shared))

    ending: Deferred[Any] = lease.instance.when_ended().addTimeout(ENDING_S, clock)
    return ending.addCallbacks(told, lambda _: error)


@implementer(IResponseReceiver)
class ModernExchange(ABC):
    """
    The common part.  See `IResponseReceiver`.

    :param fields: makes the fields, anew for each try.
    :ivar over: nothing more happens.
    """

    def __init__(
        self,
        carrier: Carrier,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        body: bytes,
        fields: Callable[[], Fields],
    ) -> None:
        self.carrier = carrier
        self.spec = spec
        self.caller = caller
        self.request = request
        self.over = False
        self.head: ResponseHead | None = None
        self.lease: ILease | None = None
        self._body = body
        self._fields = fields
        self._call: IUpstreamCall | None = None
        self._tries = 0
        self._paused = False
        self._endless = request.method == LISTEN
        self._deadline: Deadline | None = None
        self._given_up_at = carrier.clock.seconds() + spec.call_timeout_max_s

    # --- Up -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the request, to the running instance if there is one."""
        if self.over:
            return
        self._tries += 1
        try:
            lease = self.carrier.ready(self.spec, self.caller)
            if lease is not None:
                self._send(lease)
                return
            leasing = Deferred.fromCoroutine(
                self.carrier.lease(self.spec, self.caller, self.request)
            )
            leasing.addCallback(self._send).addErrback(self._not_sent)
        except Exception:
            self._not_sent(Failure())

    def _send(self, lease: ILease) -> None:
        if self.over:
            lease.release()
            return
        self.lease = lease
        self.head = None
        self.sending()
        if self._endless:
            # What nobody asks anything on must not keep the instance from idling.
            lease.make_passive(self._stopped)
            if self.over:
                return
        self.arm(self.spec.call_timeout_s)
        self._call = lease.upstream.send(
            "POST",
            target_of(self.spec),
            self._fields(),
            self._body,
            self,
            pool=self.caller.principal,
            length=len(self._body),
            timeout_s=self.spec.call_timeout_s,
            stream=True,
        )
        if self._paused and self._call is not None:
            self._call.pause()

    def _not_sent(self, failure: Failure) -> None:
        if self.over:
            return
        error = public_error(failure, self.request.method)
        if isinstance(error, BackendDied) and self._tries < 2:
            self._again()
        else:
            self.fail(error)

    def _again(self) -> None:
        self._let_go()
        self.carrier.pause().addCallback(lambda _: self.begin())

    def _stopped(self) -> None:
        if not self.over:
            self._abort()
            self.fail(BackendDied("The server was stopped."))

    def cancel(self) -> None:
        """Want no answer any more: the connection is cut, which the server takes for that."""
        if not self.over:
            self._abort()
            self.end()

    # --- Down ---------------------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        if not self.over:
            self.head = head
            if self._endless:
                self.disarm()
            self.began(head)

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        if self.over or self.lease is None:
            return
        if not self._endless:
            self.lease.touch()
            self.arm(self.spec.call_timeout_s)
        try:
            self.taken(data)
        except GateError as error:
            self._abort()
            self.fail(error)

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self._call = None
        if not self.over:
            self.ended()

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        self._call = None
        if self.over:
            return
        untold = self.head is None
        if isinstance(error, BackendTimeout):
            self.fail(error)
        elif untold and not sent and self._tries < TRIES:
            self._again()
        elif (
            untold
            and self._tries < 2
            and isinstance(error, BackendDied)
            and may_repeat(self.request)
        ):
            self._again()
        elif isinstance(error, BackendDied):
            self.lost(error)
        else:
            self.fail(error)

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`; a POST of ours never asks for it."""
        raise BadBackendAnswer

    # --- What the kinds do ------------------------------------------------------------------------

    @abstractmethod
    def sending(self) -> None:
        """Forget what an earlier try said."""

    @abstractmethod
    def began(self, head: ResponseHead) -> None:
        """Take the head of the answer."""

    @abstractmethod
    def taken(self, data: bytes) -> None:
        """Take a piece of the answer; raises `GateError` when it can not be read on."""

    @abstractmethod
    def ended(self) -> None:
        """Take the end of the answer."""

    @abstractmethod
    def fail(self, error: GateError) -> None:
        """Tell whoever waits that there is no answer, and `end`."""

    # --- Flow, deadlines, end ---------------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading: whoever is told is slow."""
        self._paused = True
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        if self._call is not None:
            self._call.resume()

    def lost(self, error: GateError) -> None:
        """Fail, with how the server ended if that is why."""
        telling = how_it_ended(self.lease, self.spec, self.carrier.clock, error)
        telling.addCallback(self._tell_lost)
        telling.addErrback(lambda failure: log.failure("A call could not be failed", failure))

    def _tell_lost(self, error: GateError) -> None:
        if not self.over:
            self.fail(error)

    def arm(self, delay_s: float) -> None:
        """Give the server so much time to say something."""
        self.disarm()
        left_s = self._given_up_at - self.carrier.clock.seconds()
        self._deadline = self.carrier.wheel.arm(max(0.0, min(delay_s, left_s)), self._due)

    def disarm(self) -> None:
        """Have no deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _due(self) -> None:
        self._deadline = None
        if self._paused and self.carrier.clock.seconds() < self._given_up_at:
            # It is the client who does not read.
            self.arm(self.spec.call_timeout_s)
        else:
            self._abort()
            self.fail(BackendTimeout())

    def _abort(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.abort()

    def _let_go(self) -> None:
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.release()

    def end(self) -> None:
        """Be over; give everything back."""
        if self.over:
            return
        self.over = True
        # What may still come of the answer is nobody's; let the connection be free for others.
        self.resume()
        self.disarm()
        self._let_go()
