"""What the control socket has done: the words of an operator put to pool and engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
    gatherResults,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import BadRequest, NotFound
from mcpgate.gate.access.operator import operator
from mcpgate.model import Caller, InstanceKey, InstanceState, Isolation, ServerSpec
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.pool import Report
from mcpgate.telemetry.views import ImageView, InstanceView, Leftover, LogView
from mcpgate.timing.deferreds import deferred
from mcpgate.web.mcp.post import owner_of
from mcpgate.web.pages.control import Chosen, Tidying

if TYPE_CHECKING:
    from mcpgate.runtime.docker.container import Known
    from mcpgate.service.gateway import Gateway

log = Logger()

LOOK_S = 5.0
"""Images are looked at for this long before what was last seen is told."""

_ALIVE = (InstanceState.RUNNING, InstanceState.STARTING)


class ControlWork:
    """
    See `mcpgate.web.pages.control.ControlView`.

    :param wall: wall clock, seconds.
    """

    def __init__(self, gateway: Gateway, wall: Callable[[], float]) -> None:
        self._gateway = gateway
        self._wall = wall

    def _spec(self, server: str) -> ServerSpec | None:
        return self._gateway.catalog.find(server)

    def _reports(self, chosen: Chosen) -> list[Report]:
        return [
            report
            for report in self._gateway.pool.instances()
            if chosen.server in ("", report.key.server)
            and chosen.owner in ("", report.key.owner.label)
            and chosen.user in ("", report.user)
        ]

    # --- Looking ------------------------------------------------------------------------------

    @deferred
    async def left(self) -> list[InstanceView]:
        """See `ControlView.left`."""
        containers = self._gateway.back.containers
        if containers is None:
            return []
        found = [self._left(known) for known in await containers.left()]
        return [view for view in found if view is not None]

    def _left(self, known: Known) -> InstanceView | None:
        key = known.key
        if key is None:
            return None
        spec = self._spec(key.server)
        return InstanceView(
            server=key.server,
            owner=key.owner.label,
            state=InstanceState.STOPPED.value,
            instance_id=known.instance_id,
            image=known.image_id if spec is None else spec.container.image,
            exit_reason="" if known.exit_code is None else "exited",
            exit_code=known.exit_code,
        )

    @deferred
    async def images(self) -> Sequence[ImageView]:
        """See `ControlView.images`."""
        containers = self._gateway.back.containers
        if containers is None:
            return ()
        try:
            await containers.images.look().addTimeout(LOOK_S, self._gateway.clock)
        except (TimeoutError, CancelledError):
            log.info("Images were not all looked at within {s} s", s=LOOK_S)
        return containers.images.views()

    def logs(self, chosen: Chosen) -> Mapping[str, Sequence[str]] | None:
        """See `ControlView.logs`."""
        if self._spec(chosen.server) is None:
            return None
        pool = self._gateway.pool
        return {report.key.owner.label: pool.logs(report.key) for report in self._reports(chosen)}

    def follow(self, chosen: Chosen, cursors: Mapping[str, str]) -> Mapping[str, LogView] | None:
        """See `ControlView.follow`."""
        if self._spec(chosen.server) is None:
            return None
        return {
            label: self._gateway.pool.follow(report.key, cursors.get(label, ""))
            for report in self._reports(chosen)
            for label in [report.key.owner.label]
        }

    # --- Removing -----------------------------------------------------------------------------

    @deferred
    async def clean_up(self, tidying: Tidying) -> list[Leftover]:
        """See `ControlView.clean_up`."""
        found = []
        containers = self._gateway.back.containers
        if containers is not None and (tidying.stopped or tidying.orphans):
            from mcpgate.runtime.docker.cleanup import Wish  # noqa: PLC0415 - see `make_containers`

            found += await containers.clean_up(
                Wish(dry_run=tidying.dry_run, stopped=tidying.stopped, orphans=tidying.orphans)
            )
        processes = self._gateway.back.processes
        for label in tidying.data:
            for server, folder in processes.data_of(label):
                told = data_leftover(server, folder, used=self._uses(server, folder))
                if not tidying.dry_run and not told.error:
                    await processes.forget_data(folder)
                found.append(told)
        return found

    def _uses(self, server: str, folder: str) -> bool:
        """Tell whether a copy runs on a data folder, or is on its way."""
        quiet = (InstanceState.ABSENT, InstanceState.STOPPED, InstanceState.FAILED)
        return any(
            report.key.server == server
            and (report.key.owner.digest.replace("/", "-") or "shared") == os.path.basename(folder)
            and report.state not in quiet
            for report in self._gateway.pool.instances()
        )

    # --- Starting and stopping ------------------------------------------------------------------

    def stop(self, chosen: Chosen) -> Deferred[list[tuple[str, str]]] | None:
        """See `ControlView.stop`."""
        if chosen.server and self._spec(chosen.server) is None:
            return None
        now = self._wall()
        stopping: list[Deferred[None]] = []
        named = []
        for report in self._reports(chosen):
            used = report.leases > 0 or report.state is not InstanceState.RUNNING
            idle_s = now - report.last_use_at
            if chosen.idle_s is not None and (used or idle_s < chosen.idle_s):
                continue
            if report.state in _ALIVE:
                named.append((report.key.server, report.key.owner.label))
                stopping.append(self._gateway.pool.stop(report.key))
        return gatherResults(stopping).addCallback(lambda _: named)

    def start(self, chosen: Chosen) -> Deferred[list[tuple[str, str]]] | None:
        """See `ControlView.start`."""
        spec = self._spec(chosen.server)
        return None if spec is None else self._start(spec, chosen)

    @deferred
    async def _start(self, spec: ServerSpec, chosen: Chosen) -> list[tuple[str, str]]:
        if spec.runtime == REMOTE:
            raise BadRequest(f"Server '{spec.name}' is remote: the gate does not start it.")
        if spec.isolation is Isolation.PER_SESSION:
            raise BadRequest(f"Server '{spec.name}' is started with each session of its own.")
        owners = {
            owner_of(spec, caller.principal, ""): caller
            for caller in await self.callers(spec, chosen)
        }
        for owner in owners:
            self._gateway.pool.forgive(InstanceKey(spec.name, owner))
        waiting = [
            self._gateway.pool.lease(spec, owner, caller) for owner, caller in owners.items()
        ]
        results = await DeferredList(waiting, consumeErrors=True)
        for good, result in results:
            if good:
                result.release()
        for _, result in results:
            if isinstance(result, Failure):
                result.raiseException()
        return [(spec.name, owner.label) for owner in owners]

    def callers(self, spec: ServerSpec, chosen: Chosen) -> Deferred[list[Caller]]:
        """Find in whose name to start or ask; raises why nobody's."""
        if spec.isolation is Isolation.SHARED and spec.group is None:
            return succeed([operator()])
        if chosen.key is not None:
            return self._gateway.access.gate.vouch(chosen.key).addCallback(
                lambda caller: [_allowed(spec, caller)]
            )
        if not chosen.owner and not chosen.user:
            raise BadRequest(f"Server '{spec.name}' runs once for each key: say for whose.")
        found = [
            caller
            for caller in self._gateway.pool.callers()
            if chosen.owner in ("", caller.principal.fingerprint)
            and chosen.user in ("", caller.principal.subject)
        ]
        if not found:
            raise NotFound(
                "Nobody of that name has called since the gate started, and keys are not kept: "
                "show the key."
            )
        return succeed([_allowed(spec, caller) for caller in found])


def data_leftover(server: str, folder: str, *, used: bool) -> Leftover:
    """Tell of a data folder that was asked for."""
    name = os.path.basename(folder)
    return Leftover(
        kind="data",
        name=folder,
        server=server,
        owner=name if name == "shared" else name[:8],
        why="asked for",
        error="an instance uses it: stop that first" if used else "",
    )


def _allowed(spec: ServerSpec, caller: Caller) -> Caller:
    names = (spec.name, *(() if spec.group is None else spec.group.servers))
    if not any(map(caller.may_use, names)):
        raise BadRequest(f"That key may not use server '{spec.name}'.")
    return caller
