"""The calls that wait for their clients to come back: by handle, bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from mcpgate.errors import Overloaded
from mcpgate.model import Principal

C = TypeVar("C")

PER_PRINCIPAL: Final = 32
TOTAL: Final = 1000


class Parked(Generic[C]):
    """
    See the module.

    :param make_handle: gives handles nobody can guess.
    """

    def __init__(
        self,
        make_handle: Callable[[], str],
        *,
        per_principal: int = PER_PRINCIPAL,
        total: int = TOTAL,
    ) -> None:
        self._make_handle = make_handle
        self._per_principal = per_principal
        self._total = total
        self._calls: dict[str, tuple[Principal, C]] = {}
        self._counts: dict[Principal, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, principal: Principal, call: C) -> str:
        """
        Park a call; give its handle.

        :raises Overloaded: there are too many, of this principal or in all.
        """
        mine = self._counts.get(principal, 0)
        if mine >= self._per_principal or len(self._calls) >= self._total:
            raise Overloaded("Too many calls wait for their clients.", retry_after_s=5.0)
        handle = self._make_handle()
        self._calls[handle] = (principal, call)
        self._counts[principal] = mine + 1
        return handle

    def find(self, principal: Principal, handle: str) -> C | None:
        """Find a call of this principal."""
        owner, call = self._calls.get(handle, (None, None))
        return call if owner == principal else None

    def remove(self, handle: str) -> None:
        """Forget a call; unknown handles are none."""
        found = self._calls.pop(handle, None)
        if found is None:
            return
        principal = found[0]
        self._counts[principal] -= 1
        if not self._counts[principal]:
            del self._counts[principal]

    def of(self, principal: Principal | None = None) -> list[C]:
        """List the calls of one principal, or all."""
        return [call for owner, call in self._calls.values() if principal in (None, owner)]
