"""
A worker's end of grants: relays by itself what the owner said it may, by the same modules.

The steps are the dispatcher's and the relay route's: guard, route, who calls, what it costs, the
relay.  Whatever does not fit a grant to the last byte goes on to the owner as it came, which then
is the one to serve, to refuse and to tell of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable, GateError
from mcpgate.gate.access.credentials import extract
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.routing import Route, Routes
from mcpgate.gate.server_hosts import ServerHosts
from mcpgate.gate.tolls import Tolls
from mcpgate.http.forwarding import Forwarding
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound, IInstance, ILease
from mcpgate.model import Caller, Principal, Secret, ServerSpec
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.upstream.remote import Remote
from mcpgate.web.guard import Guard
from mcpgate.web.mcp.rest.paths import is_face
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.paths import whereto
from mcpgate.web.relay.relay import Relay
from mcpgate.web.workers.grant import Grant, read_error, read_grant
from mcpgate.web.workers.uses import Uses

Dispatch = Callable[[IInbound], None]
_Place = tuple[int, bytes | None, bytes, str]

_NOBODY: Final = Secret("")
#: Of the time a grant has, the part after which it is asked for again.
RENEW_AT: Final = 0.75


class _Server:
    """A copy of a server, and the connections to it."""

    def __init__(self, upstream: HTTPUpstream) -> None:
        self.upstream = upstream
        self.grants = 0


class _Held:
    """
    A grant as this worker holds it.

    :ivar caller: made of the first request's credential; its digest is the grant's.
    :ivar renewing: the owner was asked to let it go on.
    """

    __slots__ = (
        "caller",
        "grant",
        "in_work",
        "place",
        "renew_s",
        "renewing",
        "routes",
        "server",
        "spec",
        "standing",
        "until_s",
    )

    def __init__(self, grant: Grant, spec: ServerSpec, routes: Routes, server: _Server) -> None:
        self.grant = grant
        self.spec = spec
        self.routes = routes
        self.server = server
        self.place: _Place = (grant.channel, grant.host, grant.prefix, grant.digest)
        self.caller: Caller | None = None
        self.in_work = 0
        self.until_s = self.renew_s = 0.0
        self.renewing = False
        self.standing = True


@implementer(ILease)
class _Use:
    """One request under a grant; and what it was before it was looked at."""

    __slots__ = ("_granted", "_over", "head", "held", "pass_on", "peer", "upstream")

    instance: IInstance

    def __init__(
        self, granted: Granted, held: _Held, head: RequestHead, peer: Peer, pass_on: Dispatch
    ) -> None:
        self.upstream = held.server.upstream
        self.held = held
        self.head = head
        self.peer = peer
        self.pass_on = pass_on
        self._granted = granted
        self._over = False

    def touch(self) -> None:
        """See `ILease.touch`."""
        granted, number = self._granted, self.held.grant.number
        granted.uses.touch(number, granted.seconds())
        granted.uses.heard(number, self.upstream.heard_s)

    def make_passive(self, stopped: Callable[[], None]) -> None:
        """See `ILease.make_passive`; the relay does not hold on to what is idle."""
        raise AssertionError("a use under a grant is a request's")

    def release(self) -> None:
        """See `ILease.release`."""
        if not self._over:
            self._over = True
            self._granted.ended(self.held)


class Granted:
    """
    See the module.

    :param guard: believes trusted proxies and looks at origins as the owner's does; which hosts
        are the gate's is in the grants.
    :param headers: lower-case names of fields that may carry a key, beside the usual ones.
    :param anonymous: requests without a key may have a grant.
    :param digest: of credentials, as the owner makes it for grants.
    :param reach: tells where a server is.
    :param renew: asks the owner to let a grant go on, by its serial.
    :param has_room: tells whether what is served here can be told the owner.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        wheel: DeadlineWheel,
        meters: Meters,
        uses: Uses,
        guard: Guard,
        server_hosts: ServerHosts,
        headers: tuple[bytes, ...],
        anonymous: bool,
        digest: KeyDigest,
        tolls: Tolls,
        forwarding: Forwarding,
        keepalive_s: float,
        reach: Callable[[ServerSpec, tuple[str, int] | None], Remote],
        renew: Callable[[int], None],
        has_room: Callable[[], bool],
    ) -> None:
        self.seconds = clock.seconds
        self.uses = uses
        self._clock = clock
        self._wheel = wheel
        self._meters = meters
        self._guard = guard
        self._server_hosts = server_hosts
        self._headers = headers
        self._anonymous = anonymous
        self._digest = digest
        self._tolls = tolls
        self._reach = reach
        self._renew = renew
        self._has_room = has_room
        self._relay = Relay(
            clock,
            wheel,
            forwarding,
            meters,
            keepalive_s=keepalive_s,
            watch=self._watch,
            fail=self._failed,
        )
        self._held: dict[_Place, _Held] = {}
        self._by_serial: dict[int, _Held] = {}
        # Hosts that stand for a server each, by listener.
        self._hosts: dict[tuple[int, bytes | None], int] = {}
        self._servers: dict[str, _Server] = {}
        self._entries: dict[str, tuple[ServerSpec, Routes]] = {}
        self._streams: dict[Principal, dict[object, Callable[[], None]]] = {}

    # --- Requests -----------------------------------------------------------------------------

    def channel(self, number: int, pass_on: Dispatch) -> Dispatch:
        """
        Give the dispatch of a listener.

        :param pass_on: hands a request to the owner.
        """

        def dispatch(inbound: IInbound) -> None:
            if not (self._held and self._serve(number, inbound, pass_on)):
                pass_on(inbound)

        return dispatch

    def _serve(self, channel: int, inbound: IInbound, pass_on: Dispatch) -> bool:
        """Serve a request, if there is a grant for it; else leave it as it was."""
        head, peer = inbound.head, inbound.peer
        if head.method == "OPTIONS" or not self._has_room():
            return False
        try:
            # Preflights are answered by guards: never of another method.
            self._guard.check(inbound)
            found = self._find(channel, inbound)
        except GateError:
            found = None
        if found is None:
            _restore(inbound, head, peer)
            return False
        held, route, caller = found
        held.in_work += 1
        use = _Use(self, held, head, peer, pass_on)
        self._pass(inbound, use, route, caller)
        return True

    def _find(self, channel: int, inbound: IInbound) -> tuple[_Held, Route, Caller] | None:
        """Find the grant of a request, and count the request in."""
        head = inbound.head
        credential = extract(head.fields, head.query, self._headers)
        if credential is None:
            if not self._anonymous:
                return None
            credential = _NOBODY
        host = head.fields.get(b"host")
        prefix = b"" if (channel, host) in self._hosts else _prefix(head.path)
        held = self._held.get((channel, host, prefix, self._digest(credential)))
        if held is None:
            return None
        now = self.seconds()
        if now >= held.renew_s and not self._goes_on(held, now):
            return None
        route = held.routes.find(head.path, host)
        if (
            route is None
            or not route.rest
            or route.is_endpoint
            or route.is_sse
            or is_face(route)
            or not self.uses.begin(held.grant.number, held.grant.serial, now)
        ):
            return None
        caller = held.caller
        if caller is None:
            caller = held.caller = Caller(held.grant.principal, credential)
        return held, route, caller

    def _goes_on(self, held: _Held, now: float) -> bool:
        """Tell whether a grant still serves; when its time is nearly up, ask for more."""
        if now >= held.until_s:
            self._forget(held)
            return False
        if not held.renewing:
            held.renewing = True
            self._renew(held.grant.serial)
        return True

    def _pass(self, inbound: IInbound, use: _Use, route: Route, caller: Caller) -> None:
        spec = route.spec
        inbound.notes["server"] = spec.name
        inbound.notes["principal"] = caller.principal.fingerprint
        leave: Callable[[], None] | None = None
        try:
            target, prefix = whereto(inbound, route)
            self._tolls.charge(caller, spec)
            leave = self._tolls.enter(caller)
            self._relay.relay(inbound, use, spec, caller, target=target, prefix=prefix, ended=leave)
        except BaseException as error:
            use.release()
            if leave is not None:
                leave()
            if not isinstance(error, GateError):
                raise
            refuse(inbound, error)

    def ended(self, held: _Held) -> None:
        """Take note that a request is over."""
        held.in_work -= 1
        number = held.grant.number
        self.uses.heard(number, held.server.upstream.heard_s)
        self.uses.end(number, self.seconds())
        if not held.standing and not held.in_work:
            self._drop(held)

    def _failed(self, inbound: IInbound, lease: ILease, error: GateError, sent: bool) -> None:
        assert isinstance(lease, _Use)
        held = lease.held
        if sent or not isinstance(error, BackendUnavailable):
            refuse(inbound, error)
            return
        # Nobody is there: the owner finds out why, and starts another where that can be.
        self._forget(held)
        if inbound.started or inbound.finished or inbound.head.has_body:
            refuse(inbound, error)
            return
        assert held.caller is not None
        self._tolls.give_back(held.caller, held.spec)
        for name in ("server", "principal"):
            inbound.notes.pop(name, None)
        _restore(inbound, lease.head, lease.peer)
        lease.pass_on(inbound)

    # --- Streams ------------------------------------------------------------------------------

    def _watch(self, caller: Caller, ending: Callable[[], None]) -> Callable[[], None]:
        token = object()
        who = caller.principal
        self._streams.setdefault(who, {})[token] = ending

        def release() -> None:
            endings = self._streams.get(who)
            if endings is not None:
                endings.pop(token, None)
                if not endings:
                    del self._streams[who]

        return release

    # --- What the owner says ------------------------------------------------------------------

    def told(self, message: dict[str, Any]) -> None:
        """Take a grant, or what became of one."""
        if "grant" in message:
            self._take(read_grant(message["grant"]), message["for_s"])
        elif "renewed" in message:
            held = self._by_serial.get(message["renewed"])
            if held is not None and held.standing:
                self._time(held, message["for_s"])
        elif "withdrawn" in message:
            held = self._by_serial.get(message["withdrawn"])
            if held is not None:
                self._forget(held)
                if "error" in message:
                    held.server.upstream.close(read_error(message["error"]))
        elif "revoked" in message:
            for ending in tuple(self._streams.get(Principal(*message["revoked"]), {}).values()):
                ending()

    def look(self) -> None:
        """Tell the owner that a server is heard of whose answers clients do not take."""
        now = self.seconds()
        for held in tuple(self._by_serial.values()):
            if held.in_work and held.server.upstream.held_up:
                self.uses.heard(held.grant.number, now)
            elif held.standing and now >= held.until_s:
                self._forget(held)

    def _take(self, grant: Grant, for_s: float) -> None:
        spec, routes = self._entry(grant.spec)
        server = self._servers.get(grant.instance)
        if server is None:
            server = self._servers[grant.instance] = _Server(self._connect(grant))
        held = _Held(grant, spec, routes, server)
        before = self._held.get(held.place)
        if before is not None:
            self._forget(before)
        server.grants += 1
        self._time(held, for_s)
        self._held[held.place] = self._by_serial[grant.serial] = held
        if not grant.prefix:
            hosted = (grant.channel, grant.host)
            self._hosts[hosted] = self._hosts.get(hosted, 0) + 1

    def _time(self, held: _Held, for_s: float) -> None:
        now = self.seconds()
        held.until_s = now + for_s
        held.renew_s = now + RENEW_AT * for_s
        held.renewing = False

    def _entry(self, spec: ServerSpec) -> tuple[ServerSpec, Routes]:
        """Give one object for entries that are equal: who knows rules of it knows them by it."""
        known = self._entries.get(spec.name)
        if known is None or known[0] != spec:
            known = self._entries[spec.name] = spec, Routes([spec], self._server_hosts)
        return known

    def _connect(self, grant: Grant) -> HTTPUpstream:
        place = self._reach(grant.spec, grant.address)
        return HTTPUpstream(
            self._clock,
            place.make_endpoint,
            authority=place.authority,
            wheel=self._wheel,
            meters=self._meters,
        )

    def _forget(self, held: _Held) -> None:
        """Begin nothing more under a grant."""
        if not held.standing:
            return
        held.standing = False
        if self._held.get(held.place) is held:
            del self._held[held.place]
        if not held.grant.prefix:
            hosted = held.place[:2]
            self._hosts[hosted] -= 1
            if not self._hosts[hosted]:
                del self._hosts[hosted]
        if not held.in_work:
            self._drop(held)

    def _drop(self, held: _Held) -> None:
        """Let go of a grant that nothing depends on any more."""
        del self._by_serial[held.grant.serial]
        server = held.server
        server.grants -= 1
        if not server.grants:
            # Nothing is in work with it: what is closed are the connections kept.
            self._clock.callLater(0, server.upstream.close, BackendUnavailable())
            if self._servers.get(held.grant.instance) is server:
                del self._servers[held.grant.instance]


def _prefix(path: bytes) -> bytes:
    """Give what names the server in a path, as `Routes` reads it."""
    first = path.find(b"/", 1)
    end = path.find(b"/", first + 1) if path[:first] == b"/servers" else first
    return path if end < 0 else path[:end]


def _restore(inbound: IInbound, head: RequestHead, peer: Peer) -> None:
    inbound.head = head
    inbound.peer = peer
    inbound.extra_fields = []
