"""The Docker runtime and its parts, put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, Final

from mcpgate.model import ServerSpec
from mcpgate.runtime.docker.container import LABEL_GATE
from mcpgate.runtime.docker.egress import AllowLists
from mcpgate.runtime.docker.engine import DEADLINE_S, DockerCalls, connect
from mcpgate.runtime.docker.events import EventStream
from mcpgate.runtime.docker.firewall import Firewall
from mcpgate.runtime.docker.images import Images
from mcpgate.runtime.docker.names import Names, resolve
from mcpgate.runtime.docker.networks import Networks
from mcpgate.runtime.docker.runtime import DockerRuntime
from mcpgate.runtime.docker.secrets import SecretFiles
from mcpgate.runtime.places import Places
from mcpgate.telemetry.meters import Meters

SUBNETS: Final = IPv4Network("10.213.0.0/16")

# Longest silence of an engine that pulls: unpacking a layer says nothing.
_PULL_SILENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """
    What the runtime is told by the configuration.

    :ivar url: of the engine; empty: as the ``docker`` command finds it.
    :ivar gate_id: tells containers of this gate from those of others on the same engine.
    :ivar subnets: addresses for the networks of users.
    :ivar published: reach servers on HTTP by ports published on 127.0.0.1.
    :ivar firewall: the gate puts up the rules that keep containers from the host.
    :ivar keep: servers on HTTP run on when the gate stops, for its next life.
    :ivar files_dir: folder for files of servers, on a tmpfs.
    """

    url: str = ""
    gate_id: str
    subnets: IPv4Network = SUBNETS
    published: bool = False
    firewall: bool = True
    keep: bool = True
    files_dir: str
    deadline_s: float = DEADLINE_S
    threads: int = field(default=8)


def make_docker_runtime(
    reactor: Any,
    settings: DockerSettings,
    *,
    state_dir: str,
    hash_key: bytes,
    find: Callable[[str], ServerSpec | None],
    meters: Meters,
    wall: Callable[[], float],
    specs: Iterable[ServerSpec] = (),
    resolve: Callable[[str], Sequence[str]] = resolve,
) -> DockerRuntime:
    """
    Make one; nothing is asked of the engine yet.

    :param hash_key: for the digest of a server's entry in a label.
    :param find: gives the entry of a server.
    :param specs: every entry, for what is told of images.
    :param wall: wall clock, seconds.
    :param resolve: gives the addresses of a name; blocks.
    """
    runtimes: list[DockerRuntime] = []

    def back() -> None:
        for one in runtimes:
            one.engine_is_back()

    calls = DockerCalls(
        reactor,
        lambda: connect(settings.url, settings.deadline_s),
        meters=meters,
        back=back,
        threads=settings.threads,
        deadline_s=settings.deadline_s,
    )

    def pulls() -> DockerCalls:
        return DockerCalls(
            reactor, lambda: connect(settings.url, _PULL_SILENCE_S), meters=meters, threads=1
        )

    def events(
        received: Callable[[Mapping[str, Any]], None], opened: Callable[[], None]
    ) -> EventStream:
        return EventStream(
            reactor.callFromThread,
            lambda: connect(settings.url, settings.deadline_s),
            label=f"{LABEL_GATE}={settings.gate_id}",
            received=received,
            opened=opened,
        )

    firewall = Firewall(reactor) if settings.firewall else None
    files = SecretFiles(settings.files_dir)
    runtime = DockerRuntime(
        reactor,
        calls=calls,
        events=events,
        gate_id=settings.gate_id,
        hash_key=hash_key,
        find=find,
        networks=Networks(
            calls, gate_id=settings.gate_id, pool=settings.subnets, published=settings.published
        ),
        firewall=firewall,
        files=files,
        lists=AllowLists(Names(reactor, resolve=resolve), firewall, files),
        places=Places(os.path.abspath(state_dir)),
        images=Images(reactor, calls, pulls, specs),
        meters=meters,
        wall=wall,
        published=settings.published,
        keep=settings.keep,
    )
    runtimes.append(runtime)
    return runtime
