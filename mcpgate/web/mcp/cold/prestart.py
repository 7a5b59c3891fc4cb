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

    :param specs: the servers with ``prestart``.
    """

    def __init__(
        self, specs: Iterable[ServerSpec], pool: IInstancePool, clock: IReactorTime
    ) -> None:
        self._specs = tuple(specs)
        self._pool = pool
        self._clock = clock
        pauses = (spec.lifetime.idle_stop_s or inf for spec in self._specs)
        self._pause_s = min(pauses, default=inf)
        # When each was last seen, the longest unseen first.
        self._seen: OrderedDict[Principal, float] = OrderedDict()

    def __call__(self, caller: Caller) -> None:
        """Take note of a request."""
        now = self._clock.seconds()
        before = self._seen.get(caller.principal)
        self._seen[caller.principal] = now
        self._seen.move_to_end(caller.principal)
        if before is not None and now - before < self._pause_s:
            return
        if len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)
        # On a turn of its own: the request itself comes first.
        self._clock.callLater(0, self._start, caller)

    def _start(self, caller: Caller) -> None:
        for spec in self._specs:
            if caller.may_use(spec.name):
                self._pool.start_ahead(spec, owner_of(spec, caller.principal, ""), caller)


def make_greeting(
    specs: Iterable[ServerSpec], pool: IInstancePool, clock: IReactorTime
) -> Callable[[Caller], None] | None:
    """Make a `Greeting` if any server wants one."""
    wanted = [spec for spec in specs if spec.prestart]
    return Greeting(wanted, pool, clock) if wanted else None
