"""
What is known of the eras of servers, held against how they behave.

A verdict that has grown old, or that a server contradicts, is looked at again behind the back of
whoever noticed (protocol.md 2.9): a wrong *legacy* would work silently for ever, a wrong *modern*
fails every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import GateError
from mcpgate.gate.eras import EraBook
from mcpgate.model import Caller, InstanceKey, ServerSpec, Transport
from mcpgate.web.mcp.post import owner_of

log = Logger()

#: A server in doubt is looked at no more often than this.
QUIET_S: Final = 60.0

Probe = Callable[[ServerSpec, Caller], Deferred[bool]]
"""Asks a server on HTTP whether it is modern; fails with a `GateError` if that can not be told."""


class EraWatch:
    """
    Looks at servers again.

    :param stop: stops an instance.
    """

    def __init__(
        self,
        clock: IReactorTime,
        eras: EraBook,
        probe: Probe,
        stop: Callable[[InstanceKey], Deferred[None]],
    ) -> None:
        self._clock = clock
        self._eras = eras
        self._probe = probe
        self._stop = stop
        self._looked_at: dict[str, float] = {}

    def used(self, spec: ServerSpec, caller: Caller) -> None:
        """Look again at what is known of a server that somebody uses, if that is old."""
        if self._eras.is_old(spec):
            self.doubted(spec, caller)

    def doubted(self, spec: ServerSpec, caller: Caller) -> None:
        """Look again at a server that does not behave as it should."""
        # Of a stdio server each new process tells anew.
        if spec.transport is Transport.STDIO or self._eras.known(spec).pinned:
            return
        now = self._clock.seconds()
        last = self._looked_at.get(spec.name)
        if last is not None and now - last < QUIET_S:
            return
        self._looked_at[spec.name] = now

        def found(modern: bool) -> None:
            if modern:
                self._eras.note(spec, modern=True)
            else:
                self.refuted(spec, caller)

        def unknown(failure: Failure) -> None:
            failure.trap(GateError)
            log.debug("{server} could not be probed: {why}", server=spec.name, why=failure.value)

        probing = self._probe(spec, caller).addCallbacks(found, unknown)
        probing.addErrback(lambda failure: log.failure("A probe failed", failure))

    def refuted(self, spec: ServerSpec, caller: Caller) -> None:
        """Note that a server is surely not modern, whatever was known."""
        verdict = self._eras.known(spec)
        if verdict.pinned:
            return
        if verdict.modern_only:
            # It spoke nothing else; what it speaks now, the next session finds out.
            log.info("{server} is not modern any more", server=spec.name)
            self._eras.forget(spec)
            if spec.transport is Transport.STDIO:
                stopping = self._stop(InstanceKey(spec.name, owner_of(spec, caller.principal, "")))
                stopping.addErrback(lambda failure: log.failure("Stopping failed", failure))
        self._eras.note(spec, modern=False)
