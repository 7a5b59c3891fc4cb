"""Starting servers for a key before it asks for them: ``prestart``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime

from mcpgate.interfaces import IInstancePool
from mcpgate.model import Caller, Principal, ServerSpec
from mcpgate.web.mcp.post import owner_of

_KNOWN: Final = 10_000


class Greeting:
    """
    Called for each request of a known caller; starts its servers when it comes after a pause.

    Nobody is held up by it, and no other instance has to make room.  The pause is the shortest
    ``idle_stop`` of these servers: whoever comes sooner finds them running.

    :param callers: gives who used any server within so many seconds.
    """

    def __init__(
        self, pool: IInstancePool, clock: IReactorTime, callers: Callable[[float], Iterable[Caller]]
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._callers = callers
        self._specs: tuple[ServerSpec, ...] = ()
        self._pause_s = inf
        # When each was last seen, the longest unseen first.
        self._seen: OrderedDict[Principal, float] = OrderedDict()
        # Whose key was revoked, and who has not come with a good one since.
        self._gone: OrderedDict[Principal, None] = OrderedDict()

    def forget(self, principal: Principal) -> None:
        """Start nothing for a key that is good no more."""
        self._seen.pop(principal, None)
        self._gone[principal] = None
        if len(self._gone) > _KNOWN:
            self._gone.popitem(last=False)

    def serve(self, specs: Iterable[ServerSpec]) -> None:
        """
        Heed those of these servers with ``prestart`` from now on.

        One that is new is started for whoever is at work now, as if it had been there before.
        """
        old = {spec.name for spec in self._specs}
        self._specs = tuple(spec for spec in specs if spec.prestart)
        self._pause_s = min(map(_pause_s, self._specs), default=inf)
        new = [spec for spec in self._specs if spec.name not in old]
        if new:
            self._clock.callLater(0, self._start_new, new)

    def __call__(self, caller: Caller) -> None:
        """Take note of a request."""
        if not self._specs:
            return
        now = self._clock.seconds()
        before = self._seen.get(caller.principal)
        self._seen[caller.principal] = now
        self._seen.move_to_end(caller.principal)
        if before is not None and now - before < self._pause_s:
            return
        self._gone.pop(caller.principal, None)
        if len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)
        # On a turn of its own: the request itself comes first.
        self._clock.callLater(0, self._start, caller)

    def _start_new(self, specs: Iterable[ServerSpec]) -> None:
        for spec in specs:
            for caller in self._callers(_pause_s(spec)):
                if caller.principal not in self._gone:
                    self._start_one(spec, caller)

    def _start(self, caller: Caller) -> None:
        for spec in self._specs:
            self._start_one(spec, caller)

    def _start_one(self, spec: ServerSpec, caller: Caller) -> None:
        if caller.may_use(spec.name):
            self._pool.start_ahead(spec, owner_of(spec, caller.principal, ""), caller)


def _pause_s(spec: ServerSpec) -> float:
    return spec.lifetime.idle_stop_s or inf
