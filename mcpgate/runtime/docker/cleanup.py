"""
What an operator has removed of a gate's containers, networks and files: by hand, or from cron.

Only what carries this gate's id is ever seen.  The same code runs in a gate, beside everything
that is being started, and without one; then nobody starts anything (the caller holds the lock).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from mcpgate.model import ServerSpec
from mcpgate.runtime.docker import container
from mcpgate.runtime.docker.container import LABEL_GATE, LABEL_KEY, LABEL_SPEC, Known
from mcpgate.runtime.docker.engine import NotThere, Refused, translated
from mcpgate.runtime.docker.networks import Networks
from mcpgate.runtime.docker.secrets import SecretFiles
from mcpgate.telemetry.views import Leftover

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """
    What is to be removed.

    :ivar dry_run: nothing; only tell.
    :ivar stopped: containers that wait for the next call of their owner.
    :ivar orphans: containers no call will ever take up, networks and files without a container.
    """

    dry_run: bool = False
    stopped: bool = False
    orphans: bool = False


class DirectCalls:
    """
    Calls to the engine that block, for a program that has nothing else to do.

    :param client: of the SDK; its own deadline bounds each call.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def call(self, work: Callable[[Any], T], **_: object) -> Deferred[T]:
        """See `DockerCalls.call`."""
        try:
            return succeed(work(self._client))
        except Exception as error:
            return fail(translated(error))


def judge(known: Known, find: Callable[[str], ServerSpec | None], hash_key: bytes | None) -> str:
    """
    Tell why no call will ever take a container up; empty when one will.

    :param hash_key: of the labels; None when it is not known: then only the server counts.
    """
    if known.key is None:
        return "its labels can not be read"
    spec = find(known.key.server)
    if spec is None:
        return "there is no such server any more"
    fits = known.labels.get(LABEL_SPEC) == container.spec_hash(spec, hash_key or b"")
    if hash_key is not None and not fits:
        return "its server's entry has changed"
    if known.state in ("created", "dead"):
        return "it never ran"
    return ""


class Cleanup:
    """
    Finds and removes.

    :param calls: a `DockerCalls` or `DirectCalls`.
    :param find: gives the entry of a server, None when there is none any more.
    :param hash_key: see `judge`.
    :param tidied: called when networks may have gone.
    :param alive: tells of a container that the gate uses it; ``busy``: of a key's label, or a
        network's name, that a start under way counts on it; ``used``: the same, and of keys
        whose container runs.
    """

    def __init__(
        self,
        calls: Any,
        *,
        gate_id: str,
        find: Callable[[str], ServerSpec | None],
        hash_key: bytes | None,
        networks: Networks,
        files: SecretFiles,
        alive: Callable[[str], bool] = lambda _: False,
        busy: Callable[[], Collection[str]] = tuple,
        used: Callable[[], Collection[str]] = tuple,
        tidied: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> None:
        self._calls = calls
        self._gate_id = gate_id
        self._find = find
        self._hash_key = hash_key
        self._networks = networks
        self._files = files
        self._alive = alive
        self._busy = busy
        self._used = used
        self._tidied = tidied

    async def run(self, wish: Wish) -> list[Leftover]:
        """
        Remove what is wished; tell of each thing, and why it could not be removed if so.

        :raises RuntimeUnavailable: the engine does not answer.
        """
        wanted = {"label": [f"{LABEL_GATE}={self._gate_id}"]}
        listed = await self._calls.call(lambda client: client.containers(all=True, filters=wanted))
        found, left = [], []
        for known in map(container.known, listed):
            why = self._unwanted(known, wish)
            if not why:
                left.append(known)
                continue
            told = _leftover(known, why)
            if not wish.dry_run:
                told = await self._remove(known, told)
                if told.error:
                    left.append(known)
            found.append(told)
        if wish.orphans:
            found += await self._networks_and_files(left, dry_run=wish.dry_run)
        return found

    def _unwanted(self, known: Known, wish: Wish) -> str:
        if self._alive(known.container_id) or known.labels.get(LABEL_KEY, "") in self._busy():
            return ""
        why = judge(known, self._find, self._hash_key)
        if why:
            return why if wish.orphans else ""
        return "stopped" if wish.stopped and not known.running else ""

    async def _remove(self, known: Known, told: Leftover) -> Leftover:
        if known.labels.get(LABEL_KEY, "") in self._busy():
            return replace(told, error="it is being started")
        try:
            await self._calls.call(
                lambda client: client.remove_container(known.container_id, force=True, v=True)
            )
        except NotThere:
            return told
        except Refused as no:
            return replace(told, error=no.text)
        return told

    async def _networks_and_files(self, left: list[Known], *, dry_run: bool) -> list[Leftover]:
        busy = set(self._busy())
        names = {known.network for known in left} | busy
        # What was started since the list was made is not in it.
        labels = {known.labels.get(LABEL_KEY, "") for known in left} | set(self._used())
        unused = [name for name, _ in await self._networks.unused(names)]
        folders = self._files.others(labels)
        found = [
            Leftover(kind="network", name=name, why="no container is in it") for name in unused
        ]
        found += [
            Leftover(kind="files", name=name, why="no container has them") for name in folders
        ]
        if not dry_run:
            busy = set(self._busy())
            gone = await self._networks.tidy(names | busy)
            self._files.tidy(labels | set(self._used()))
            if gone:
                await self._tidied()
        return found


def _leftover(known: Known, why: str) -> Leftover:
    key = known.key
    return Leftover(
        kind="container",
        name=known.name,
        server="" if key is None else key.server,
        owner="" if key is None else key.owner.label,
        why=why,
    )
