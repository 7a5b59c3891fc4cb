"""
The worker processes: started with the listening sockets, watched, replaced, ended.

They take clients' connections; everything that is kept (sessions, limits, instances, parked calls)
stays in this process, so it holds over all of them without a word between two workers.  One that
dies takes the calls on its own connections with it and nothing else.  While none is up this
process accepts itself: a listener is never without somebody behind it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.model import KIB
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import WorkerView
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.ticker import Ticker
from mcpgate.web.listening.listeners import Kind
from mcpgate.web.workers.assignment import Assignment, SharedSocket
from mcpgate.web.workers.entries import read_entry
from mcpgate.web.workers.link import LinkFactory
from mcpgate.web.workers.places import SharedPlaces
from mcpgate.web.workers.tables import Tables
from mcpgate.web.workers.uses import Uses

log = Logger()

SOCKET_NAME: Final = "workers.sock"
#: ``sun_path`` of Linux holds 108 bytes with the closing NUL.
PATH_BYTES: Final = 107

#: From the start of a process to its first word.
START_S: Final = 30.0
#: Workers that end while the gate starts are tried so often, each.
TRIES: Final = 2
#: A worker reports every second; one that has not for so long does nothing else either.
SILENT_S: Final = 30.0
WATCH_S: Final = 5.0
#: One that lived this long is replaced at once; else the next waits 1, 2, 4 .. seconds.
LONG_LIFE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 30.0

_PLACES, _BUCKETS, _USES, _FIRST_SHARED = range(3, 7)
_LINE_BYTES: Final = 256 * KIB
_STDERR_LINES: Final = 20
_STDERR_CHARS: Final = 500
# Secrets may be in the gate's environment; a worker needs none.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "COV", "SSL_CERT_")

_PROGRAM: Final = "import sys; sys.path[:] = %r; from mcpgate.worker.program import main; main()"


class WorkersError(Exception):
    """No worker could be started; the text says what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A listening socket of this process: what serves it, and how."""

    descriptor: int
    kind: Kind
    proxied: bool
    channel: int


def _nobody(serial: int) -> None:
    """Nothing was granted."""


class _Process(ProcessProtocol):
    """One worker, seen from here."""

    def __init__(self, workers: Workers, number: int, orders: bytes) -> None:
        self.number = number
        self.name = f"worker {number}"
        self.ready = False
        self.heard_s = self.born_s = workers.seconds()
        self.counted: dict[str, int] = {}
        self.connections = 0
        self.connections_total = 0
        self.streams = 0
        self.calls_in_work = 0
        self.longest_turn_s = 0.0
        self._workers = workers
        self._orders = orders
        self._read = b""

    transport: Any

    @property
    def pid(self) -> int:
        """Its process id; 0 when it has none."""
        return int(self.transport.pid or 0) if self.transport is not None else 0

    @override
    def connectionMade(self) -> None:
        self.transport.writeToChild(0, self._orders)

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to it."""
        # The pipe of one that is ending may be gone already.
        with suppress(KeyError):
            self.transport.writeToChild(0, json.dumps(message).encode("ascii") + b"\n")

    def kill(self) -> None:
        """End it at once."""
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    @override
    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != 1:
            for text in data.decode("utf-8", "replace").splitlines():
                self._workers.last_words.append(text[:_STDERR_CHARS])
                log.warn("{name}: {text}", name=self.name, text=text[:_STDERR_CHARS])
            return
        self.heard_s = self._workers.seconds()
        *lines, self._read = (self._read + data).split(b"\n")
        if len(self._read) > _LINE_BYTES:
            log.error("{name} says more than can be meant: it is ended", name=self.name)
            self.kill()
            return
        for line in lines:
            try:
                self._workers.heard(self, json.loads(line))
            except (ValueError, KeyError, TypeError):
                log.failure("{name} was not understood", name=self.name)

    @override
    def processEnded(self, reason: Failure) -> None:
        self._workers.ended(self, reason)


