"""The side of the servers, put together from ``[server:NAME]``: instances and upstreams."""

from __future__ import annotations

import hmac
import importlib.util
import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from mcpgate.config.model import Config
from mcpgate.errors import BackendUnavailable
from mcpgate.gate.catalog import Catalog
from mcpgate.interfaces import IInstance, IRuntime, IStdioChannel, IUpstream
from mcpgate.model import Exit, Isolation, ServerSpec, Transport
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.plan import Limits
from mcpgate.runtime.pool import InstancePool
from mcpgate.runtime.process import DEFAULT_PATH, ProcessRuntime
from mcpgate.runtime.readiness import ReadinessProbe
from mcpgate.runtime.remote import RemoteRuntime
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.upstream.modern_stdio import ModernStdioUpstream
from mcpgate.upstream.questions import question
from mcpgate.upstream.remote import reach
from mcpgate.upstream.sse import SSEUpstream
from mcpgate.upstream.sse_channel import SSEPlace
from mcpgate.upstream.stdio import StdioUpstream

if TYPE_CHECKING:
    from mcpgate.runtime.docker.runtime import DockerRuntime

log = Logger()

DOCKER_ID: Final = "docker-id"
"""File of the state directory that holds the gate's id."""
CONTAINER_ENTRIES: Final = b"entries of containers"
"""What the secret of the state directory is drawn on for, for labels of containers."""


class BackError(Exception):
    """The servers can not be run; the text says why and what to do."""


# Each step of stopping takes a server's grace; there are three.
STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """The pool and what makes its instances exist."""

    pool: InstancePool
    processes: ProcessRuntime
    containers: DockerRuntime | None
    catalog: Catalog

    @deferred
    async def start(self) -> None:
        """See what an earlier life left behind."""
        await self.processes.adopt()
        await self._adopt_containers()
        self.pool.keep_warm(self.catalog.servers)

    async def _adopt_containers(self) -> None:
        if self.containers is not None:
            for instance in await self.containers.adopt():
                spec = self.catalog.find(instance.key.server)
                if spec is not None:
                    self.pool.adopt(spec, instance)
            await self.containers.images.look()
            self.containers.images.pull_at_start(self.catalog.servers)

    def build_of(self, spec: ServerSpec) -> str:
        """Give the id of a server's image, as far as it is known; empty when it is not."""
        if self.containers is None:
            return ""
        return self.containers.images.ids.get(spec.container.image, "")

    def look_after(self) -> Deferred[None]:
        """Hold what the engine has against what we know of it; call it every so often."""
        if self.containers is None:
            return succeed(None)
        self.containers.images.look().addErrback(
            lambda failure: log.failure("Looking at images failed", failure)
        )
        return self.containers.reconcile()

    @deferred
    async def stop(self) -> None:
        """Stop every server that does not run on for our next life."""
        await self.pool.stop_all(STOP_S)
        await self.processes.shutdown()
        if self.containers is not None:
            await self.containers.shutdown()


def make_back(
    reactor: Any,
    config: Config,
    *,
    sockets: Any,
    wheel: DeadlineWheel,
    meters: Meters,
    wall: Callable[[], float],
    secret: bytes,
    catalog: Catalog | None = None,
    is_modern: Callable[[ServerSpec], bool] = lambda spec: False,
    discovers: Callable[[ServerSpec], bool] = lambda spec: False,
    has_room: Callable[[], bool] = lambda: True,
) -> Back:
    """
    Put runtimes, pool and upstreams together.

    :param sockets: what sockets and pipes are watched by; see `polled`.
    :param catalog: the servers as they are from now on; None: those of ``config``, for good.
    :param secret: of the state directory.
    :param is_modern: tells whether the process of a stdio server is spoken to in the modern era.
    :param discovers: tells whether a server on HTTP is known to speak the modern era.
    :param has_room: see `InstancePool`.
    """
    gate = config.gate
    if catalog is None:
        catalog = Catalog(config.servers)
    processes = ProcessRuntime(
        sockets,
        state_dir=str(gate.state_dir),
        meters=meters,
        path=os.environ.get("PATH", DEFAULT_PATH),
    )
    runtimes: dict[str, IRuntime] = {"process": processes, REMOTE: RemoteRuntime()}
    containers = None
    if any(spec.runtime == "docker" for spec in config.servers):
        containers = runtimes["docker"] = make_containers(
            reactor, config, meters=meters, wall=wall, secret=secret, find=catalog.find
        )
    keep = config.docker.on_stop == "keep"
    pool = InstancePool(
        reactor,
        runtimes=runtimes,
        connect=make_connect(reactor, sockets, wheel, meters, is_modern, discovers),
        probe=ReadinessProbe(reactor),
        make_id=lambda: secrets.token_hex(8),
        meters=meters,
        wall=wall,
        luck=random.random,
        limits=Limits(max_running=gate.max_running, memory_bytes=gate.memory_budget_bytes),
        start_parallel=gate.start_parallel,
        start_queue=gate.start_queue,
        current=lambda spec: catalog.find(spec.name) or spec,
        outlives=lambda spec: keep and spec.runtime == "docker" and spec.transport.listens,
        wheel=wheel,
        has_room=has_room,
    )
    return Back(pool=pool, processes=processes, containers=containers, catalog=catalog)


