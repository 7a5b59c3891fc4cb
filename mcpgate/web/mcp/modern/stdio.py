"""One modern request on its way through a stdio server, with at most one new try (R35)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendDied, CallCancelled, GateError, WrongEra
from mcpgate.interfaces import ILease, IMessageSink
from mcpgate.mcp.jsonrpc import Message, Request
from mcpgate.mcp.methods import LISTEN
from mcpgate.model import Caller, ServerSpec
from mcpgate.upstream.modern_stdio import ModernStdioUpstream
from mcpgate.upstream.stdio import was_sent
from mcpgate.upstream.stdio_calls import StdioCall
from mcpgate.web.mcp.modern.exchange import Carrier, may_repeat, public_error


@implementer(IMessageSink)
class StdioAsking:
    """Leases the child, sends, and gives everything back once, however the request ends."""

    def __init__(
        self,
        carrier: Carrier,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
    ) -> None:
        self._carrier = carrier
        self._spec = spec
        self._caller = caller
        self._request = request
        self._sink: IMessageSink | None = sink
        self._lease: ILease | None = None
        self._call: StdioCall | None = None
        self._retried = False
        self._delivered = False

    def begin(self) -> None:
        """Send the request, to the running child if there is one."""
        if self._sink is None:
            return
        try:
            lease = self._carrier.ready(self._spec, self._caller)
            if lease is not None:
                self._send(lease)
                return
            leasing = Deferred.fromCoroutine(
                self._carrier.lease(self._spec, self._caller, self._request)
            )
            leasing.addCallback(self._send).addErrback(self._not_sent)
        except Exception:
            self._not_sent(Failure())

    def cancel(self) -> None:
        """Take the request back: the child is told, the sink hears nothing more."""
        self._sink = None
        call, self._call = self._call, None
        if call is not None:
            call.detach()
            call.cancel("The client has gone.")
        self._let_go()

    def _send(self, lease: ILease) -> None:
        if self._sink is None:
            lease.release()
            return
        self._lease = lease
        upstream = lease.upstream
        if not isinstance(upstream, ModernStdioUpstream):
            raise WrongEra
        if self._request.method == LISTEN:
            # What nobody asks anything on must not keep the instance from idling; its end is
            # told by the upstream.
            lease.make_passive(lambda: None)
        call = upstream.call(
            self._caller.principal,
            self._request,
            self,
            timeout_s=self._spec.call_timeout_s,
            max_s=self._spec.call_timeout_max_s,
        )
        if not call.done:
            self._call = call

    def _not_sent(self, failure: Failure) -> None:
        self.fail(public_error(failure, self._request.method))

    # --- IMessageSink -------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self._delivered = True
        if self._sink is not None:
            if self._lease is not None and self._request.method != LISTEN:
                self._lease.touch()
            self._sink.deliver(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        sink, self._sink = self._sink, None
        self._let_go()
        if sink is not None:
            sink.finish(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._let_go()
        if self._sink is None or isinstance(error, CallCancelled):
            return
        if isinstance(error, BackendDied) and self._may_retry(error):
            self._retried = True
            # In the next turn, when everybody has heard that the child is gone.
            self._carrier.clock.callLater(0, self.begin)
            return
        sink, self._sink = self._sink, None
        sink.fail(error)

    def _may_retry(self, error: BackendDied) -> bool:
        if self._retried:
            return False
        repeatable = may_repeat(self._request) and not self._delivered
        return repeatable or not was_sent(error)

    def _let_go(self) -> None:
        self._call = None
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
