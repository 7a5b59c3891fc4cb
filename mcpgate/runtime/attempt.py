"""
One start, from the queue to a connected upstream; and one stop.

Whatever happens on the way, what was begun is stopped before the failure is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mcpgate.errors import BackendTimeout, BackendUnavailable, GateError
from mcpgate.interfaces import IInstance, IRuntime, IUpstream
from mcpgate.model import Caller, Exit, InstanceKey, Isolation, Launch, Secret, ServerSpec
from mcpgate.runtime.instance import Running
from mcpgate.runtime.starts import StartQueue
from mcpgate.timing.deferreds import deferred

log = Logger()

REMOTE: Final = "remote"

PORT_TRIES: Final = 3
STDERR_LINES: Final = 20

_STOP_SLACK_S: Final = 5.0


class Probe(Protocol):
    """Waits until an instance answers; `mcpgate.runtime.readiness.ReadinessProbe`."""

    def wait(self, spec: ServerSpec, instance: IInstance) -> Deferred[None]:
        """Fire when it does; the deadline is the caller's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    A start somebody wants.

    :ivar caller: None for a copy that is nobody's yet.
    :ivar after: what must be over before: instances stopped to make room.
    :ivar delay_s: backoff.
    """

    spec: ServerSpec
    key: InstanceKey
    caller: Caller | None
    after: tuple[Deferred[Any], ...] = ()
    delay_s: float = 0.0


def exit_data(how: Exit, *, stderr: bool = True) -> dict[str, object]:
    """
    Put an exit into the public fields of an error.

    :param stderr: with its last lines; not among strangers, of whose calls they may tell.
    """
    told: dict[str, object] = {
        "exitCode": how.code,
        "signal": how.signal,
        "exitReason": how.reason,
    }
    if stderr:
        told["stderr"] = list(how.stderr_tail[-STDERR_LINES:])
    return told


def launch_values(order: Order) -> dict[str, Secret]:
    """
    Give what templates may say about the caller.

    Nothing for a shared instance: it would act for everybody with the first caller's key; nor for
    one that is nobody's.
    """
    if order.caller is None or order.key.owner.isolation is Isolation.SHARED:
        return {}
    return {"key": order.caller.credential, "user": Secret(order.caller.principal.subject)}


class Starter:
    """
    Starts and stops instances of any runtime, within deadlines.

    :param connect: makes the upstream of an instance that is ready.
    :param make_id: gives ids that are unique over the life of the state directory.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        runtimes: Mapping[str, IRuntime],
        connect: Callable[[ServerSpec, IInstance], IUpstream],
        probe: Probe,
        queue: StartQueue,
        make_id: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._runtimes = runtimes
        self._connect = connect
        self._probe = probe
        self._queue = queue
        self._make_id = make_id

    @deferred
    async def begin(self, order: Order) -> Running:
        """
        Start a copy.

        The deadline ``start_s`` begins when the start has its place in the queue.  Fails with
        `BackendTimeout`, with `BackendUnavailable` when it can not be started or ends on the way
        (``error.data`` holds exit code and last lines), and when cancelled.
        """
        for before in order.after:
            await before
        if order.delay_s > 0:
            await deferLater(self._clock, order.delay_s)
        if order.spec.runtime == REMOTE:
            return await self._within_deadline(order)
        await self._queue.acquire("" if order.caller is None else order.caller.principal.key_digest)
        try:
            return await self._within_deadline(order)
        finally:
            self._queue.release()

    async def _within_deadline(self, order: Order) -> Running:
        spec = order.spec
        begun: list[IInstance] = []
        try:
            return await Deferred.fromCoroutine(self._start(order, begun)).addTimeout(
                spec.lifetime.start_s, self._clock
            )
        except TimeoutError:
            last = begun[-1].logs()[-STDERR_LINES:] if begun else []
            raise BackendTimeout(
                f"Server '{spec.name}' was not ready {spec.lifetime.start_s:g} s after its start.",
                data={"stderr": last},
            ) from None

    async def _start(self, order: Order, begun: list[IInstance]) -> Running:
        spec = order.spec
        runtime = self._runtime(spec)
        how = Exit(reason="lost")
        for _ in range(PORT_TRIES):
            launch = Launch(instance_id=self._make_id(), key=order.key, values=launch_values(order))
            instance = await runtime.start(spec, launch)
            begun.append(instance)
            try:
                ended = await self._ready_or_ended(spec, instance)
                if ended is None:
                    return Running(instance=instance, upstream=self._connect(spec, instance))
            except Exception:  # Being cancelled, too.
                await self.stop(spec, instance, 0)
                raise
            how = ended
            if how.reason != "port_taken":
                break
        what = f"code {how.code}" if how.signal is None else f"signal {how.signal}"
        raise BackendUnavailable(
            f"Server '{spec.name}' ended with {what} while it was starting.", data=exit_data(how)
        )

    async def _ready_or_ended(self, spec: ServerSpec, instance: IInstance) -> Exit | None:
        ended: list[Exit] = []
        ready = self._probe.wait(spec, instance)

        def over(how: Exit) -> None:
            ended.append(how)
            ready.cancel()

        watch = instance.when_ended().addCallback(over)
        watch.addErrback(lambda failure: failure.trap(CancelledError))
        try:
            await ready
        except CancelledError:
            if not ended:
                raise
        finally:
            watch.cancel()
        return ended[0] if ended else None

    def take(self, spec: ServerSpec, instance: IInstance) -> Running:
        """Connect to a copy that runs already."""
        return Running(instance=instance, upstream=self._connect(spec, instance))

    def assign(self, spec: ServerSpec, instance: IInstance, key: InstanceKey) -> None:
        """Give a copy that was nobody's to an owner."""
        self._runtime(spec).assign(instance, key)

    def _runtime(self, spec: ServerSpec) -> IRuntime:
        try:
            return self._runtimes[spec.runtime]
        except KeyError:
            raise BackendUnavailable(
                f"Server '{spec.name}' wants the runtime '{spec.runtime}', which this gate does "
                f"not have."
            ) from None

    @deferred
    async def stop(self, spec: ServerSpec, instance: IInstance, grace_s: float) -> Exit:
        """Stop a copy; answers in any case, ``lost`` when the runtime does not."""
        try:
            return (
                await self._runtime(spec)
                .stop(instance, grace_s)
                .addTimeout(3 * grace_s + _STOP_SLACK_S, self._clock)
            )
        except (TimeoutError, CancelledError):
            log.error("Instance {instance} does not stop", instance=instance.instance_id)
        except GateError as error:
            log.warn(
                "Instance {instance} was not stopped: {why}",
                instance=instance.instance_id,
                why=error.detail,
            )
        except Exception:
            # A border: a runtime's failure must not leave the pool waiting for ever.
            log.failure("Stopping {instance} failed", instance=instance.instance_id)
        return Exit(reason="lost")

    @deferred
    async def clear(self, spec: ServerSpec, key: InstanceKey) -> None:
        """Remove what a stopped copy left; answers in any case."""
        try:
            await self._runtime(spec).remove(key).addTimeout(60.0, self._clock)
        except (GateError, TimeoutError) as error:
            # What is left is found again by the runtime's `adopt`.
            why = error.detail if isinstance(error, GateError) else "it takes too long"
            log.warn("What is left of {server} was not removed: {why}", server=key.server, why=why)
        except Exception:
            # A border, as above.
            log.failure("Removing what is left of {server} failed", server=key.server)
