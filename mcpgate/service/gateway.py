"""
The whole gate, put together and started in order.

Nothing here decides anything: rooms are made, handed what they need, and given their turn to
start and to stop.  Over 500 lines, because every room is made here, and the order is one idea.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.config.model import Config
from mcpgate.gate.access.digest import KeyDigest, SecretFileError, load_secret
from mcpgate.gate.access.keyfile import KeyFileError
from mcpgate.gate.catalog import Catalog
from mcpgate.gate.routing import Routes
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.http.forwarding import Forwarding
from mcpgate.model import Principal, Secret, ServerSpec
from mcpgate.service.access import Access, make_access
from mcpgate.service.back import STOP_S, Back, BackError, make_back
from mcpgate.service.documents import Documents, make_documents
from mcpgate.service.eras import KeptEras
from mcpgate.service.front import Front, server_hosts
from mcpgate.service.garbage import Garbage
from mcpgate.service.legacy import make_speakers
from mcpgate.service.logs import Logs, ignore, make_logs
from mcpgate.service.memory import MemoryFiles, MemoryWatch
from mcpgate.service.modern import make_asker, make_modern
from mcpgate.service.on_legacy import make_on_legacy
from mcpgate.service.pages import Pages
from mcpgate.service.reload import Reload
from mcpgate.service.snapshots import make_snapshots
from mcpgate.service.stage import Stage
from mcpgate.service.state_dir import StateDir, StateDirError
from mcpgate.service.tool_pins import make_tool_pins
from mcpgate.stores.sqlite import WAITING_CHANGES, OneThread, SQLiteStore
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.stalls import StallProbe, Watchdog
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.poller import polled
from mcpgate.timing.slices import in_slices
from mcpgate.timing.staged import StagedService
from mcpgate.timing.ticker import Ticker
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.dispatch import Dispatcher
from mcpgate.web.guard import Guard
from mcpgate.web.listening.certificates import CertificateError
from mcpgate.web.listening.listeners import BadListen
from mcpgate.web.listening.open_files import OpenFilesWatch, raise_open_files
from mcpgate.web.mcp.cold.prestart import Greeting
from mcpgate.web.mcp.endpoint import MCPEndpoint, Speaker
from mcpgate.web.mcp.event_log import EventBudget
from mcpgate.web.mcp.modern.choice import EraProbe
from mcpgate.web.mcp.on_modern.era_watch import EraWatch
from mcpgate.web.mcp.over_sse.endpoint import SSEEndpoint
from mcpgate.web.mcp.pinned.speakers import Desk, pinned
from mcpgate.web.mcp.rest.endpoint import RESTEndpoint
from mcpgate.web.pages.admin_access import PasswordError
from mcpgate.web.relay.relay import Relay
from mcpgate.web.relay.relay_route import RelayRoute
from mcpgate.web.wire.http2 import HTTP2Missing
from mcpgate.web.wire.request_ids import request_ids
from mcpgate.web.workers.tables import Tables

log = Logger()

# Changed files, and revoked keys that only streams depend on, are noticed this often (R58, R64).
REFRESH_S = 2.0
# A file that was written is taken over within this many seconds.
WATCH_S = 2.0
# Containers are held against what the engine says this often (R48, R55).
RECONCILE_S = 60.0
# Grants that nobody uses any more are let go of this often.
GRANTS_S = 1.0
# Streams closed in a second while memory is short.
SHED_AT_ONCE = 64
# More than this for what comes after draining: instances stop by the ladder of their grace.
STOP_MARGIN_S = 30.0


class GatewayError(Exception):
    """The gate can not be made; the text says why and what to do."""


# What making the rooms may fail with: each text names a file or setting and the remedy.
_REFUSALS = (
    BackError,
    BadListen,
    CertificateError,
    HTTP2Missing,
    KeyFileError,
    PasswordError,
    SecretFileError,
    StateDirError,
    OSError,
)


class Gateway(StagedService):
    """
    A gate as a Twisted service.

    Starting answers a Deferred that fires when every listener is up; stopping drains first.

    :param logs: what this gate writes its log with, when it is a program of its own.
    :ivar front: tells the addresses it listens on, once started.
    """

    def __init__(self, reactor: Any, config: Config, logs: Logs | None) -> None:
        super().__init__(reactor, config.gate.drain_s + STOP_MARGIN_S)
        self.setName("mcpgate")
        self.config = config
        self.clock = reactor
        self._reactor = reactor
        self._logs = logs
        self._ready = False
        self._draining = False
        self._started_at = time.time()
        self.meters = Meters()
        self.wheel = DeadlineWheel(reactor)
        self._state_dir = StateDir(config.gate.state_dir)
        self._state_dir.take()
        self._tables: Tables | None = None
        try:
            self._build()
        except BaseException:
            self._state_dir.release()
            if self._tables is not None:
                self._tables.close()
            raise

    # --- Putting together -----------------------------------------------------------------------

    def _build(self) -> None:
        reactor, config, meters, wheel = self._reactor, self.config, self.meters, self.wheel
        gate = config.gate
        sockets = polled(reactor)
        # First: how many connections are allowed is derived from it.
        open_files = OpenFilesWatch(raise_open_files(), meters)
        secret = self._secret = load_secret(gate.state_dir, os.urandom)
        digest = KeyDigest(secret)
        self.reading = OneThread(reactor.callFromThread, "reading")
        tables = self._tables = Tables.make(gate.workers) if gate.workers > 1 else None
        self.access: Access = make_access(reactor, config, digest, meters, self.reading.run, tables)
        self.access.revocations.on_revoked(self._revoked)
        self._thread = OneThread(reactor.callFromThread, "sessions")
        self.store = SQLiteStore(
            reactor,
            self._thread,
            gate.state_dir / "sessions.sqlite",
            # Every session once, and as many that have ended.
            limit=max(WAITING_CHANGES, 2 * gate.sessions_total),
        )
        self.memory = MemoryWatch(
            meters,
            ratio=MemoryFiles().ratio,
            shed=self._shed_streams,
            accept=self._accept,
        )
        self.sessions = SessionTable(
            self.store,
            clock=reactor,
            wall=time.time,
            make_id=lambda: secrets.token_urlsafe(16),
            meters=meters,
            idle_s=gate.session_idle_s,
            per_principal=gate.sessions_per_key,
            total=gate.sessions_total,
            has_room=self.memory.has_room,
        )
        self._kept_eras = KeptEras(
            reactor,
            self._thread,
            gate.state_dir,
            wall=time.time,
            key=hmac.digest(secret, b"entries of servers", "sha256"),
        )
        self.eras = self._kept_eras.book
        self.catalog = Catalog(config.servers, config.groups)
        self.documents: Documents = make_documents(
            reactor,
            gate.state_dir,
            wall=time.time,
            meters=meters,
            changed=self._documents_changed,
        )
        self.back: Back = make_back(
            reactor,
            config,
            sockets=sockets,
            catalog=self.catalog,
            wheel=wheel,
            meters=meters,
            wall=time.time,
            secret=secret,
            has_room=self.memory.has_room,
            is_modern=lambda spec: self.eras.known(spec).legacy is False,
            discovers=lambda spec: self.eras.known(spec).modern is True,
        )
        self.pool = self.back.pool
        self.pins = make_tool_pins(
            reactor, gate.state_dir, wall=time.time, build_of=self.back.build_of, meters=meters
        )
        self.snapshots = make_snapshots(
            reactor,
            gate.state_dir,
            secret=secret,
            build_of=self.back.build_of,
            meters=meters,
            pins=self.pins.book,
        )
        self.server_hosts = server_hosts(gate)
        self.guard = Guard(
            allowed_hosts=gate.allowed_hosts,
            server_hosts=self.server_hosts,
            allowed_origins=gate.allowed_origins,
            trusted_proxies=[str(network) for network in gate.trusted_proxies],
            public_url=gate.public_url,
            key_fields=("X-API-Key", *config.auth.headers),
        )
        make_id = request_ids(secrets.token_hex(4))
        self.front = Front(
            reactor,
            config,
            sockets=sockets,
            wheel=wheel,
            meters=meters,
            guard=self.guard,
            make_request_id=make_id,
            servers=lambda: [spec.name for spec in (*self.catalog.servers, *self.catalog.groups)],
            record=self._counted(self._logs.record if self._logs is not None else ignore),
            wall=time.time,
            tables=tables,
        )
        self.catalog.watch(self.front.servers_changed)
        self.grants = self.front.grant(self.pool.lend, self.access.revocations.watch)
        if self.grants is not None:
            self.catalog.watch(self.grants.withdraw_all)
        self.pages = Pages(self, make_id)
        self.dispatcher = self._make_dispatcher()
        self.reloading = Reload(self)
        self._add_stages(open_files)

    def _counted(self, record: Callable[[AccessEntry], None]) -> Callable[[AccessEntry], None]:
        answered = self.meters.answered

        def count(entry: AccessEntry) -> None:
            answered(str(entry.notes.get("server", "-")), entry.status, entry.duration_s)
            record(entry)

        return count

    def _make_dispatcher(self) -> Dispatcher:
        config, wheel, gate = self.config, self.wheel, self.access.gate
        forwarding = Forwarding(config.auth.headers)
        keepalive_s = config.gate.sse_keepalive_s
        asker = make_asker(
            self._reactor,
            pool=self.pool,
            wheel=wheel,
            forwarding=forwarding,
            keepalive_s=keepalive_s,
            charge_start=gate.charge_start,
        )
        probe = EraProbe(asker.carrier, self.eras)
        budget = EventBudget()

        def speakers(sessions: SessionTable) -> Callable[[ServerSpec], Speaker]:
            return make_speakers(
                self._reactor,
                pool=self.pool,
                sessions=sessions,
                wheel=wheel,
                forwarding=forwarding,
                book=self.eras,
                asker=asker,
                probe=probe.ask,
                keepalive_s=keepalive_s,
                charge_start=gate.charge_start,
                cold=self.snapshots.answers,
                budget=budget,
            )

        pins = Desk(pins=self.pins.book, wheel=wheel, keepalive_s=keepalive_s)
        speaker = pinned(pins, speakers(self.sessions))
        self.on_legacy = make_on_legacy(
            self._reactor,
            config.gate,
            secret=self._secret,
            wheel=wheel,
            meters=self.meters,
            speakers=speakers,
        )
        self.modern = make_modern(
            self._reactor,
            asker=asker,
            probe=probe,
            gate=gate,
            meters=self.meters,
            book=self.eras,
            streams_per_key=config.gate.streams_per_key,
            servers=self.catalog.find,
            bridge=self.on_legacy.bridge,
            used=EraWatch(self._reactor, self.eras, probe.ask, self.pool.stop).used,
            pins=pins,
        )
        self.catalog.watch(self.modern.rest.look)
        relay = Relay(
            self._reactor,
            wheel,
            forwarding,
            self.meters,
            keepalive_s=keepalive_s,
            watch=self.access.revocations.watch,
        )
        self.sse = SSEEndpoint(
            gate=gate,
            sessions=self.sessions,
            speaker=speaker,
            wheel=wheel,
            meters=self.meters,
            keepalive_s=keepalive_s,
            streams_per_key=config.gate.streams_per_key,
            make_id=lambda: secrets.token_urlsafe(16),
        )
        routes = Routes((*config.servers, *config.groups), self.server_hosts)
        self.catalog.watch(lambda: routes.replace((*self.catalog.servers, *self.catalog.groups)))
        greeting = Greeting(self.pool, self._reactor, self.pool.callers)
        greeting.serve(config.servers)
        self.access.revocations.on_revoked(greeting.forget)
        self.catalog.watch(lambda: greeting.serve(self.catalog.servers))
        return Dispatcher(
            guard=self.guard,
            show_page=self.pages.show_public,
            routes=routes,
            gate=gate,
            endpoint=MCPEndpoint(
                gate=gate,
                sessions=self.sessions,
                speaker=speaker,
                streams_per_key=config.gate.streams_per_key,
                modern=self.modern.endpoint,
            ),
            sse=self.sse,
            rest=RESTEndpoint(
                gate=gate,
                members=self.modern.members,
                clock=self._reactor,
                public_url=config.gate.public_url,
            ),
            relay=RelayRoute(
                gate=gate,
                pool=self.pool,
                relay=relay,
                passing=None if self.grants is None else self.grants.passing,
            ),
            greet=greeting,
        )

    def _add_stages(self, open_files: OpenFilesWatch) -> None:
        config, reactor = self.config, self._reactor

        @deferred
        async def refresh() -> None:
            await self.access.refresh()
            self.access.sweep()
            self.front.refresh_certificates()
            open_files.look()

        @deferred
        async def sweep() -> None:
            self.pool.sweep()
            await self.sessions.sweep()
            await self.on_legacy.sessions.sweep()

        self._public = self.front.serve(config.gate.listen, self.dispatcher)
        stages = [
            Stage("state directory", stop=self._state_dir.release),
            Stage("deadlines", stop=self.wheel.stop),
            Stage("reading", stop=self.reading.stop),
            Stage("keys", stop=self.access.close),
            Stage("sessions", start=self.sessions.load, stop=self._close_store),
            Stage("eras", start=self._kept_eras.load, stop=self._kept_eras.close),
            Stage("pins", start=self.pins.start, stop=self.pins.stop),
            Stage("snapshots", start=self.snapshots.start, stop=self.snapshots.stop),
            Stage("documents", start=self._start_documents, stop=self.documents.stop),
            Stage("instances", start=self.back.start, stop=self.back.stop),
            probe := StallProbe(reactor, self.meters),
            Watchdog(probe),
            Ticker(reactor, config.gate.sweep_s, sweep, name="sweep"),
            Ticker(reactor, REFRESH_S, refresh, name="refresh"),
            Ticker(reactor, WATCH_S, self.reloading.look, name="configuration"),
            Ticker(reactor, RECONCILE_S, self.back.look_after, name="containers"),
            Stage("scrapes", stop=self.pages.scrapes.stop),
            self.pages.control,
            Stage("drain", stop=self._drain),
            self._public,
        ]
        if self.grants is not None:
            stages.insert(-1, Ticker(reactor, GRANTS_S, self.grants.look, name="grants"))
        if config.admin.listen:
            admin = self.front.serve(config.admin.listen, self.pages.show_admin)
            admin.setName("admin listeners")  # Two services of one name are refused.
            stages.append(admin)
        stages.append(
            Stage("workers", start=self.front.start_workers, stop=self.front.close_workers)
        )
        stages.append(Stage("readiness", start=self._up, stop=self._down))
        if self._logs is not None:
            logs = self._logs
            stages.insert(0, logs.service)
            stages.insert(1, Ticker(reactor, 1.0, logs.flush, name="access log"))
            stages.append(Garbage(reactor, self.meters))
            # Embedded, memory is the business of whoever the process belongs to.
            stages.append(Ticker(reactor, 1.0, self.memory.look, name="memory"))
        for stage in stages:
            stage.setServiceParent(self)

    # --- Life -----------------------------------------------------------------------------------

    @override
    def setServiceParent(self, parent: Any) -> None:
        """Hand twistd's application our log observer, so that every line is written once."""
        if self._logs is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._logs.observer)
        super().setServiceParent(IServiceCollection(parent))

    @override
    def startService(self) -> Deferred[None]:
        started = super().startService()
        if self._logs is not None:
            started.addErrback(self._give_up)
        return started

    def _give_up(self, failure: Failure) -> None:
        """End the program: a gate that can not start must not look as if it did."""
        log.critical("The gate can not start: {why}", why=failure.getErrorMessage())
        # Whoever started it by hand looks here; the log may be a file.
        os.write(2, f"mcpgate can not start: {failure.getErrorMessage()}\n".encode())
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.callWhenRunning(self._reactor.stop)

    def _start_documents(self) -> Deferred[None]:
        return self.documents.start(self.reloading.config.servers)

    def _documents_changed(self, names: Sequence[str]) -> None:
        """Serve the tools of other documents."""
        config = self.reloading.config
        self.catalog.replace(self.documents.filled(config.servers), config.groups)
        for name in (*names, *(group.name for group in config.groups)):
            self.modern.results.forget(name)

    def _up(self) -> None:
        self.front.tell_guard()
        self._ready = True
        log.info("mcpgate is ready: {count} servers", count=len(self.config.servers))

    def _accept(self, wanted: bool) -> None:
        self.front.accept(self._public, wanted)

    def _shed_streams(self) -> int:
        """Close some event streams that nothing goes on in, those longest unused first."""
        closed = 0
        for session in self.sessions:
            stream = getattr(session.extras, "stream", None)
            if stream is not None and not stream.over and session.in_use == 1:
                _close_stream(session)
                closed += 1
                if closed >= SHED_AT_ONCE:
                    break
        return closed

    def _down(self) -> None:
        self._ready = False
        self._draining = True
        self.dispatcher.draining = True
        if self.grants is not None:
            self.grants.close()

    @deferred
    async def _drain(self) -> None:
        await in_slices(self._reactor, [one for one in self.sessions if one.kept], _close_stream)
        self.sse.close()
        self.modern.listens.close_all()
        self.on_legacy.bridge.drain()
        await self.front.drain(self.config.gate.drain_s, self._refuse_the_rest)

    def _refuse_the_rest(self) -> None:
        """Have the calls that are still in work answered, by stopping their servers."""
        self.pool.stop_all(STOP_S).addErrback(
            lambda failure: log.failure("Ending calls failed", failure)
        )

    @deferred
    async def _close_store(self) -> None:
        await self.sessions.persist()
        await self.store.close()
        self._thread.stop()

    def not_ready(self) -> list[str]:
        """Tell why the gate should get no calls now; empty when it should."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        elif not self._ready:
            reasons.append("starting")
        if self.store.degraded:
            reasons.append(self.store.degraded)
        if self._logs is not None and self._logs.degraded():
            reasons.append(self._logs.degraded())
        if not self.memory.has_room():
            reasons.append("short of memory")
        return reasons

    def gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        """Give further readings for ``/metrics``."""
        readings: dict[str, tuple[str, Callable[[], float]]] = {
            "starts_queued": ("Starts that wait for their turn.", lambda: self.pool.queued),
            "memory_used_ratio": (
                "Part of the gate's memory limit that is in use; 0 without a limit.",
                lambda: self.memory.used,
            ),
            "sessions_unwritten": ("Sessions waiting to be written.", lambda: len(self.store)),
            "sessions_held": (
                "Sessions with servers of older revisions that the gate holds for modern clients.",
                lambda: len(self.on_legacy.sessions),
            ),
            "calls_parked": (
                "Calls that wait for their clients' answers.",
                lambda: self.on_legacy.bridge.parked,
            ),
            "subscriptions": (
                "Open subscriptions of modern clients on modern servers.",
                lambda: len(self.modern.listens),
            ),
            "tools_differing": (
                "Tools of servers that are not as they were when they were trusted.",
                lambda: sum(self.pins.book.view(spec).differing for spec in self.catalog.servers),
            ),
            "results_kept": (
                "Results of modern servers kept in memory.",
                lambda: len(self.modern.results),
            ),
            "results_kept_bytes": (
                "How large the results kept are.",
                lambda: self.modern.results.bytes,
            ),
        }
        workers = self.front.workers
        if workers is not None:
            readings["workers"] = ("Worker processes that accept.", lambda: workers.accepting)
        grants = self.grants
        if grants is not None:
            readings["grants"] = (
                "What workers relay by themselves: one for each key, server and host.",
                lambda: len(grants),
            )
        if self._logs is not None:
            readings["log_lines_dropped"] = ("Log lines lost.", self._logs.dropped)
        return readings

    @property
    def started_at(self) -> float:
        """Wall clock of the start, seconds."""
        return self._started_at

    @deferred
    async def reload(self) -> list[str]:
        """
        Read everything again that can change, and open log files anew: SIGHUP.

        Gives what changed, in words; fails with why the configuration was not taken over.
        """
        log.info("Reading configuration, keys and certificates again")
        keys = self.access.reload()
        if self.front.store is not None:
            self.front.store.reload()
            self.front.tell_guard()
        if self._logs is not None:
            self._logs.service.reopen()
        self.documents.renew()
        await keys
        return await self.reloading.apply()

    def hide(self, secret: Secret) -> None:
        """Have a value that came with a reload hidden in the log too."""
        if self._logs is not None:
            self._logs.redactor.add(secret)

    def _revoked(self, principal: Principal) -> None:
        self.sse.close(principal)
        for session in self.sessions.of(principal):
            _close_stream(session)
        self.modern.listens.close(principal)
        self.on_legacy.bridge.revoke(principal)


def _close_stream(session: Session) -> None:
    close = getattr(session.extras, "close_stream", None)
    if close is not None:
        close()


def make_gateway(reactor: Any, config: Config, *, standalone: bool = False) -> Gateway:
    """
    Make a gate.

    Nothing is bound or started before its ``startService``, which answers a Deferred.

    :param standalone: the gate is the whole program: it writes the log ``[log]`` asks for, takes
        SIGHUP, and ends the program when it can not start.
    :raises GatewayError: a file or directory it needs can not be used.
    """
    logs = make_logs(reactor, time.time, config) if standalone else None
    try:
        return Gateway(reactor, config, logs)
    except _REFUSALS as error:
        raise GatewayError(str(error)) from error
