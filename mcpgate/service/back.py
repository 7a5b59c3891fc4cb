"""The side of the servers, put together from ``[server:NAME]``: instances and upstreams."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcpgate.config.model import Config
from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IInstance, IUpstream
from mcpgate.model import Isolation, ServerSpec, Transport
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.plan import Limits
from mcpgate.runtime.pool import InstancePool
from mcpgate.runtime.process import DEFAULT_PATH, ProcessRuntime
from mcpgate.runtime.readiness import ReadinessProbe
from mcpgate.runtime.remote import RemoteRuntime
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream, plain_endpoint, remote
from mcpgate.upstream.stdio import StdioUpstream

# Each step of stopping takes a server's grace; there are three.
STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """The pool and what makes its instances exist."""

    pool: InstancePool
    processes: ProcessRuntime

    @deferred
    async def start(self) -> None:
        """See what an earlier life left behind."""
        await self.processes.adopt()

    @deferred
    async def stop(self) -> None:
        """Stop every server."""
        await self.pool.stop_all(STOP_S)
        await self.processes.shutdown()


def make_back(
    reactor: Any,
    config: Config,
    *,
    wheel: DeadlineWheel,
    meters: Meters,
    wall: Callable[[], float],
) -> Back:
    """Put runtimes, pool and upstreams together."""
    gate = config.gate
    processes = ProcessRuntime(
        reactor,
        state_dir=str(gate.state_dir),
        meters=meters,
        path=os.environ.get("PATH", DEFAULT_PATH),
    )
    pool = InstancePool(
        reactor,
        runtimes={"process": processes, REMOTE: RemoteRuntime()},
        connect=make_connect(reactor, wheel, meters),
        probe=ReadinessProbe(reactor),
        make_id=lambda: secrets.token_hex(8),
        meters=meters,
        wall=wall,
        luck=random.random,
        limits=Limits(max_running=gate.max_running, memory_bytes=gate.memory_budget_bytes),
        start_parallel=gate.start_parallel,
        start_queue=gate.start_queue,
    )
    return Back(pool=pool, processes=processes)


def make_connect(
    reactor: Any, wheel: DeadlineWheel, meters: Meters
) -> Callable[[ServerSpec, IInstance], IUpstream]:
    """Give what makes the upstream of an instance that has just become ready."""

    def connect(spec: ServerSpec, instance: IInstance) -> IUpstream:
        if spec.transport is Transport.STDIO:
            if instance.channel is None:
                raise BackendUnavailable("The server has no pipes.")
            return StdioUpstream(
                instance.channel,
                clock=reactor,
                wheel=wheel,
                ended=instance.when_ended(),
                meters=meters,
                name=instance.instance_id,
                max_calls=spec.max_calls,
                broadcast_logs=spec.isolation is not Isolation.SHARED,
            )
        if spec.url:
            place = remote(reactor, spec.url)
            return HTTPUpstream(
                reactor,
                place.make_endpoint,
                authority=place.authority,
                wheel=wheel,
                meters=meters,
            )
        if instance.address is None:
            raise BackendUnavailable("The server has no address.")
        host, port = instance.address
        return HTTPUpstream(
            reactor,
            lambda: plain_endpoint(reactor, host, port),
            authority=f"{host}:{port}".encode("ascii"),
            wheel=wheel,
            meters=meters,
        )

    return connect
