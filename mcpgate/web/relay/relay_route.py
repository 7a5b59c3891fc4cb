"""A server's other paths: who may pass, whose instance answers, under which path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route
from mcpgate.http.heads import Peer
from mcpgate.interfaces import IInbound, IInstancePool, ILease
from mcpgate.model import Caller, Owner
from mcpgate.web.mcp.cold.leases import Leases
from mcpgate.web.mcp.post import owner_of
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.paths import whereto
from mcpgate.web.relay.relay import Kept, Relay


@dataclass(frozen=True, slots=True)
class Way:
    """
    Where a head leads that comes from one peer with one key.

    :ivar target: path and query towards the server.
    :ivar prefix: what was cut off the front of the client's path.
    """

    route: Route
    caller: Caller
    peer: Peer
    owner: Owner
    target: bytes
    prefix: bytes
    kept: Kept


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
        spec, memo = route.spec, inbound.head.memo
        way: Way | None = None if memo is None else memo.get("relay")
        # What a memo holds was worked out from this very head; the rest is looked at.
        if (
            way is None
            or way.route is not route
            or way.caller is not caller
            or way.peer is not inbound.peer
        ):
            target, prefix = whereto(inbound, route)
            owner = owner_of(spec, caller.principal, "")
            way = Way(route, caller, inbound.peer, owner, target, prefix, Kept())
            if memo is not None:
                memo["relay"] = way
        self._gate.charge(caller, spec)
        leave = self._gate.enter(caller)
        owner = way.owner

        def pass_on(lease: ILease) -> None:
            if inbound.finished:
                # The client has gone while the server was starting.
                lease.release()
                leave()
                return
            try:
                self._relay.relay(
                    inbound,
                    lease,
                    spec,
                    caller,
                    target=way.target,
                    prefix=way.prefix,
                    ended=leave,
                    kept=None if memo is None else way.kept,
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
