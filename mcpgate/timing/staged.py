"""
Services started in order and stopped in reverse, each one waited for.

`twisted.application.service.MultiService` starts all at once, ignores what ``startService``
answers, and stops all at once.
"""

from __future__ import annotations

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from mcpgate.timing.deferreds import deferred

log = Logger()


class StagedService(MultiService):
    """
    Children start first to last, each after the one before is up; they stop last to first.

    A child that fails to start stops what was started before it and fails the whole start.  A
    child that does not stop in time is named in the log and left behind.

    :param stop_timeout_s: how long each child may take to stop.
    """

    def __init__(self, clock: IReactorTime, stop_timeout_s: float = 30.0) -> None:
        super().__init__()
        self._clock = clock
        self._stop_timeout_s = stop_timeout_s

    @deferred
    async def _start(self) -> None:
        started: list[IService] = []
        try:
            for child in list(self.services):
                await maybeDeferred(child.startService)
                started.append(child)
        except BaseException:
            await self._stop(started)
            raise

    async def _stop(self, children: list[IService]) -> None:
        for child in reversed(children):
            try:
                await maybeDeferred(child.stopService).addTimeout(self._stop_timeout_s, self._clock)
            except TimeoutError:
                log.error("Service {name} did not stop in time", name=child.name)
            except Exception:
                log.failure("Service {name} failed to stop", name=child.name)

    @override
    def privilegedStartService(self) -> None:
        """Nothing of ours needs privileges: sockets are bound in `startService`."""

    @override
    def startService(self) -> Deferred[None]:
        self.running = 1
        return self._start()

    @override
    def stopService(self) -> Deferred[None]:
        self.running = 0
        return Deferred.fromCoroutine(self._stop(list(self.services)))
