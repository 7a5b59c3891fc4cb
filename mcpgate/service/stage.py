"""One step of starting and stopping the gate, made of plain functions."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from typing_extensions import override


class Stage(Service):
    """A named service whose start and stop are functions; either may answer a Deferred."""

    def __init__(
        self,
        name: str,
        *,
        start: Callable[[], object] | None = None,
        stop: Callable[[], object] | None = None,
    ) -> None:
        self.setName(name)
        self._start = start
        self._stop = stop

    @override
    def startService(self) -> Deferred[object]:
        super().startService()
        return maybeDeferred(self._start) if self._start is not None else maybeDeferred(bool)

    @override
    def stopService(self) -> Deferred[object]:
        super().stopService()
        return maybeDeferred(self._stop) if self._stop is not None else maybeDeferred(bool)
