"""A server's other paths: who may pass, whose instance answers, under which path."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route
from mcpgate.interfaces import IInbound, IInstancePool, ILease
from mcpgate.model import Caller
from mcpgate.web.mcp.cold.leases import Leases
from mcpgate.web.mcp.post import owner_of
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.paths import whereto
from mcpgate.web.relay.relay import Relay


class RelayRoute:
    """
    ``ANY /{server}/{path}``: admits, leases an instance, hands over to the byte relay.

    Ordinary HTTP statuses are used here: this is no MCP session.

    :param passing: told of each request that passes at once, before it does.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        pool: IInstancePool,
        relay: Relay,
        passing: Callable[[IInbound, Caller, Route, ILease], None] | None = None,
    ) -> None:
        self._gate = gate
        self._leases = Leases(pool, gate.charge_start)
        self._relay = relay
        self._passing = passing

    def __call__(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        """Answer one request."""
        spec = route.spec
        target, prefix = whereto(inbound, route)
        self._gate.charge(caller, spec)
        leave = self._gate.enter(caller)
        owner = owner_of(spec, caller.principal, "")

        def pass_on(lease: ILease) -> None:
            if inbound.finished:
                # The client has gone while the server was starting.
                lease.release()
                leave()
                return
            try:
                self._relay.relay(
                    inbound, lease, spec, caller, target=target, prefix=prefix, ended=leave
                )
            except BaseException:
                lease.release()
                leave()
                raise

        def refused(failure: Failure) -> None:
            leave()
            refuse(inbound, public(failure, inbound))

        lease = self._leases.ready(spec, owner)
        if lease is not None:
            if self._passing is not None:
                self._passing(inbound, caller, route, lease)
            pass_on(lease)
            return
        waiting = Deferred.fromCoroutine(self._leases.get(spec, owner, caller))
        waiting.addCallback(pass_on).addErrback(refused)
