"""
A network of their own for every user whose containers need one.

Which network somebody gets follows from the gate's digests alone; addresses are the gate's to
give, because the engine's own supply ends after some thirty networks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from ipaddress import IPv4Network, ip_network
from typing import Any, Final

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from mcpgate.errors import RuntimeUnavailable
from mcpgate.model import InstanceKey, ServerSpec
from mcpgate.runtime.docker.container import LABEL_GATE, NO_NETWORK, digest
from mcpgate.runtime.docker.engine import DockerCalls, NotThere, Refused
from mcpgate.runtime.docker.firewall import CLOSED, LISTED, OPEN
from mcpgate.timing.deferreds import deferred

log = Logger()

NO_EGRESS: Final = "none"
ALLOW_LIST: Final = "allow-list"
INTERNET: Final = "internet"

_SIZE: Final = 28
_TRIES: Final = 32
# How Docker and Podman say that addresses are in use.
_TAKEN: Final = ("overlap", "already used on the host")


def reach_of(spec: ServerSpec) -> str:
    """Tell containers of one owner that may share a network from those that may not."""
    box = spec.container
    return " ".join([box.egress, *sorted(map(str, box.egress_to))])


def bridge_name(network: str, egress: str) -> str:
    """Name the bridge of a network; the firewall knows by its beginning what is behind it."""
    return {INTERNET: OPEN, ALLOW_LIST: LISTED}.get(egress, CLOSED) + network[-10:]


def network_name(gate_id: str, key: InstanceKey, egress: str) -> str:
    """
    Name the network of an owner; what everybody shares has one for each server.

    :param egress: of `reach_of`.
    """
    whose = key.owner.digest or f"shared {key.server}"
    return f"mcpgate-{digest(gate_id, whose, egress, length=20)}"


def needs_network(spec: ServerSpec) -> bool:
    """Tell whether a container must be connected to anything at all."""
    return spec.transport.listens or spec.container.egress != NO_EGRESS


def options(name: str, subnet: IPv4Network, *, egress: str, published: bool) -> dict[str, Any]:
    """
    Give the arguments of the SDK's ``create_network``.

    :param published: ports are published on the host: then the engine can not close the network
        (``internal``) itself, and the firewall must.
    """
    import docker.types  # noqa: PLC0415  # an optional requirement

    open_ = egress != NO_EGRESS
    return {
        "name": name,
        "driver": "bridge",
        "check_duplicate": True,
        "internal": not open_ and not published,
        "enable_ipv6": False,
        "options": {
            "com.docker.network.bridge.name": bridge_name(name, egress),
            "com.docker.network.bridge.enable_ip_masquerade": "true" if open_ else "false",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
        },
        "ipam": docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=str(subnet))]),
    }


def free_subnets(pool: IPv4Network, taken: Collection[IPv4Network]) -> Iterator[IPv4Network]:
    """Give the subnets of the pool that overlap with nothing taken."""
    for subnet in pool.subnets(new_prefix=_SIZE):
        if not any(subnet.overlaps(one) for one in taken):
            yield subnet


def subnets_of(listed: list[dict[str, Any]]) -> list[IPv4Network]:
    """Read the subnets out of the engine's list of networks."""
    found = []
    for network in listed:
        for config in (network.get("IPAM") or {}).get("Config") or []:
            text = config.get("Subnet") or ""
            if ":" not in text and text:
                found.append(ip_network(text, strict=False))
    return [one for one in found if isinstance(one, IPv4Network)]


def _create(wanted: dict[str, Any], client: Any) -> None:
    client.create_network(**wanted)


class Networks:
    """
    Makes networks when they are needed, and removes those nobody needs.

    :param pool: addresses for all of them.
    :param published: see `options`.
    """

    def __init__(
        self, calls: DockerCalls, *, gate_id: str, pool: IPv4Network, published: bool = False
    ) -> None:
        self._calls = calls
        self._gate_id = gate_id
        self._pool = pool
        self._published = published
        self._made: set[str] = set()
        self._lock = DeferredLock()

    @deferred
    async def ensure(self, spec: ServerSpec, key: InstanceKey) -> str:
        """Give the name of a network that exists; ``none`` for a container that needs none."""
        if not needs_network(spec):
            return NO_NETWORK
        name = network_name(self._gate_id, key, reach_of(spec))
        if name in self._made:
            return name
        await self._lock.acquire()
        try:
            if name not in self._made:
                await self._make(name, spec.container.egress)
                self._made.add(name)
        finally:
            self._lock.release()
        return name

    async def _make(self, name: str, egress: str) -> None:
        listed = await self._calls.call(lambda client: client.networks())
        if any(network.get("Name") == name for network in listed):
            return
        subnets = free_subnets(self._pool, subnets_of(listed))
        labels = {LABEL_GATE: self._gate_id}
        for _, subnet in zip(range(_TRIES), subnets, strict=False):
            wanted = options(name, subnet, egress=egress, published=self._published)
            create = partial(_create, wanted | {"labels": labels})
            try:
                await self._calls.call(create)
            except Refused as no:
                if no.status == 409 and "already exists" in no.text:
                    return
                if any(word in no.text for word in _TAKEN):
                    continue  # By something of the host's that the engine knows and we do not.
                raise
            return
        raise RuntimeUnavailable(
            "No addresses are left for another network of containers.", data={"cause": "addresses"}
        )

    def forget(self, name: str) -> None:
        """Look again before this one is used the next time: somebody removed it."""
        self._made.discard(name)

    @deferred
    async def tidy(self, kept: Collection[str]) -> int:
        """
        Remove the networks of ours but those of these names; one in use stays in any case.

        :return: how many were removed.
        """
        await self._lock.acquire()
        try:
            removed = 0
            for name, network_id in await self.unused(kept):
                self._made.discard(name)
                removed += await self._remove(network_id)
        finally:
            self._lock.release()
        return removed

    async def unused(self, kept: Collection[str]) -> list[tuple[str, str]]:
        """Give name and id of the networks of ours but those of these names."""
        label = f"{LABEL_GATE}={self._gate_id}"
        listed = await self._calls.call(lambda client: client.networks(filters={"label": label}))
        return [
            (str(network["Name"]), str(network["Id"]))
            for network in listed
            if network["Name"] not in kept
        ]

    async def _remove(self, network_id: str) -> bool:
        try:
            await self._calls.call(lambda client: client.remove_network(network_id))
        except (NotThere, Refused) as no:
            log.debug("A network stays: {why}", why=str(no))
            return False
        return True
