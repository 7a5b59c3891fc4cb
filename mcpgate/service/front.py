"""The listening side, put together from ``[gate] listen`` and ``[tls]``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from mcpgate.config.model import Config, GateSection
from mcpgate.gate.access.digest import SECRET_BYTES, KeyDigest
from mcpgate.gate.admission import Slots
from mcpgate.gate.server_hosts import ServerHosts
from mcpgate.http.strictness import WireBounds
from mcpgate.interfaces import IInbound
from mcpgate.service.grants import grant_rules
from mcpgate.service.workers import Handed, Workers
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.guard import Guard, own_names
from mcpgate.web.listening.certificates import CertificateFiles, self_signed
from mcpgate.web.listening.handshake import TLSFactory
from mcpgate.web.listening.listeners import Bound, Kind, Listeners, parse_listen
from mcpgate.web.listening.redirect import Redirect
from mcpgate.web.listening.tls import HTTP1, HTTP2, CertificateStore, Source
from mcpgate.web.relay.relay import Watch
from mcpgate.web.wire.bounds import Bounds, connections_allowed
from mcpgate.web.wire.front import AnswerBudget, BodyBudget, FrontFactory
from mcpgate.web.wire.http2 import HTTP2Factory
from mcpgate.web.workers.assignment import Assignment
from mcpgate.web.workers.granting import Grants, Lend
from mcpgate.web.workers.link import LinkFactory
from mcpgate.web.workers.tables import Tables

log = Logger()

# What is refused when draining is over must still get out.
LAST_WORDS_S = 1.0


def bounds_of(gate: GateSection) -> Bounds:
    """Give what ``[gate]`` holds clients to."""
    return Bounds(
        wire=WireBounds(head_bytes=gate.max_header_bytes),
        head_s=gate.header_s,
        body_rate=float(gate.body_min_rate),
        body_s=gate.body_s,
        bodies_bytes=gate.body_budget_bytes,
        stalled_s=gate.slow_reader_s,
        idle_s=gate.idle_s,
        requests=gate.requests_per_connection,
        lifetime_s=gate.connection_lifetime_s,
        connections=gate.max_connections or connections_allowed(),
        connections_per_address=gate.max_connections_per_address,
    )


def certificate_sources(
    config: Config, now: Callable[[], datetime], servers: Callable[[], Iterable[str]]
) -> list[Source]:
    """
    Give where certificates come from: the files named, or one made on the spot.

    :param servers: gives the names of servers and groups there are now.
    """
    tls = config.tls
    if tls.certificates:
        return [
            CertificateFiles(chain=str(pair.certificate), key=str(pair.key))
            for pair in tls.certificates
        ]
    directory = config.gate.state_dir / "tls"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    hosts = server_hosts(config.gate)
    return [lambda: self_signed(str(directory), (*tls.names, *hosts.names(servers())), now())]


def server_hosts(gate: GateSection) -> ServerHosts:
    """Give the names of hosts that stand for servers."""
    return ServerHosts(gate.server_hosts, urlsplit(gate.public_url).hostname or "")


class Front:
    """
    Everything between the sockets and the dispatcher.

    :param sockets: what sockets are watched by; see `polled`.
    :param servers: gives the names of servers and groups there are now.
    :param tables: what workers share with this process, where there are any.
    :ivar workers: None when there are none.
    :ivar grants: what they do by themselves, once `grant` was called.
    :ivar store: the certificates; None when nothing is served over TLS.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        sockets: Any,
        wheel: DeadlineWheel,
        meters: Meters,
        guard: Guard,
        make_request_id: Callable[[], str],
        record: Callable[[AccessEntry], None],
        wall: Callable[[], float],
        servers: Callable[[], Iterable[str]],
        tables: Tables | None = None,
    ) -> None:
        gate = config.gate
        self._reactor = reactor
        self._sockets = sockets
        self._config = config
        self._wheel = wheel
        self._meters = meters
        self._guard = guard
        self._listeners: list[Listeners] = []
        self._fronts: list[FrontFactory | HTTP2Factory] = []
        bounds = bounds_of(gate)
        self._channels: list[Callable[[IInbound], None]] = []
        self._served: list[tuple[Listeners, dict[Kind, int]]] = []
        self._held: set[Listeners] = set()
        self._record = record
        self._shared: dict[str, Any] = dict(
            clock=reactor,
            wheel=wheel,
            bounds=bounds,
            make_request_id=make_request_id,
            record=record,
            meters=meters,
            slots=Slots(),
            budget=BodyBudget(bounds.bodies_bytes),
            wall=wall,
        )
        self._answers = AnswerBudget(bounds.answers_bytes)
        self.grants: Grants | None = None
        self._digest_key = secrets.token_bytes(SECRET_BYTES)
        self.workers = None if tables is None else self._make_workers(tables)
        if self.workers is not None:
            self._shared["slots"] = self.workers.places
        self.store: CertificateStore | None = None
        listens = (*gate.listen, *config.admin.listen)
        if any(parse_listen(text).kind is Kind.TLS for text in listens):
            self.store = CertificateStore(
                certificate_sources(config, now, servers),
                now=now,
                meters=meters,
                http2=gate.http2,
                min_version=config.tls.min_version,
            )

    def serve(self, texts: Sequence[str], dispatch: Callable[[IInbound], None]) -> Listeners:
        """Make the listeners of these entries, not started yet."""
        listens = [parse_listen(text) for text in texts]
        factories: dict[Kind, IProtocolFactory] = {}
        channels: dict[Kind, int] = {}
        for kind in {listen.kind for listen in listens}:
            answer = dispatch
            if kind is Kind.REDIRECT:
                answer = Redirect(guard=self._guard, https_port=self._https_port)
            factories[kind] = self._factory(kind, answer)
            channels[kind] = len(self._channels)
            self._channels.append(answer)
        listeners = Listeners(
            self._sockets, listens, factories, wheel=self._wheel, meters=self._meters
        )
        self._listeners.append(listeners)
        self._served.append((listeners, channels))
        return listeners

    def _factory(self, kind: Kind, dispatch: Callable[[IInbound], None]) -> IProtocolFactory:
        secure = kind is Kind.TLS
        front = FrontFactory(
            dispatch=dispatch, secure=secure, answers=self._answers, **self._shared
        )
        self._fronts.append(front)
        if not secure:
            return front
        assert self.store is not None
        protocols: dict[bytes, IProtocolFactory] = {HTTP1: front}
        if self._config.gate.http2:
            h2_front = HTTP2Factory(dispatch=dispatch, **self._shared)
            self._fronts.append(h2_front)
            protocols[HTTP2] = h2_front
        return TLSFactory(
            self.store,
            protocols,
            clock=self._reactor,
            wheel=self._wheel,
            meters=self._meters,
            handshake_s=self._config.tls.handshake_s,
        )

    # --- Workers --------------------------------------------------------------------------------

    def _make_workers(self, tables: Tables) -> Workers:
        gate = self._config.gate
        self._link = LinkFactory(
            answers=self._answers, **{**self._shared, "slots": Slots(), "meters": self._meters}
        )
        return Workers(
            self._sockets,
            gate.workers,
            state_dir=gate.state_dir,
            link=self._link,
            assignment=self._assignment,
            tables=tables,
            meters=self._meters,
            record=self._record,
            share=self._share,
        )

    def grant(self, lend: Lend, watch: Watch) -> Grants | None:
        """
        Let workers relay by themselves, if there are any; give what is to be told of what passes.

        :param lend: see `InstancePool.lend`.
        :param watch: see `Revocations.watch`.
        """
        workers = self.workers
        if workers is not None:
            self.grants = Grants(
                self._reactor,
                uses=workers.uses,
                digest=KeyDigest(self._digest_key),
                lend=lend,
                watch=watch,
                tell=workers.tell,
                # Embedded, the reactor's clock is another than the workers'.
                ahead_s=lambda: float(self._reactor.seconds()) - time.monotonic(),
            )
            workers.grants, workers.renew = self.grants.told, self.grants.renew
        return self.grants

    def _share(self, here: bool) -> None:
        for listeners in self._listeners:
            listeners.share(here and listeners not in self._held)

    def accept(self, listeners: Listeners, wanted: bool) -> None:
        """Take new connections on these listeners, or leave them to wait in the kernel's queue."""
        (self._held.discard if wanted else self._held.add)(listeners)
        listeners.accept(wanted)
        if self.workers is not None:
            channels = dict(self._served)[listeners]
            self.workers.accept(sorted(channels.values()), wanted)
            if wanted and self.workers.accepting:
                listeners.share(False)

    def _assignment(self) -> Assignment:
        gate, tls = self._config.gate, self._config.tls
        certificates = () if self.store is None else self.store.certificates
        return Assignment(
            name="",
            link="",
            places=0,
            buckets=0,
            uses=0,
            part=0,
            sockets=(),
            bounds=self._shared["bounds"],
            rules=grant_rules(self._config, self._digest_key),
            certificates=tuple(
                (certificate.files.chain, certificate.files.key_path)
                for certificate in certificates
            ),
            http2=gate.http2,
            min_version=tls.min_version,
            handshake_s=tls.handshake_s,
        )

    def start_workers(self) -> Deferred[None] | None:
        """Start the workers, if there shall be any, on what is bound by now."""
        if self.workers is None:
            return None
        self._link.channels = tuple(self._channels)
        return self.workers.start(
            [
                Handed(
                    descriptor=descriptor,
                    kind=listen.kind,
                    proxied=listen.proxied,
                    channel=channels[listen.kind],
                )
                for listeners, channels in self._served
                for listen, descriptor in listeners.shareable()
            ]
        )

    def close_workers(self) -> None:
        """Have workers accept nothing more."""
        if self.workers is not None:
            self.workers.close()

    @property
    def bound(self) -> tuple[Bound, ...]:
        """Every listener that is up."""
        return tuple(bound for listeners in self._listeners for bound in listeners.bound)

    def _https_port(self) -> int:
        public = urlsplit(self._config.gate.public_url)
        if public.scheme == "https":
            return public.port or 443
        ports = [bound.port for bound in self.bound if bound.listen.kind is Kind.TLS]
        return ports[0] if ports else 443

    def tell_guard(self) -> None:
        """Tell the guard the gate's own names; again when certificates change."""
        names, every = own_names(
            self.store.names if self.store is not None else (),
            (bound.host for bound in self.bound),
        )
        self._guard.own_hosts(names, any_address=every)
        if self.grants is not None:
            # Each is for a host that was one of the gate's.
            self.grants.withdraw_all()
        if self.workers is not None:
            # They look by themselves, too, but not at once.
            self.workers.tell({"certificates": True})

    def refresh_certificates(self) -> None:
        """Read certificates again if they changed."""
        if self.store is not None and self.store.refresh():
            self.tell_guard()

    def servers_changed(self) -> None:
        """Have a self-signed certificate hold the hosts of the servers there are now."""
        made = not self._config.tls.certificates and self._config.gate.server_hosts
        if made and self.store is not None and self.store.reload():
            self.tell_guard()

    @deferred
    async def drain(self, timeout_s: float, give_up: Callable[[], object]) -> None:
        """
        Let calls end for a while, then cut what is left.

        :param give_up: called when time is over: has the calls that are left refused (R65).
        """
        left = await self._drained(timeout_s)
        if left:
            log.warn("{left} connections have not ended while draining", left=left)
            give_up()
            await self._drained(LAST_WORDS_S)
        for front in self._fronts:
            front.abort_all()
        if self.workers is not None:
            await self.workers.end()

    async def _drained(self, timeout_s: float) -> int:
        """Wait until every connection has ended, or for so long; tell how many have not."""
        # Cancelled by the deadline, a list of Deferreds fires all the same.
        drains = [front.drain() for front in self._fronts]
        if self.workers is not None:
            drains.append(self.workers.drain())
        await DeferredList(drains, consumeErrors=True).addTimeout(timeout_s, self._reactor)
        left = sum(len(front.connections) for front in self._fronts)
        if self.workers is not None and self.workers.alive:
            left += self._link.busy
            left += self.grants.in_work if self.grants is not None else 0
        return left


def now() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)
