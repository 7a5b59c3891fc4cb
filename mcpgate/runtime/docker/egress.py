"""
``egress = allow-list``: containers that reach what their entry names, and nothing else.

The gate looks up the names, opens exactly their addresses and ports in the firewall, and tells the
container in a file of its own in place of ``/etc/hosts``: inside, nothing else can be looked up,
for names can carry data out.  Both follow when an answer changes.  A name that stands for an
address that is not public opens nothing, unless that address is listed as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from twisted.logger import Logger

from mcpgate.errors import RuntimeUnavailable
from mcpgate.model import Destination
from mcpgate.runtime.docker.firewall import KEPT_FROM, Firewall, Opening
from mcpgate.runtime.docker.names import Names
from mcpgate.runtime.docker.secrets import SecretFiles
from mcpgate.timing.deferreds import deferred

log = Logger()

_KEPT_FROM: Final = tuple(IPv4Network(one) for one in KEPT_FROM)
_HOSTS: Final = "127.0.0.1 localhost\n"


def may_open(address: str, destinations: Iterable[Destination]) -> bool:
    """Tell whether an address a name stands for may be opened: it is public, or listed itself."""
    found = IPv4Address(address)
    if not any(found in network for network in _KEPT_FROM):
        return True
    return any(found in one.network for one in destinations if one.network is not None)


def openings(
    destinations: Sequence[Destination], addresses: Callable[[str], Iterable[str]]
) -> list[Opening]:
    """
    Give what is opened in the firewall, in an order that is always the same.

    :param addresses: gives those of a name.
    """
    found: set[Opening] = set()
    for one in destinations:
        if one.network is not None:
            found.add(Opening(one.network, one.port))
            continue
        for address in addresses(one.host):
            if may_open(address, destinations):
                found.add(Opening(IPv4Network(address), one.port))
    return sorted(found)


def hosts_text(
    destinations: Sequence[Destination], addresses: Callable[[str], Iterable[str]]
) -> str:
    """Give the container's ``/etc/hosts``."""
    lines: dict[str, None] = {}
    for one in destinations:
        if one.network is None:
            for address in addresses(one.host):
                if may_open(address, destinations):
                    lines[f"{address} {one.host}\n"] = None
    return _HOSTS + "".join(lines)


def hosts_read(text: str) -> dict[str, list[str]]:
    """Read what `hosts_text` gave."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines()[1:]:
        address, _, name = line.partition(" ")
        found.setdefault(name, []).append(address)
    return found


@dataclass(slots=True, kw_only=True)
class _Open:
    """
    :ivar text: of its hosts file.
    :ivar opened: in the firewall.
    """

    bridge: str
    destinations: tuple[Destination, ...]
    text: str = ""
    opened: list[Opening] | None = None


class AllowLists:
    """
    The lists of containers that run.

    :param firewall: None where the rules are somebody else's: then nothing can be opened.
    """

    def __init__(self, names: Names, firewall: Firewall | None, files: SecretFiles) -> None:
        self._names = names
        self._firewall = firewall
        self._files = files
        self._open: dict[str, _Open] = {}

    @deferred
    async def open(self, label: str, bridge: str, destinations: tuple[Destination, ...]) -> str:
        """
        Let the containers behind a bridge reach what is listed; give the hosts file's path.

        :param label: of the container.
        :raises RuntimeUnavailable: the rules can not be put up.
        :raises OSError: the file can not be written.
        """
        one = self._open[label] = _Open(bridge=bridge, destinations=destinations)
        for name, addresses in hosts_read(self._files.hosts(label)).items():
            self._names.recall(name, addresses)
        await self._names.look_up(_names(destinations))
        why = await self._renew(label, one)
        if why:
            self._open.pop(label, None)
            log.error("A list of what may be reached can not be put up: {why}", why=why)
            raise RuntimeUnavailable(
                "What the container may reach can not be set up: see the log.",
                data={"cause": "firewall"},
            )
        return self._files.hosts_path(label)

    def close(self, label: str) -> None:
        """Forget a container that has ended; its rules go with its network."""
        self._open.pop(label, None)

    @deferred
    async def renew(self) -> None:
        """Follow the names; call it every minute.  Also puts up again what somebody removed."""
        if self._firewall is None or not self._open:
            return
        standing = await self._firewall.lists()
        wanted = [name for one in self._open.values() for name in _names(one.destinations)]
        await self._names.look_up(wanted)
        for label, one in tuple(self._open.items()):
            if one.bridge not in standing:
                one.opened = None
            try:
                why = await self._renew(label, one)
            except OSError as error:
                why = str(error)
            if why:
                log.error("A list of what may be reached is not renewed: {why}", why=why)

    async def _renew(self, label: str, one: _Open) -> str:
        if self._firewall is None:
            return "the firewall is not the gate's"
        wanted = openings(one.destinations, self._names.lately)
        if wanted != one.opened:
            why = await self._firewall.open_list(one.bridge, wanted)
            if why:
                return why
            one.opened = wanted
        text = hosts_text(one.destinations, self._names.now)
        if text != one.text:
            self._files.write_hosts(label, text)
            one.text = text
        return ""


def _names(destinations: Iterable[Destination]) -> list[str]:
    return [one.host for one in destinations if one.network is None]
