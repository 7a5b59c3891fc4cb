"""A server's other paths: who may pass, whose instance answers, under which path."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcpgate.errors import NotFound
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route
from mcpgate.interfaces import IInbound, IInstancePool, ILease
from mcpgate.model import Caller, Isolation, ServerSpec
from mcpgate.web.mcp.cold.leases import Leases
from mcpgate.web.mcp.post import owner_of
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.relay import Relay


class RelayRoute:
    """
    ``ANY /{server}/{path}``: admits, leases an instance, hands over to the byte relay.

    Ordinary HTTP statuses are used here: this is no MCP session.
    """

    def __init__(self, *, gate: Gate, pool: IInstancePool, relay: Relay) -> None:
        self._gate = gate
        self._leases = Leases(pool, gate.charge_start)
        self._relay = relay

    def __call__(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        """Answer one request."""
        spec, head = route.spec, inbound.head
        prefix = inbound.peer.prefix + head.path[: len(head.path) - len(route.rest)]
        if not (spec.transport.listens and spec.relay):
            raise NotFound(f"The MCP endpoint is {prefix.decode('latin-1')}/mcp.")
        if climbs(route.rest):
            raise NotFound("A path must not hold '.' or '..' as a segment.")
        if spec.isolation is Isolation.PER_SESSION:
            raise NotFound("This server has no paths beside sessions.")
        self._gate.charge(caller, spec)
        leave = self._gate.enter(caller)
        owner = owner_of(spec, caller.principal, "")
        target = _base(spec) + route.rest
        if head.query is not None:
            target += b"?" + head.query

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
            pass_on(lease)
            return
        waiting = Deferred.fromCoroutine(self._leases.get(spec, owner, caller))
        waiting.addCallback(pass_on).addErrback(refused)


def climbs(path: bytes) -> bool:
    """
    Tell whether a path could mean one outside of what it begins with, to anybody (R81).

    A server may decode once more than we, take a backslash for a slash or cut parameters off
    (``..;x``).
    """
    for _ in range(3):
        if b"\0" in path:
            return True
        segments = path.replace(b"\\", b"/").split(b"/")
        if any(segment.partition(b";")[0] in (b".", b"..") for segment in segments):
            return True
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return False
        path = decoded
    return True


def _base(spec: ServerSpec) -> bytes:
    """Give the path below which a remote server's other paths are: beside its MCP endpoint."""
    if not spec.url:
        return b""
    return urlsplit(spec.url).path.rpartition("/")[0].encode("ascii")
