"""
One child process of the gate, from the launcher to the last of its descendants.

What ends: the child is reaped; then everything left in its session is killed, so that nothing
holds its pipes; then the rest of the pipes is read; then `IInstance.ended` fires.  None of these
steps can last: each has a deadline.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IInstance
from mcpgate.model import MIB, Exit, InstanceKey, Transport, Usage
from mcpgate.runtime.channel import STDIN, STDOUT, StdioChannel
from mcpgate.runtime.ending import Ending
from mcpgate.runtime.procfs import ProcFS
from mcpgate.runtime.ring import LineRing
from mcpgate.telemetry.meters import Meters

log = Logger()

STDERR: Final = 2
INSTRUCTIONS: Final = 3
REPORT: Final = 4
CHILD_FDS: Final[dict[int, str | int]] = {
    STDIN: "w",
    STDOUT: "r",
    STDERR: "r",
    INSTRUCTIONS: "w",
    REPORT: "r",
}

_DRAIN_S: Final = 0.5
"""How long the pipes of a dead child may stay open in the hands of who survived it."""

_LOG_BYTES_PER_S: Final = MIB
"""What a server may log; a faster one waits for us, it is not waited for (R39)."""

_TAIL_LINES: Final = 20

_PORT_TAKEN = re.compile(r"EADDRINUSE|address (is )?already in use", re.IGNORECASE)
_NO_MEMORY = re.compile(
    r"MemoryError|out of memory|cannot allocate memory|bad_alloc", re.IGNORECASE
)


def signal_group(pid: int, number: int) -> None:
    """Signal the process group ``pid`` leads; or it alone, when it leads none yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


