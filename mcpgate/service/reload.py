"""
Taking over a changed ``gate.ini`` while the gate runs.

The file is read and checked as a whole; servers that need nothing of a caller are tried out
beside the old ones, some at once; then the catalog is swapped in one turn.  Whatever fails before
that leaves everything as it was.  Servers whose entry did not change keep processes, sessions and
streams.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.internet.defer import (
    Deferred,
    DeferredSemaphore,
    FirstError,
    gatherResults,
    succeed,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.config.changes import Changes, compare
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError
from mcpgate.errors import BadRequest, GateError, Overloaded, RateLimited
from mcpgate.interfaces import IUpstream
from mcpgate.mcp.evidence import refuses_legacy
from mcpgate.mcp.revisions import LATEST_LEGACY
from mcpgate.model import ServerSpec
from mcpgate.runtime.attempt import REMOTE
from mcpgate.timing.deferreds import deferred
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.upstream.stdio_handshake import InitializeRefused

if TYPE_CHECKING:
    from mcpgate.service.gateway import Gateway

log = Logger()

# Servers that were taken out have so long for their calls.
RETIRE_S: Final = 30.0
# All trials of a reload together have so long, or as long as the slowest one may take alone.
TRIALS_S: Final = 300.0
# A trial's handshake, and what it waits beyond the deadline of its start.
TRIAL_MARGIN_S: Final = 45.0
# A trial that finds no room while others of its reload are under way comes again.
ROOM_S: Final = 1.0

_SHAKE: Final[dict[str, object]] = {
    "protocolVersion": LATEST_LEGACY.name,
    "capabilities": {},
    "clientInfo": {"name": "mcpgate", "version": "1"},
}


class Reload:
    """
    Reads the configuration of a gate again.

    :param read: gives the configuration as the file says now; reads it on a thread of the
        gateway's by default, for a large one takes long.
    :ivar config: what counts now, but for what needs a restart.
    """

    def __init__(
        self,
        gateway: Gateway,
        read: Callable[[Path], Deferred[Config]] | None = None,
    ) -> None:
        self._gateway = gateway
        self._read = read if read is not None else self._read_apart
        # Who waits for the reload that is under way; None when none is.
        self._under_way: list[Deferred[None]] | None = None
        self._stamps = self._look()
        self.config = gateway.config

    # --- When -------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take over the files if one was written since the last look; for a ticker."""
        stamps = self._look()
        if stamps == self._stamps or self._under_way is not None:
            return
        self._stamps = stamps
        self.apply().addErrback(lambda failure: None)

    def _look(self) -> list[tuple[str, int, int]]:
        config = self._gateway.config if not hasattr(self, "config") else self.config
        stamps: list[tuple[str, int, int]] = []
        for path in (config.path, *config.gate.include):
            try:
                seen = path.stat()
            except OSError:
                continue
            stamps.append((str(path), seen.st_mtime_ns, seen.st_size))
        return stamps

    # --- What -------------------------------------------------------------------------------------

    @deferred
    async def apply(self) -> list[str]:
        """
        Take over the file; gives what changed, in words.

        Fails with a `GateError` whose text says why nothing was changed.
        """
        while self._under_way is not None:
            waiter: Deferred[None] = Deferred()
            self._under_way.append(waiter)
            await waiter
        waiting: list[Deferred[None]] = []
        self._under_way = waiting
        self._stamps = self._look()
        try:
            new, changes = await self._compared()
            await self._try_out(new, changes)
            await self._gateway.documents.prepare(new.servers)
            self._swap(new, changes)
        except GateError as error:
            self._gateway.meters.events["config_reload_failed"] += 1
            log.error("The configuration was not taken over: {why}", why=error.detail)
            raise
        except Exception:
            log.failure("Taking the configuration over failed")
            raise
        finally:
            self._under_way = None
            for one in waiting:
                self._gateway.clock.callLater(0, one.callback, None)
        words = changes.words()
        for line in words:
            log.info("Configuration: {line}", line=line)
        if changes:
            self._gateway.meters.events["config_reloaded"] += 1
        return words

    def _read_apart(self, path: Path) -> Deferred[Config]:
        return self._gateway.reading.run(lambda: read_config(path, os.environ))

    async def _compared(self) -> tuple[Config, Changes]:
        try:
            new = await self._read(self.config.path)
        except ConfigError as error:
            raise BadRequest(str(error)) from None
        return new, compare(self.config, new)

    async def _try_out(self, new: Config, changes: Changes) -> None:
        """Start what is new or changed beside what runs, where that needs nobody's key."""
        wanted = {*changes.added, *changes.changed}
        specs = [one for one in new.servers if one.name in wanted and self._can_be_tried(one)]
        if not specs:
            return
        # One place for starts is left to callers.
        places = DeferredSemaphore(max(1, self.config.gate.start_parallel - 1))
        left = {spec.name for spec in specs}
        trying: set[str] = set()

        @deferred
        async def try_out(spec: ServerSpec) -> str:
            complaint = await self._tried(spec, trying)
            left.discard(spec.name)
            return complaint

        longest_s = max(spec.lifetime.start_s for spec in specs) + TRIAL_MARGIN_S
        deadline_s = max(TRIALS_S, longest_s)

        def late(_: object, timeout_s: float) -> NoReturn:
            raise BadRequest(
                f"Not all servers could be tried out within {timeout_s:g} s: "
                f"{', '.join(sorted(left))}. Nothing was changed; change fewer at once."
            )

        trials = [places.run(try_out, spec) for spec in specs]
        all_over = gatherResults(trials, consumeErrors=True)
        try:
            complaints = await all_over.addTimeout(deadline_s, self._gateway.clock, late)
        except FirstError as error:
            for trial in trials:
                trial.cancel()
            error.subFailure.raiseException()
        told = "\n".join(filter(None, complaints))
        if told:
            raise BadRequest(told)

    async def _tried(self, spec: ServerSpec, trying: set[str]) -> str:
        """
        Try one server; gives what is wrong with it, or nothing.

        :param trying: who is being tried, and takes room that may be wanting.
        """
        while True:
            trying.add(spec.name)
            try:
                await self._gateway.pool.try_out(spec, _greet)
            except GateError as error:
                crowded = isinstance(error, Overloaded | RateLimited) and len(trying) > 1
                if not crowded:
                    return _complaint(spec, error)
            else:
                return ""
            finally:
                trying.discard(spec.name)
            await deferLater(self._gateway.clock, ROOM_S, lambda: None)

    def _can_be_tried(self, spec: ServerSpec) -> bool:
        known = spec.runtime != "docker" or self._gateway.back.containers is not None
        return spec.runtime != REMOTE and known and not needs_caller(spec)

    def _swap(self, new: Config, changes: Changes) -> None:
        gateway = self._gateway
        servers, groups = new.servers, new.groups
        if gateway.back.containers is None:
            # Containers need what is made at the start.
            servers = tuple(spec for spec in servers if spec.runtime != "docker")
        old = self.config
        self.config = replace(
            old,
            gate=replace(
                old.gate,
                aggregate=new.gate.aggregate,
                include=new.gate.include,
                tools_pinned=new.gate.tools_pinned,
            ),
            servers=servers,
            groups=groups,
            sources=tuple(dict.fromkeys((*old.sources, *new.sources))),
            notes=new.notes,
        )
        for secret in new.secrets:
            gateway.hide(secret)
        gateway.catalog.replace(gateway.documents.take(servers), groups)
        if changes:
            # Another program may answer now, and groups show what their members say.
            for name in (*changes.removed, *changes.changed, *(group.name for group in groups)):
                gateway.modern.results.forget(name)
        gateway.pool.keep_warm(gateway.catalog.servers)
        if gateway.back.containers is not None:
            gateway.back.containers.images.pull_at_start(gateway.catalog.servers)
        self._end_sessions(changes.removed)
        retiring = gateway.pool.retire(
            changes.removed, RETIRE_S, lambda name: gateway.catalog.find(name) is not None
        )
        retiring.addErrback(lambda failure: log.failure("Retiring servers failed", failure))

    def _end_sessions(self, names: Iterable[str]) -> None:
        gone = frozenset(names)
        if not gone:
            return
        for table in (self._gateway.sessions, self._gateway.on_legacy.sessions):
            ending = table.end_those_of(gone, "removed")
            ending.addErrback(lambda failure: log.failure("Ending sessions failed", failure))


def needs_caller(spec: ServerSpec) -> bool:
    """Tell whether a server is started with the key or name of its caller."""
    texts = [*spec.command, spec.cwd, *(text for _, text in (*spec.env, *spec.files))]
    return any(blank in text for text in texts for blank in ("{key}", "{user}"))


def _greet(upstream: IUpstream) -> Deferred[object]:
    """Shake hands with a server on stdio; over HTTP its readiness was asked for already."""
    if not isinstance(upstream, StdioUpstream):
        return succeed(None)
    greeting: Deferred[Any] = upstream.handshake(_SHAKE, 30.0)

    def refused(failure: Failure) -> None:
        error = failure.value
        # A server of the modern era alone refuses, and is well.
        if not (isinstance(error, InitializeRefused) and refuses_legacy(error.response)):
            failure.raiseException()

    return greeting.addErrback(refused)


def _complaint(spec: ServerSpec, error: GateError) -> str:
    told = "\n".join(map(str, _stderr(error)))
    return f"[server:{spec.name}] does not start: {error.detail}" + (f"\n{told}" if told else "")


def _stderr(error: GateError) -> list[object]:
    lines = error.data.get("stderr")
    return lines[-5:] if isinstance(lines, list) else []