def make_containers(
    reactor: Any,
    config: Config,
    *,
    meters: Meters,
    wall: Callable[[], float],
    secret: bytes,
    find: Callable[[str], ServerSpec | None],
) -> DockerRuntime:
    """
    Make the runtime of ``[docker]``.

    :raises BackError: the SDK is not installed.
    """
    if importlib.util.find_spec("docker") is None:
        raise BackError(
            "A [server:NAME] has an image, and the docker SDK is not installed: "
            "pip install 'mcpgate[docker]'"
        )
    # A MiB that a gate without containers does without.
    from mcpgate.runtime.docker.build import DockerSettings, make_docker_runtime  # noqa: PLC0415
    from mcpgate.runtime.docker.secrets import default_root  # noqa: PLC0415

    section, state_dir = config.docker, config.gate.state_dir
    gate_id = section.gate_id or kept_gate_id(state_dir)
    files_dir = str(section.files_dir or default_root(os.environ, gate_id))
    return make_docker_runtime(
        reactor,
        DockerSettings(
            url=section.url,
            gate_id=gate_id,
            subnets=section.subnets,
            published=section.reach == "published",
            firewall=section.firewall == "gate",
            keep=section.on_stop == "keep",
            files_dir=files_dir,
        ),
        state_dir=str(state_dir),
        hash_key=hmac.digest(secret, CONTAINER_ENTRIES, "sha256"),
        find=find,
        specs=config.servers,
        meters=meters,
        wall=wall,
    )


def kept_gate_id(state_dir: Path) -> str:
    """Give the id of the gate with this state directory; made on first use."""
    path = state_dir / DOCKER_ID
    try:
        kept = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return kept
    # Empty after a crash or on a full disk: with no id every such gate's containers were ours.
    made = secrets.token_hex(6)
    path.write_text(made + "\n", encoding="ascii")
    return made


def make_connect(
    reactor: Any,
    sockets: Any,
    wheel: DeadlineWheel,
    meters: Meters,
    is_modern: Callable[[ServerSpec], bool] = lambda spec: False,
    discovers: Callable[[ServerSpec], bool] = lambda spec: False,
) -> Callable[[ServerSpec, IInstance], IUpstream]:
    """
    Give what makes the upstream of an instance that has just become ready.

    :param sockets: see `make_back`.
    """

    def connect(spec: ServerSpec, instance: IInstance) -> IUpstream:
        if spec.transport is Transport.STDIO:
            if instance.channel is None:
                raise BackendUnavailable("The server has no pipes.")
            if is_modern(spec):
                return ModernStdioUpstream(
                    instance.channel,
                    clock=reactor,
                    wheel=wheel,
                    ended=instance.when_ended(),
                    meters=meters,
                    name=instance.instance_id,
                    max_calls=spec.max_calls,
                    strangers=spec.isolation is Isolation.SHARED,
                )
            return converse(spec, instance.channel, instance.when_ended(), instance.instance_id)
        place = reach(sockets, spec, instance.address)
        http = HTTPUpstream(
            reactor,
            place.make_endpoint,
            authority=place.authority,
            wheel=wheel,
            meters=meters,
            question=lambda: question(spec, place.target, modern=discovers(spec)),
        )
        if spec.transport is not Transport.SSE:
            return http
        scheme = urlsplit(spec.url).scheme or "http"
        return SSEUpstream(
            http,
            SSEPlace(origin=f"{scheme}://{place.authority.decode('ascii')}", target=place.target),
            make=partial(converse, spec),
            name=instance.instance_id,
            clock=reactor,
            wheel=wheel,
            ended=instance.when_ended(),
            is_process=not spec.url,
            message_s=spec.call_timeout_max_s,
        )

    def converse(
        spec: ServerSpec, channel: IStdioChannel, ended: Deferred[Exit], name: str
    ) -> StdioUpstream:
        return StdioUpstream(
            channel,
            clock=reactor,
            wheel=wheel,
            ended=ended,
            meters=meters,
            name=name,
            max_calls=spec.max_calls,
            broadcast_logs=spec.isolation is not Isolation.SHARED,
        )

    return connect