@implementer(IInstance)
class Child(ProcessProtocol):
    """
    See `IInstance`.

    :param port: where it will listen, None for a stdio server.
    :param message: instructions for the launcher.
    :param hidden: texts never shown in logs.
    :ivar launched: fires with this child when exec succeeded, fails with `BackendUnavailable`.
    :ivar pid: also the id of its group and session.
    """

    transport: Any
    """The process transport; its ``pipes`` are in no interface of Twisted's."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        processes: ProcFS,
        meters: Meters,
        instance_id: str,
        key: InstanceKey,
        transport: Transport,
        port: int | None,
        message: bytes,
        hidden: tuple[str, ...],
        send_signal: Callable[[int, int], None] = signal_group,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self.instance_id = instance_id
        self.key = self.made_for = key
        self.address: tuple[str, int] | None = None if port is None else ("127.0.0.1", port)
        self.channel: StdioChannel | None = None
        self.pid = 0
        self.started_ticks = 0
        self.launched: Deferred[Child] = Deferred()
        self._clock = clock
        self._processes = processes
        self._meters = meters
        self._transport_kind = transport
        self._message = message
        self._hidden = hidden
        self._send_signal = send_signal
        self._kill = kill
        self._ending = Ending()
        self.ended: Deferred[Exit] = self._ending.ended
        self._ring = LineRing()
        self._report = b""
        self._stopping = False
        self._grace_s = float("inf")
        self._steps: list[Callable[[], None]] = []
        self._next_step: IDelayedCall | None = None
        self._drain: IDelayedCall | None = None
        self._quiet: IDelayedCall | None = None
        self._logged = 0
        self._exited = False
        self._oom_kills = processes.oom_kills()

    @property
    def _pipes(self) -> dict[int, Any]:
        """Readers and writers of the process transport, by the child's file descriptor."""
        pipes: dict[int, Any] = self.transport.pipes
        return pipes

    # --- IInstance ----------------------------------------------------------------------------

    def when_ended(self) -> Deferred[Exit]:
        """See `IInstance.when_ended`."""
        return self._ending.watch()

    def logs(self) -> list[str]:
        """See `IInstance.logs`."""
        return self._ring.lines(self._hidden)

    def log_after(self, seen: int) -> tuple[list[str], int]:
        """See `IInstance.log_after`."""
        return self._ring.after(seen, self._hidden), self._ring.seen_lines

    def usage(self) -> Usage:
        """See `IInstance.usage`."""
        return Usage() if self._exited or not self.pid else self._processes.usage(self.pid)

    # --- From the process ---------------------------------------------------------------------

    @override
    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        process = self._processes.process(self.pid)
        self.started_ticks = process.started if process is not None else 0
        if self._transport_kind is Transport.STDIO:
            self.channel = StdioChannel(self._pipes, name=self.instance_id, meters=self._meters)
        self.transport.writeToChild(INSTRUCTIONS, self._message)
        self.transport.closeChildFD(INSTRUCTIONS)
        self._message = b""

    @override
    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == REPORT:
            self._report += data
        elif childFD == STDOUT and self.channel is not None:
            self.channel.feed(data)
        else:
            self._ring.feed(data)
            self._count_log(len(data))

    def _count_log(self, size: int) -> None:
        """Stop reading logs for the rest of the second once it had its share."""
        self._logged += size
        if self._quiet is None:
            self._quiet = self._clock.callLater(1.0, self._read_logs)
        if self._logged > _LOG_BYTES_PER_S:
            for number in self._log_fds():
                self._pipes[number].stopReading()

    def _log_fds(self) -> list[int]:
        logs = (STDERR,) if self.channel is not None else (STDOUT, STDERR)
        return [number for number in logs if number in self._pipes]

    def _read_logs(self) -> None:
        self._quiet = None
        if self._logged > _LOG_BYTES_PER_S:
            self._meters.events["stdio_noise"] += 1
            for number in self._log_fds():
                self._pipes[number].startReading()
        self._logged = 0

    @override
    def childConnectionLost(self, childFD: int) -> None:
        if childFD == REPORT and not self.launched.called:
            if self._report == b".":
                self.launched.callback(self)
            else:
                self.launched.errback(Failure(BackendUnavailable(self._why_not())))

    def _why_not(self) -> str:
        """Put the launcher's report into words."""
        step, _, rest = self._report.lstrip(b".").decode("utf-8", "replace").partition("\0")
        code, _, about = rest.partition("\0")
        number = int(code) if code.isdecimal() else 0
        why = os.strerror(number) if number else "unknown reason"
        server = self.key.server
        match step:
            case "command" if about and "/" not in about and number == 2:
                return f"The command '{about}' of server '{server}' was not found in PATH."
            case "command":
                return f"The command '{about}' of server '{server}' can not be run: {why}."
            case "cwd":
                return f"The folder '{about}' of server '{server}' can not be entered: {why}."
            case _:
                return f"Server '{server}' can not be launched ({step or 'no report'}: {why})."

    @override
    def processExited(self, reason: Failure) -> None:
        self._exited = True
        if self._next_step is not None:
            self._next_step.cancel()
            self._next_step = None
        self._kill_rest()
        # Nobody who could fill them is left, so the rest in the pipes is small.
        if self.channel is not None:
            self.channel.drain()
        self._logged = 0
        for number in self._log_fds():
            self._pipes[number].startReading()
        self._drain = self._clock.callLater(_DRAIN_S, self._let_go, reason)

    def _kill_rest(self) -> None:
        """Kill who survived in the session, or fled from it."""
        self._send_signal(self.pid, signal.SIGKILL)
        for pid in self._processes.belonging(self.pid, self.instance_id, self.started_ticks):
            try:
                self._kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def _let_go(self, reason: Failure) -> None:
        """End without the end of the pipes: closing stdin may wait for a reader for ever."""
        self._drain = None
        log.warn("Something outlived {instance} and holds its pipes", instance=self.instance_id)
        self.transport.loseConnection()
        self.processEnded(reason)

    @override
    def processEnded(self, reason: Failure) -> None:
        value = reason.value
        code: int | None = 0
        number: int | None = None
        if isinstance(value, ProcessTerminated):
            code, number = value.exitCode, value.signal
        self._over(self._how(code, number))

    def _how(self, code: int | None, number: int | None) -> Exit:
        tail = tuple(self.logs()[-_TAIL_LINES:])
        text = "\n".join(self.logs())  # Where node is out of memory, it says so 25 lines earlier.
        reason = "exited" if number is None else "killed"
        if self._stopping:
            reason = "stopped"
        elif number == signal.SIGKILL and self._processes.oom_kills() > self._oom_kills:
            reason = "oom_killed"
        elif (code or number) and _NO_MEMORY.search(text):
            reason = "oom_killed"
        elif code and self.address is not None and _PORT_TAKEN.search(text):
            reason = "port_taken"
        return Exit(code=code, signal=number, reason=reason, stderr_tail=tail)

    def _over(self, how: Exit) -> None:
        for timer in (self._next_step, self._drain, self._quiet):
            if timer is not None and timer.active():
                timer.cancel()
        self._next_step = self._drain = self._quiet = None
        if not self.launched.called:
            self.launched.errback(Failure(BackendUnavailable(self._why_not())))
        self._ending.tell(how)

    # --- Stopping -----------------------------------------------------------------------------

    def stop(self, grace_s: float) -> Deferred[Exit]:
        """
        Go down the ladder: stdin closed, TERM, KILL; ``grace_s`` to each step.

        A second call may only shorten the wait.  A server on HTTP does not look at its stdin, so
        it gets TERM at once.  What not even KILL ends in time (a process in the kernel's hands)
        is given up as ``lost``.
        """
        if self._ending.exit is None and not self._exited:
            if not self._stopping:
                self._stopping = True
                self._steps = [self._close_stdin, self._terminate, self._slay, self._give_up]
                self._grace_s = grace_s
                self._step()
            elif grace_s < self._grace_s and self._next_step is not None:
                self._grace_s = grace_s
                left = self._next_step.getTime() - self._clock.seconds()
                self._next_step.reset(max(0.0, min(left, grace_s)))
        return self.when_ended()

    def _step(self) -> None:
        """Take the next step; with no grace, up to KILL at once."""
        self._next_step = None
        while self._steps:
            step = self._steps.pop(0)
            step()
            if self._exited:
                return
            patient = self._grace_s > 0 and not (step == self._close_stdin and self.channel is None)
            if step == self._slay or patient:
                wait = max(self._grace_s, 1.0) if step == self._slay else self._grace_s
                self._next_step = self._clock.callLater(wait, self._step)
                return

    def _close_stdin(self) -> None:
        self.transport.closeChildFD(STDIN)

    def _terminate(self) -> None:
        self._send_signal(self.pid, signal.SIGTERM)

    def _slay(self) -> None:
        self._send_signal(self.pid, signal.SIGKILL)

    def _give_up(self) -> None:
        log.error(
            "Process {pid} of {instance} does not die", pid=self.pid, instance=self.instance_id
        )
        self.transport.loseConnection()
        self._over(Exit(reason="lost", stderr_tail=tuple(self.logs()[-_TAIL_LINES:])))
