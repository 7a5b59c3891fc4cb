"""The gate's own pages and its control socket, told where to look."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime

from mcpgate._version import __version__
from mcpgate.config.model import AdminSection
from mcpgate.errors import GateError
from mcpgate.gate.access.lockout import Lockout
from mcpgate.interfaces import IInbound
from mcpgate.model import InstanceState, Secret
from mcpgate.runtime.pool import Report
from mcpgate.service.control_ask import ControlAsk
from mcpgate.service.control_work import ControlWork
from mcpgate.stores.sqlite import OneThread
from mcpgate.telemetry.metrics import GateCollector, Metrics
from mcpgate.telemetry.views import (
    UNRESPONSIVE,
    CertificateView,
    EngineView,
    EraView,
    ImageView,
    InstanceView,
    PinView,
    WorkerView,
)
from mcpgate.timing.late import Late
from mcpgate.web.listening.open_files import count_open_files
from mcpgate.web.mcp.session_state import public
from mcpgate.web.pages.admin import AdminView, ProcessView
from mcpgate.web.pages.admin_access import AdminAccess, AdminUsers
from mcpgate.web.pages.control import ControlService, ControlView
from mcpgate.web.pages.first import FirstPages
from mcpgate.web.refusal import refuse

if TYPE_CHECKING:
    from mcpgate.service.gateway import Gateway

USERS_FILE_BYTES = 1 << 20


def admin_users(admin: AdminSection) -> AdminUsers:
    """
    Read who may see statistics.

    :raises PasswordError: a hash can not be read.
    :raises OSError: the users file can not be read.
    """
    pepper = os.urandom(32)
    if admin.users_file is not None:
        with admin.users_file.open(encoding="utf-8") as file:
            return AdminUsers.parse(file.read(USERS_FILE_BYTES), pepper)
    password: Secret | str | None = admin.password or admin.password_hash
    return AdminUsers({admin.user: password} if admin.user and password else {}, pepper)


class Pages:
    """
    What a gate shows of itself.

    :ivar control: the control socket, to be started with the rest.
    :ivar scrapes: the thread that makes the text of ``/metrics``, to be stopped with the rest.
    """

    def __init__(self, gateway: Gateway, make_id: Callable[[], str]) -> None:
        self._gateway = gateway
        self.scrapes = OneThread(gateway.clock.callFromThread, "scrapes")
        config = gateway.config
        admin = config.admin
        lockout = Lockout(gateway.clock, gateway.meters)
        collector = GateCollector(
            gateway.meters,
            version=__version__,
            servers=lambda: [spec.name for spec in gateway.catalog.servers],
            instances=self.instances,
            sessions=gateway.sessions.count_by_server,
            certificates=self.certificates,
            images=self.images,
            engine=self.engine,
            gauges=gateway.gauges(),
        )
        view = AdminView(
            version=__version__,
            started_at=gateway.started_at,
            wall=time.time,
            meters=gateway.meters,
            unready=gateway.not_ready,
            instances=self.instances,
            sessions=gateway.sessions.views,
            session_counts=gateway.sessions.count_by_server,
            certificates=self.certificates,
            images=self.images,
            engine=self.engine,
            eras=self.eras,
            pins=self.pins,
            process=own_process,
            workers=self.workers,
            metrics=Metrics(collector, self.scrapes.run).render,
        )
        users = admin_users(admin)

        def pages_of(shown: bool) -> FirstPages:
            access = AdminAccess(
                users=users,
                allow=admin.allow,
                proxies=config.gate.trusted_proxies,
                enabled=shown and admin.stats,
                held_back=lambda address: _held_back(lockout, address),
                wrong=lockout.failed,
            )
            tree = Late(
                gateway.reading.run,
                _load_tree,
                lambda serving: serving(
                    view, access, make_id=make_id, realm=config.auth.realm, clock=gateway.clock
                ),
            )
            return FirstPages(view, access, realm=config.auth.realm, rest=partial(_from_tree, tree))

        # With listeners of their own, statistics are not on the public ones.
        self._public = pages_of(not admin.listen)
        self._private = pages_of(True)
        work = ControlWork(gateway, time.time)
        questions = ControlAsk(gateway, work)
        commands = ControlView(
            version=__version__,
            started_at=gateway.started_at,
            wall=time.time,
            instances=self.instances,
            sessions=gateway.sessions.views,
            left=work.left,
            images=work.images,
            logs=work.logs,
            follow=work.follow,
            start=work.start,
            stop=work.stop,
            servers=questions.servers,
            ask=questions.ask,
            pins=questions.pins,
            clean_up=work.clean_up,
            reload=self.reload,
        )
        site = Late(
            gateway.reading.run,
            _load_control,
            lambda making: making(commands, make_id=make_id, clock=gateway.clock),
        )
        self.control = ControlService(gateway.clock, config.gate.state_dir, site.get)

    def show_public(self, inbound: IInbound) -> None:
        """Answer a request on the listeners for everybody that belongs to no server."""
        self._public.serve(inbound)

    def show_admin(self, inbound: IInbound) -> None:
        """Answer a request on the listeners of ``[admin]``."""
        try:
            if not self._gateway.guard.check(inbound):
                self._private.serve(inbound)
        except GateError as error:
            refuse(inbound, error)

    # --- What there is to see -------------------------------------------------------------------

    def instances(self) -> list[InstanceView]:
        """Describe every instance known."""
        now = time.time()
        return [view_of(report, now) for report in self._gateway.pool.instances()]

    def eras(self) -> list[EraView]:
        """Tell of every server which eras it speaks."""
        views = []
        for spec in self._gateway.catalog.servers:
            known = self._gateway.eras.known(spec)
            views.append(
                EraView(
                    server=spec.name, era=known.words, pinned=known.pinned, seen_at=known.seen_at
                )
            )
        return views

    def pins(self) -> list[PinView]:
        """Tell of every server how its tools are to those that were trusted."""
        return [self._gateway.pins.book.view(spec) for spec in self._gateway.catalog.servers]

    def images(self) -> Sequence[ImageView]:
        """Describe the images of servers in containers."""
        containers = self._gateway.back.containers
        return () if containers is None else containers.images.views()

    def engine(self) -> EngineView | None:
        """Describe the container engine; None when no server is in a container."""
        containers = self._gateway.back.containers
        return None if containers is None else containers.engine()

    def workers(self) -> Sequence[WorkerView]:
        """Describe the processes that take connections for this one."""
        workers = self._gateway.front.workers
        return () if workers is None else workers.views()

    def certificates(self) -> Sequence[CertificateView]:
        """Describe the certificates served."""
        store = self._gateway.front.store
        if store is None:
            return ()
        return [
            CertificateView(name=c.names[0] if c.names else "-", expires_at=c.not_after.timestamp())
            for c in store.certificates
        ]

    def reload(self) -> Deferred[list[str]]:
        """See `ControlView.reload`."""
        return self._gateway.reload()


def _load_tree() -> Callable[..., Callable[[IInbound], None]]:
    """Import Klein, which takes long, and what stands on it."""
    from mcpgate.web.pages.tree import GateTree  # noqa: PLC0415 - the same
    from mcpgate.web.wire.klein_channel import ResourceServer  # noqa: PLC0415 - the same

    def serving(
        view: AdminView,
        access: AdminAccess,
        *,
        make_id: Callable[[], str],
        realm: str,
        clock: IReactorTime,
    ) -> Callable[[IInbound], None]:
        tree = GateTree(view, access, make_id=make_id, realm=realm)
        return ResourceServer(tree.resource(), clock=clock).serve

    return serving


def _load_control() -> Callable[..., IProtocolFactory]:
    """Import Klein, which takes long, and what stands on it."""
    from mcpgate.web.pages.control_tree import make_site  # noqa: PLC0415 - the same

    return make_site


def _from_tree(tree: Late[Callable[[IInbound], None]], inbound: IInbound) -> None:
    tree.get().addCallback(lambda serve: serve(inbound)).addErrback(
        lambda failure: refuse(inbound, public(failure, inbound))
    )


def view_of(report: Report, now: float) -> InstanceView:
    """Put a report of the pool into what is shown."""
    running = report.state is InstanceState.RUNNING
    return InstanceView(
        server=report.key.server,
        owner=report.key.owner.label,
        state=UNRESPONSIVE if running and report.unresponsive else report.state.value,
        instance_id=report.instance_id,
        user=report.user,
        uptime_s=now - report.since_at if running else None,
        idle_s=now - report.last_use_at,
        heard_s=None if report.heard_at is None else now - report.heard_at,
        calls=report.leases,
        starts=report.starts,
        memory_bytes=report.usage.memory_bytes,
        cpu_s=report.usage.cpu_s,
        processes=report.usage.processes,
        oom_kills=report.usage.oom_kills,
        image=report.spec.container.image,
        memory_limit_bytes=report.spec.restraint.memory_bytes,
        exit_reason="" if report.last_exit is None else report.last_exit.reason,
        exit_code=None if report.last_exit is None else report.last_exit.code,
        error=report.error,
    )


def _held_back(lockout: Lockout, address: str) -> float:
    try:
        lockout.check(address)
    except GateError as error:
        return error.retry_after_s or 1.0
    return 0.0


def own_process() -> ProcessView:
    """Tell what the gate's own process uses."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    used = os.times()
    return ProcessView(
        memory_bytes=int(pages) * os.sysconf("SC_PAGE_SIZE"),
        cpu_s=used.user + used.system,
        open_files=count_open_files(),
    )