class Workers:
    """
    See the module.

    :param link: serves the workers' requests.
    :param assignment: what each is told; sockets, name and link are filled in here.
    :param record: takes access entries of requests that workers have answered by themselves.
    :param tables: memory that is shared with them; let go of at the end.
    :ivar grants: tells what workers that come up may do by themselves; ``renew``: called with
        the serial of what one of them goes on doing.
    :ivar places: taken by clients of all processes; this one's own part of them.
    :ivar uses: what workers do by themselves.
    :param share: called with whether this process shall accept by itself: only while no worker
        does.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        *,
        state_dir: Path,
        link: LinkFactory,
        assignment: Callable[[], Assignment],
        tables: Tables,
        meters: Meters,
        record: Callable[[AccessEntry], None],
        share: Callable[[bool], None],
    ) -> None:
        self.seconds: Callable[[], float] = reactor.seconds
        self._reactor = reactor
        self._count = count
        self._path = state_dir / SOCKET_NAME
        self._link = link
        self._tables = tables
        self.places = SharedPlaces(tables.places, 0)
        self.uses = Uses(tables.uses, 0)
        self.grants: Callable[[], list[dict[str, Any]]] = list
        self.renew: Callable[[int], None] = _nobody
        self._assignment = assignment
        self._meters = meters
        self._record = record
        self._share_here = share
        self._handed: Sequence[Handed] = ()
        self._processes: dict[int, _Process] = {}
        self._pauses_s: dict[int, float] = {}
        self._due: dict[int, IDelayedCall] = {}
        self._port: IListeningPort | None = None
        self._stopping = False
        self._held: list[int] = []
        self._died = 0
        self._looked_s = 0.0
        self.last_words: deque[str] = deque(maxlen=_STDERR_LINES)
        self._accepting = True
        self._changed: list[Deferred[None]] = []
        self._watch = Ticker(reactor, WATCH_S, self._look, name="workers")

    # --- Start ----------------------------------------------------------------------------------

    @deferred
    async def start(self, handed: Sequence[Handed]) -> None:
        """
        Start them all, and wait until they accept.

        :raises WorkersError: one did not come up.
        :raises OSError: the path of the socket is too long.
        """
        if len(os.fsencode(self._path)) > PATH_BYTES:
            raise OSError(
                f"the path of the workers' socket, {self._path}, is longer than {PATH_BYTES} "
                "bytes: choose a shorter state_dir"
            )
        self._handed = handed
        # The state directory is ours alone: what lies there is of a gate that is no more.
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._port = self._reactor.listenUNIX(
                # As long as the kernel lets it be: a connection that finds no room is refused.
                str(self._path),
                self._link,
                mode=0o600,
                wantPID=False,
                backlog=1 << 15,
            )
        finally:
            os.umask(old)
        for number in range(1, self._count + 1):
            self._spawn(number)
        try:
            await self._until(
                lambda: self.accepting == self._count or self._died >= TRIES * self._count
            ).addTimeout(START_S, self._reactor)
        except TimeoutError:
            pass
        if self.accepting < self._count:
            await self.end()
            raise WorkersError(
                "The workers do not come up. They said: "
                + ("; ".join(list(self.last_words)[-3:]) or "nothing")
            )
        self._watch.startService()

    def _spawn(self, number: int) -> None:
        self._due.pop(number, None)
        sockets = tuple(
            SharedSocket(
                descriptor=_FIRST_SHARED + index,
                kind=one.kind,
                proxied=one.proxied,
                channel=one.channel,
            )
            for index, one in enumerate(self._handed)
        )
        orders = replace(
            self._assignment(),
            name=f"worker {number}",
            link=str(self._path),
            part=number,
            places=_PLACES,
            buckets=_BUCKETS,
            uses=_USES,
            sockets=sockets,
        )
        process = _Process(self, number, orders.write())
        self._processes[number] = process
        self._reactor.spawnProcess(
            process,
            sys.executable,
            # What it is and whose, for whoever looks at a list of processes.
            [sys.executable, "-I", "-c", _PROGRAM % sys.path, "mcpgate", process.name, self._path],
            env={
                name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)
            },
            childFDs={
                0: "w",
                1: "r",
                2: "r",
                _PLACES: self._tables.places,
                _BUCKETS: self._tables.buckets,
                _USES: self._tables.uses,
                **{_FIRST_SHARED + index: one.descriptor for index, one in enumerate(self._handed)},
            },
        )

    def _until(self, held: Callable[[], bool]) -> Deferred[None]:
        """Wait until something holds of the workers."""

        async def wait() -> None:
            while not held():
                changed: Deferred[None] = Deferred(self._changed.remove)
                self._changed.append(changed)
                await changed

        return Deferred.fromCoroutine(wait())

    def _tell_changed(self) -> None:
        changed, self._changed = self._changed, []
        for waiter in changed:
            waiter.callback(None)

    def _share(self) -> None:
        """Accept here exactly while no worker does."""
        wanted = not (self.accepting or self._stopping)
        if wanted != self._accepting:
            self._accepting = wanted
            self._share_here(wanted)

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to every worker that is up."""
        for process in self._processes.values():
            if process.ready:
                process.tell(message)

    def accept(self, channels: list[int], wanted: bool) -> None:
        """Have workers take connections on these channels, or leave them in the kernel's queue."""
        self._held = [] if wanted else channels
        self.tell({"accept": wanted, "channels": channels})

    # --- What workers say -----------------------------------------------------------------------

    def heard(self, process: _Process, message: dict[str, Any]) -> None:
        """
        Take a message of a worker.

        :raises ValueError: or `KeyError`, `TypeError`: it is not understood.
        """
        if "ready" in message:
            process.ready = True
            log.info("{name} (process {pid}) accepts", name=process.name, pid=process.pid)
            if self._held:
                process.tell({"accept": False, "channels": self._held})
            for grant in self.grants():
                process.tell(grant)
            self._share()
            self._tell_changed()
        elif "entries" in message:
            for told in message["entries"]:
                entry = read_entry(told)
                self._meters.bytes_in += entry.bytes_in
                self._meters.bytes_out += entry.bytes_out
                self._record(entry)
        elif "renew" in message:
            self.renew(message["renew"])
        elif "log" in message:
            level = LogLevel.lookupByName(message["log"])
            log.emit(level, "{name}: {text}", name=process.name, text=message["text"])
        else:
            self._add(process, message)

    def _add(self, process: _Process, counts: dict[str, Any]) -> None:
        meters = self._meters
        meters.connections += counts["connections"] - process.connections
        meters.connections_total += counts["connections_total"] - process.connections_total
        process.connections = counts["connections"]
        process.connections_total = counts["connections_total"]
        process.longest_turn_s = counts["longest_turn_s"]
        meters.streams += counts["streams"] - process.streams
        meters.calls_in_work += counts["calls_in_work"] - process.calls_in_work
        process.streams = counts["streams"]
        process.calls_in_work = counts["calls_in_work"]
        for event, total in counts["events"].items():
            meters.events[event] += total - process.counted.get(event, 0)
            process.counted[event] = total

    def ended(self, process: _Process, reason: Failure) -> None:
        """Take note that one has ended; start another in its place."""
        meters = self._meters
        meters.connections -= process.connections
        meters.streams -= process.streams
        meters.calls_in_work -= process.calls_in_work
        process.connections = process.streams = process.calls_in_work = 0
        self.places.clear(process.number)
        self.uses.clear(process.number)
        process.ready = False
        self._processes.pop(process.number, None)
        self._died += 1
        self._share()
        if not self._stopping:
            self._replace(process, reason)
        self._tell_changed()

    def _replace(self, process: _Process, reason: Failure) -> None:
        number = process.number
        if self.seconds() - process.born_s >= LONG_LIFE_S:
            self._pauses_s.pop(number, None)
            pause_s = 0.0
        else:
            pause_s = self._pauses_s.get(number, 1.0)
            self._pauses_s[number] = min(LONGEST_PAUSE_S, pause_s * 2)
        self._meters.events["worker_replaced"] += 1
        log.error(
            "{name} (process {pid}) ended: {why}. Its connections are lost, nothing else; "
            "another takes its place in {pause_s:g} s",
            ev="worker_ended",
            name=process.name,
            pid=process.pid,
            why="without an error" if reason.check(ProcessDone) else reason.getErrorMessage(),
            pause_s=pause_s,
        )
        self._due[number] = self._reactor.callLater(pause_s, self._spawn, number)

    def _look(self) -> None:
        """End workers that have gone silent."""
        before_s, self._looked_s = self._looked_s, self.seconds()
        if self._looked_s - before_s > 2 * WATCH_S:
            # It was this process that stood still: what they said waits to be read.
            return
        for process in list(self._processes.values()):
            if self.seconds() - process.heard_s > SILENT_S:
                log.error("{name} has gone silent: it is ended", name=process.name)
                process.kill()

    # --- End ------------------------------------------------------------------------------------

    @property
    def accepting(self) -> int:
        """How many take connections."""
        return sum(1 for process in self._processes.values() if process.ready)

    @property
    def alive(self) -> int:
        """How many there are, those that are starting included."""
        return len(self._processes)

    def views(self) -> list[WorkerView]:
        """Describe them."""
        return [
            WorkerView(
                name=one.name,
                pid=one.pid,
                accepts=one.ready,
                connections=one.connections,
                age_s=self.seconds() - one.born_s,
                longest_turn_s=one.longest_turn_s,
            )
            for _, one in sorted(self._processes.items())
        ]

    def close(self) -> None:
        """Start none any more, and have those that are there accept nothing more."""
        if self._stopping:
            return
        self._stopping = True
        for call in self._due.values():
            call.cancel()
        self._due.clear()
        for process in self._processes.values():
            if process.ready:
                process.tell({"drain": True})
            else:
                process.kill()

    def drain(self) -> Deferred[None]:
        """Wait until the clients of all have gone.  The caller sets a deadline, then `end`."""
        self.close()
        return self._until(lambda: not self._processes)

    @deferred
    async def end(self) -> None:
        """End what is left, and close the socket."""
        self.close()
        await self._watch.stopService()
        for process in self._processes.values():
            process.kill()
        try:
            await self._until(lambda: not self._processes).addTimeout(WATCH_S, self._reactor)
        except TimeoutError:
            log.error("{count} workers do not end", count=len(self._processes))
        self._link.abort_all()
        port, self._port = self._port, None
        if port is not None:
            self._tables.close()
            await maybeDeferred(port.stopListening)
            self._path.unlink(missing_ok=True)
