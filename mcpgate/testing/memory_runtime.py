"""A runtime without processes, that passes the contract of `IRuntime`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable, GateError
from mcpgate.interfaces import IInstance, IRuntime, IStdioChannel
from mcpgate.model import Exit, InstanceKey, Launch, ServerSpec, Transport, Usage
from mcpgate.runtime.ending import Ending
from mcpgate.timing.deferreds import deferred


def say_nothing(line: bytes) -> list[bytes]:
    """Answer no line."""
    return []


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """
    How copies of a server behave; change it between starts.

    :ivar start_s: how long a start takes.
    :ivar refusal: why starts fail, or None.
    :ivar exits: how a copy ends right after its start, or None.
    :ivar stderr: lines it writes when it starts.
    :ivar stop_s: how long it takes to end when asked; more than the grace and it is killed.
    :ivar answer: what it writes for a line it reads.
    """

    start_s: float = 0.0
    refusal: GateError | None = None
    exits: Exit | None = None
    stderr: tuple[str, ...] = ()
    stop_s: float = 0.0
    answer: Callable[[bytes], list[bytes]] = say_nothing
    usage: Usage = field(default_factory=Usage)


@implementer(IStdioChannel)
class MemoryChannel:
    """See `IStdioChannel`; ``sent`` keeps what was sent, `speak` is the child writing a line."""

    def __init__(self, clock: IReactorTime, answer: Callable[[bytes], list[bytes]]) -> None:
        self.sent: list[bytes] = []
        self.full = False
        self.closed = False
        self._clock = clock
        self._answer = answer
        self._received: Callable[[bytes], None] | None = None
        self._paused = False
        self._held: list[bytes] = []

    def send(self, line: bytes) -> bool:
        """See `IStdioChannel.send`."""
        if self.closed:
            return True
        if self.full:
            return False
        self.sent.append(line)
        for answer in self._answer(line):
            self._clock.callLater(0, self.speak, answer)
        return True

    def attach(self, received: Callable[[bytes], None]) -> None:
        """See `IStdioChannel.attach`."""
        self._received = received
        self._flow()

    def pause(self) -> None:
        """See `IStdioChannel.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See `IStdioChannel.resume`."""
        self._paused = False
        self._flow()

    def speak(self, line: bytes) -> None:
        """Have the child write a line."""
        self._held.append(line)
        self._flow()

    def _flow(self) -> None:
        while self._held and self._received is not None and not self._paused:
            self._received(self._held.pop(0))


@implementer(IInstance)
class MemoryInstance:
    """See `IInstance`; `end` is the copy dying."""

    def __init__(
        self, clock: IReactorTime, spec: ServerSpec, launch: Launch, behaviour: Behaviour, port: int
    ) -> None:
        self.instance_id = launch.instance_id
        self.key = launch.key
        self.launch = launch
        self.spec = spec
        self.behaviour = behaviour
        stdio = spec.transport is Transport.STDIO
        self.channel = MemoryChannel(clock, behaviour.answer) if stdio else None
        self.address = None if stdio else ("127.0.0.1", port)
        self.stopping: IDelayedCall | None = None
        self._ending = Ending()
        self.ended: Deferred[Exit] = self._ending.ended

    @property
    def alive(self) -> bool:
        """Tell whether it has not ended."""
        return self._ending.exit is None

    def when_ended(self) -> Deferred[Exit]:
        """See `IInstance.when_ended`."""
        return self._ending.watch()

    def logs(self) -> list[str]:
        """See `IInstance.logs`."""
        return list(self.behaviour.stderr)

    def log_after(self, seen: int) -> tuple[list[str], int]:
        """See `IInstance.log_after`."""
        return list(self.behaviour.stderr[seen:]), len(self.behaviour.stderr)

    def usage(self) -> Usage:
        """See `IInstance.usage`."""
        return self.behaviour.usage

    def end(self, how: Exit) -> None:
        """End it."""
        if self.channel is not None:
            self.channel.closed = True
        self._ending.tell(how)


@implementer(IRuntime)
class MemoryRuntime:
    """
    See `IRuntime`.

    :ivar behaviours: by server name; others behave well.
    :ivar instances: all that were ever started, oldest first.
    :ivar removed: keys given to `remove`.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.instances: list[MemoryInstance] = []
        self.removed: list[InstanceKey] = []
        self._clock = clock
        self._by_id: dict[str, MemoryInstance] = {}

    @property
    def alive(self) -> list[MemoryInstance]:
        """Those that run now."""
        return [instance for instance in self.instances if instance.alive]

    @deferred
    async def start(self, spec: ServerSpec, launch: Launch) -> IInstance:
        """See `IRuntime.start`."""
        known = self._by_id.get(launch.instance_id)
        if known is not None:
            return known
        behaviour = self.behaviours.get(spec.name) or Behaviour()
        if behaviour.start_s:
            await deferLater(self._clock, behaviour.start_s)
        if behaviour.refusal is not None:
            raise behaviour.refusal
        if not spec.command:
            raise BackendUnavailable(f"Server '{spec.name}' has no command.")
        port = 20_000 + len(self.instances)
        instance = MemoryInstance(self._clock, spec, launch, behaviour, port)
        self.instances.append(instance)
        self._by_id[launch.instance_id] = instance
        if behaviour.exits is not None:
            self._clock.callLater(0, instance.end, behaviour.exits)
        return instance

    def stop(self, instance: IInstance, grace_s: float) -> Deferred[Exit]:
        """See `IRuntime.stop`."""
        copy = self._by_id[instance.instance_id]
        if copy.alive and copy.stopping is None:
            killed = copy.behaviour.stop_s > 2 * grace_s
            wait_s = 2 * grace_s if killed else copy.behaviour.stop_s
            how = Exit(
                code=None if killed else 0,
                signal=9 if killed else None,
                reason="stopped",
                stderr_tail=copy.behaviour.stderr,
            )
            copy.stopping = self._clock.callLater(wait_s, copy.end, how)
        return copy.when_ended()

    def assign(self, instance: IInstance, key: InstanceKey) -> None:
        """See `IRuntime.assign`."""
        self._by_id[instance.instance_id].key = key

    def remove(self, key: InstanceKey) -> Deferred[None]:
        """See `IRuntime.remove`."""
        self.removed.append(key)
        return succeed(None)

    def adopt(self) -> Deferred[list[IInstance]]:
        """See `IRuntime.adopt`."""
        return succeed([])

    @deferred
    async def shutdown(self) -> None:
        """See `IRuntime.shutdown`."""
        for instance in self.alive:
            await self.stop(instance, 0)
