"""
One running container, from its start to its end.

What ends it is the engine's word (an event, or a look); a connection that breaks makes the gate
look, and nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.interfaces import IInstance
from mcpgate.model import Exit, InstanceKey, Usage
from mcpgate.runtime.channel import StdioChannel
from mcpgate.runtime.docker.cgroups import Cgroups
from mcpgate.runtime.docker.stdio import Streams
from mcpgate.runtime.ending import Ending
from mcpgate.runtime.ring import LineRing

log = Logger()

_TAIL_LINES: Final = 20
_DRAIN_S: Final = 0.5
# Pages, metrics and sweeps that come together read the files once.
_USAGE_S: Final = 1.0
_BY_SIGNAL: Final = 128
_SIGNALS: Final = 64


def how_ended(
    state: Mapping[str, Any], *, stopping: bool, lines: list[str], killed: bool = False
) -> Exit:
    """
    Put the engine's ``State`` of a container that does not run into ours.

    ``docker-init`` and shells say 128 + N for a signal N; so does the engine itself.

    :param killed: the kernel killed something in it for want of memory.
    """
    code: int | None = int(state.get("ExitCode", 0))
    number: int | None = None
    assert code is not None
    if _BY_SIGNAL < code <= _BY_SIGNAL + _SIGNALS:
        number, code = code - _BY_SIGNAL, None
    reason = "exited" if number is None else "killed"
    if stopping:
        reason = "stopped"
    elif (state.get("OOMKilled") or killed) and (code or number):
        reason = "oom_killed"
    return Exit(code=code, signal=number, reason=reason, stderr_tail=tuple(lines[-_TAIL_LINES:]))


@implementer(IInstance)
class ContainerInstance:
    """
    See `IInstance`.

    :param kill: has a signal sent; fires when the engine took it, fails as its calls do.
    :param look: has the engine asked how it is.
    :param hidden: texts never shown in logs.
    :ivar streams: while its connection stands.
    :ivar oom: the kernel killed something in it for want of memory.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        instance_id: str,
        key: InstanceKey,
        container_id: str,
        stdio: bool,
        kill: Callable[[ContainerInstance, str], Deferred[Any]],
        look: Callable[[ContainerInstance], None],
        cgroups: Cgroups,
        hidden: tuple[str, ...],
    ) -> None:
        self.instance_id = instance_id
        self.key = self.made_for = key
        self.container_id = container_id
        self.stdio = stdio
        self.address: tuple[str, int] | None = None
        self.channel: StdioChannel | None = None
        self.streams: Streams | None = None
        self.ring = LineRing()
        self.oom = False
        self.stopping = False
        self.before: list[str] = []
        self._clock = clock
        self._kill = kill
        self._look = look
        self._cgroups = cgroups
        self._folders: dict[str, str] = {}
        self._used = Usage()
        self._used_at = float("-inf")
        self._hidden = hidden
        self._ending = Ending()
        self.ended: Deferred[Exit] = self._ending.ended
        self._state: Mapping[str, Any] | None = None
        self._drain: IDelayedCall | None = None
        self._steps: list[Callable[[], None]] = []
        self._next_step: IDelayedCall | None = None
        self._grace_s = float("inf")

    @property
    def alive(self) -> bool:
        """It runs, as far as the gate knows."""
        return self._state is None and self._ending.exit is None

    def when_ended(self) -> Deferred[Exit]:
        """See `IInstance.when_ended`."""
        return self._ending.watch()

    def logs(self) -> list[str]:
        """See `IInstance.logs`."""
        return [*self.before, *self.ring.lines(self._hidden)]

    def log_after(self, seen: int) -> tuple[list[str], int]:
        """See `IInstance.log_after`; what it wrote before it was adopted comes first."""
        count = len(self.before)
        new = self.ring.after(max(0, seen - count), self._hidden)
        return [*self.before[seen:], *new], count + self.ring.seen_lines

    def usage(self) -> Usage:
        """See `IInstance.usage`."""
        if not self.alive:
            return Usage()
        now = self._clock.seconds()
        if now - self._used_at >= _USAGE_S:
            self._used_at, self._used = now, self._cgroups.usage(self._folders)
        return self._used

    def running_as(self, pid: int) -> None:
        """Note its first process."""
        self._folders = self._cgroups.find(pid, self.container_id)
        self._used_at = float("-inf")

    # --- Its end ------------------------------------------------------------------------------

    def connection_lost(self) -> None:
        """Look what is the matter; or, when it has ended, tell so: all was read."""
        self.streams = None
        if self._state is not None:
            self._tell()
        elif self._ending.exit is None:
            self._look(self)

    def over(self, state: Mapping[str, Any]) -> None:
        """It has ended: read what is left, no longer than a moment."""
        if self._state is not None or self._ending.exit is not None:
            return
        self._state = state
        self._cancel_step()
        if self.streams is None:
            self._tell()
            return
        self.streams.drain()
        self._drain = self._clock.callLater(_DRAIN_S, self._enough)

    def _enough(self) -> None:
        self._drain = None
        if self.streams is not None:
            self.streams.abort()
        self._tell()

    def _tell(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
        assert self._state is not None
        self._ending.tell(
            how_ended(self._state, stopping=self.stopping, lines=self.logs(), killed=self.oom)
        )

    def lose(self) -> None:
        """Give it up: what became of it can not be told."""
        self._cancel_step()
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
        self._state = self._state or {}
        self._ending.tell(Exit(reason="lost", stderr_tail=tuple(self.logs()[-_TAIL_LINES:])))
        if self.streams is not None:
            self.streams.abort()

    # --- Stopping -----------------------------------------------------------------------------

    def stop(self, grace_s: float) -> Deferred[Exit]:
        """
        Go down the ladder: stdin closed, TERM, KILL; ``grace_s`` to each step.

        A server on HTTP does not look at its stdin, so it gets TERM at once.  A second call may
        only shorten the wait.
        """
        if self.alive and not self.stopping:
            self.stopping = True
            self._grace_s = grace_s
            self._steps = [self._close_stdin, self._terminate, self._slay, self._ask, self.lose]
            if not self.stdio:
                self._steps.pop(0)
            self._step()
        elif self.alive and grace_s < self._grace_s and self._next_step is not None:
            self._grace_s = grace_s
            left = self._next_step.getTime() - self._clock.seconds()
            self._next_step.reset(max(0.0, min(left, grace_s)))
        return self.when_ended()

    def _step(self) -> None:
        self._next_step = None
        while self._steps and self.alive:
            step = self._steps.pop(0)
            if self._grace_s <= 0 and step in (self._close_stdin, self._terminate):
                continue
            step()
            if self.alive:
                # What is killed is gone in a moment, but its event may not come.
                wait_s = self._grace_s if step in (self._close_stdin, self._terminate) else 2.0
                self._next_step = self._clock.callLater(wait_s, self._step)
            return

    def _close_stdin(self) -> None:
        if self.streams is not None:
            self.streams.close_stdin()

    def _terminate(self) -> None:
        self._send(signal.SIGTERM)

    def _slay(self) -> None:
        self._send(signal.SIGKILL)

    def _ask(self) -> None:
        self._look(self)

    def _send(self, number: signal.Signals) -> None:
        def failed(failure: Failure) -> None:
            # It has ended by itself, or the engine is silent; either way the next step looks.
            log.debug("A signal was not delivered: {why}", why=failure.getErrorMessage())
            self._look(self)

        self._kill(self, number.name).addErrback(failed)

    def _cancel_step(self) -> None:
        self._steps = []
        if self._next_step is not None:
            self._next_step.cancel()
            self._next_step = None
