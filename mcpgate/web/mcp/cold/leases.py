"""Leases of instances, and what a cold start costs whoever causes it."""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.errors import Starting
from mcpgate.interfaces import IInstancePool, ILease
from mcpgate.model import Caller, Owner, ServerSpec


class Leases:
    """
    Leases instances out of a pool; the caller who causes a start pays for it, once.

    :param charge_start: takes what a start costs; raises `RateLimited`.
    """

    def __init__(self, pool: IInstancePool, charge_start: Callable[[Caller], None]) -> None:
        self._pool = pool
        self._charge_start = charge_start
        # Starts under way that were paid for.
        self._paid: set[tuple[str, Owner]] = set()

    def ready(self, spec: ServerSpec, owner: Owner) -> ILease | None:
        """See `IInstancePool.ready`."""
        lease = self._pool.ready(spec, owner)
        if lease is not None and self._paid:
            self._paid.discard((spec.name, owner))
        return lease

    async def get(self, spec: ServerSpec, owner: Owner, caller: Caller) -> ILease:
        """See `IInstancePool.lease`; raises `RateLimited` too."""
        lease = self.ready(spec, owner)
        if lease is not None:
            return lease
        start = (spec.name, owner)
        # Nothing is started for a server that runs elsewhere.
        if spec.runtime != "remote" and start not in self._paid:
            self._charge_start(caller)
            self._paid.add(start)
        try:
            lease = await self._pool.lease(spec, owner, caller)
        except Starting:
            raise  # The start goes on; whoever asks again does not cause another.
        except BaseException:
            self._paid.discard(start)
            raise
        self._paid.discard(start)
        return lease
