"""Servers as local processes: the process runtime."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IInstance, IRuntime
from mcpgate.model import Exit, InstanceKey, Launch, ServerSpec, fill
from mcpgate.runtime import launcher
from mcpgate.runtime.child import CHILD_FDS, Child
from mcpgate.runtime.places import Places, Record
from mcpgate.runtime.preparation import prepare
from mcpgate.runtime.procfs import ProcFS
from mcpgate.runtime.trees import TreeRemover
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred

log = Logger()

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

_PORT_TRIES: Final = 32
_NO_SESSION: Final = -1
_REAP_AFTER_S: Final = 1.0


def free_port() -> int:
    """Let the kernel choose a port of 127.0.0.1 nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@implementer(IRuntime)
class ProcessRuntime:
    """
    See `IRuntime`.

    Children run as the gate's own user, in a session, folder and environment of their own,
    within `mcpgate.runtime.preparation.rlimits`; they do not outlive the gate: the kernel kills
    them with it, and `adopt` finds what they had started themselves.

    :param reactor: the reactor, on the thread that stays for the life of the gate: the kernel
        ties the children's death signal to the thread that started them.
    :param state_dir: folder for what instances keep, made when missing.
    :param path: PATH of the children.
    :param stop_grace_s: each step of stopping, in `shutdown`.
    :param reaps_orphans: orphaned descendants become children of this process, because it is
        process 1 of a container (then this is found out) or a subreaper; so it must reap them.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        state_dir: str,
        meters: Meters,
        path: str = DEFAULT_PATH,
        python: str = sys.executable,
        stop_grace_s: float = 5.0,
        reaps_orphans: bool | None = None,
        choose_port: Callable[[], int] = free_port,
        processes: ProcFS | None = None,
        trees: TreeRemover | None = None,
    ) -> None:
        self._reactor = reactor
        self._places = Places(os.path.abspath(state_dir))
        self._meters = meters
        self._path = path
        self._python = python
        self._stop_grace_s = stop_grace_s
        self._choose_port = choose_port
        self._processes = processes or ProcFS(reactor)
        self._trees = trees or TreeRemover(reactor)
        self._children: dict[str, Child] = {}
        self._reaps_orphans = os.getpid() == 1 if reaps_orphans is None else reaps_orphans
        self._reaping: IDelayedCall | None = None

    # --- Starting -----------------------------------------------------------------------------

    @deferred
    async def start(self, spec: ServerSpec, launch: Launch) -> IInstance:
        """See `IRuntime.start`."""
        child = self._children.get(launch.instance_id)
        if child is None:
            child = self._spawn(spec, launch)
        try:
            await child.launched
        except CancelledError:
            child.stop(0)
            raise
        except BackendUnavailable as error:
            await child.stop(0)  # The launcher has spoken, but may not have exited yet.
            log.error(
                "Server {server} can not be launched: {why} PATH is {path}",
                server=spec.name,
                why=error.detail,
                path=self._path,
            )
            raise
        return child

    def _spawn(self, spec: ServerSpec, launch: Launch) -> Child:
        instance_id = launch.instance_id
        if not spec.command:
            raise BackendUnavailable(f"Server '{spec.name}' has no command.")
        try:
            child = self._prepared(spec, launch)
            self._reactor.spawnProcess(
                child,
                self._python,
                [self._python, "-I", "-S", launcher.__file__],
                env={},
                childFDs=CHILD_FDS,
            )
        except BackendUnavailable:
            self._trees.remove(self._places.run_dir(instance_id))
            raise
        except (OSError, ValueError) as error:
            self._trees.remove(self._places.run_dir(instance_id))
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "disk_full" if full else "spawn_failed"
            log.error("Server {server} can not be started: {error}", server=spec.name, error=error)
            raise BackendUnavailable(
                f"Server '{spec.name}' can not be started: "
                f"{error.strerror if isinstance(error, OSError) else error}.",
                retry_after_s=10.0,
                data={"cause": reason},
            ) from error
        self._children[instance_id] = child
        child.when_ended().addCallback(self._ended, child).addErrback(
            lambda failure: log.failure("Clearing up after a child failed", failure)
        )
        try:
            self._places.write_record(
                instance_id,
                Record(
                    session=child.pid,
                    started=child.started_ticks,
                    boot_id=self._processes.boot_id(),
                ),
            )
        except OSError as error:
            # The mark in its environment is still there to be found by.
            log.error(
                "The record of {instance} was not written: {reason}",
                instance=instance_id,
                reason=error.strerror,
            )
        self._meters.events["process_spawned"] += 1
        return child

    def _prepared(self, spec: ServerSpec, launch: Launch) -> Child:
        """Make the folders and files; answer the child that is to be spawned."""
        files_dir, tmp_dir, data_dir = self._places.make(launch.instance_id, launch.key)
        values = {name: secret.reveal() for name, secret in launch.values.items()}
        values |= {"files_dir": files_dir, "data_dir": data_dir}
        port = self._port() if spec.transport.listens else None
        if port is not None:
            values["port"] = str(port)
        for name, text in spec.files:
            self._places.write_file(files_dir, name, fill(text, values))
        preparation = prepare(
            spec, instance_id=launch.instance_id, values=values, path=self._path, tmp_dir=tmp_dir
        )
        return Child(
            clock=self._reactor,
            processes=self._processes,
            meters=self._meters,
            instance_id=launch.instance_id,
            key=launch.key,
            transport=spec.transport,
            port=port,
            message=preparation.message,
            hidden=preparation.hidden,
        )

    def _port(self) -> int:
        """
        Choose a port that none of our children has, or is about to have.

        Until a child listens its port is free in the kernel's eyes; another child given the same
        one could be taken for it, and answer its owner's calls.
        """
        taken = {child.address[1] for child in self._children.values() if child.address}
        for _ in range(_PORT_TRIES):
            port = self._choose_port()
            if port not in taken:
                return port
        raise OSError(errno.EADDRINUSE, "no free port on 127.0.0.1")

    # --- Ending -------------------------------------------------------------------------------

    def assign(self, instance: IInstance, key: InstanceKey) -> None:
        """See `IRuntime.assign`."""
        child = self._children.get(instance.instance_id)
        if child is not None:
            child.key = key

    def _ended(self, _: Exit, child: Child) -> None:
        self._children.pop(child.instance_id, None)
        self._trees.remove(self._places.run_dir(child.instance_id))
        if child.made_for.owner.is_nobody:
            # Its home was made for nobody, whoever had it in the end.
            self._trees.remove(self._places.data_dir(child.made_for))
        if self._reaps_orphans and self._reaping is None:
            # What was killed with it needs a moment to die.
            self._reaping = self._reactor.callLater(_REAP_AFTER_S, self._reap)

    def stop(self, instance: IInstance, grace_s: float) -> Deferred[Exit]:
        """See `IRuntime.stop`."""
        child = self._children.get(instance.instance_id)
        return instance.when_ended() if child is None else child.stop(grace_s)

    @deferred
    async def remove(self, key: InstanceKey) -> None:
        """See `IRuntime.remove`; a session's data goes with its session."""
        for folder in self._places.leftovers(key):
            await self._trees.remove(folder)

    @deferred
    async def forget_data(self, folder: str) -> None:
        """Remove a data folder of an owner nothing runs for."""
        await self._trees.remove(folder)

    def data_of(self, label: str) -> list[tuple[str, str]]:
        """See `Places.data_of`."""
        return self._places.data_of(label)

    @deferred
    async def adopt(self) -> list[IInstance]:
        """
        See `IRuntime.adopt`; processes are never adopted: their pipes died with the gate.

        Kills what children of an earlier gate left behind and removes their folders; and the homes
        of copies that were nobody's at their start.
        """
        boot_id = self._processes.boot_id()
        for instance_id, record in self._places.records().items():
            if instance_id in self._children:
                continue
            if record is not None and record.boot_id == boot_id:
                founder = self._processes.process(record.session)
                ours = founder is not None and founder.started == record.started
                # Without its founder a session's number may be somebody else's by now: then only
                # the mark in the environment counts.
                session = record.session if ours else _NO_SESSION
                strays = self._processes.belonging(session, instance_id, record.started)
                self._slay(strays, instance_id)
            await self._trees.remove(self._places.run_dir(instance_id))
        kept = {self._places.data_dir(child.made_for) for child in self._children.values()}
        for folder in self._places.of_nobody():
            if folder not in kept:
                await self._trees.remove(folder)
        return []

    def _slay(self, strays: Iterable[int], instance_id: str) -> None:
        for pid in strays:
            log.warn("Killing stray {pid} of {instance}", pid=pid, instance=instance_id)
            self._meters.events["stray_killed"] += 1
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def _reap(self) -> None:
        """
        Take the exit status of orphans that became children of this process.

        Children of Twisted are left to it, and those of anybody else, being in our session, too.
        """
        self._reaping = None
        me, own_session = os.getpid(), os.getsid(0)
        known = {child.pid for child in self._children.values()}
        for process in self._processes.processes():
            orphan = process.parent == me and process.session != own_session
            if orphan and process.state == "Z" and process.pid not in known:
                try:
                    os.waitpid(process.pid, os.WNOHANG)
                except ChildProcessError:
                    continue

    @deferred
    async def shutdown(self) -> None:
        """See `IRuntime.shutdown`."""
        stops = [child.stop(self._stop_grace_s) for child in tuple(self._children.values())]
        await DeferredList(stops)
        await self._trees.idle()
        self._trees.stop()
        if self._reaping is not None:
            self._reaping.cancel()
            self._reaping = None
