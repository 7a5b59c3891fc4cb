"""What a known caller's requests cost: tokens and places, taken in the one order and counted."""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.errors import Overloaded, RateLimited
from mcpgate.gate.admission import Admission
from mcpgate.model import Caller, ServerSpec
from mcpgate.telemetry.meters import Meters


class Tolls:
    """The limits of the gate as its front doors meet them."""

    def __init__(self, admission: Admission, meters: Meters) -> None:
        self._admission = admission
        self._meters = meters

    def charge(self, caller: Caller, spec: ServerSpec, *, count: int = 1) -> None:
        """
        Take what the calls cost from the key's and the server's buckets.

        :raises RateLimited: one of them is empty.
        """
        try:
            for _ in range(count):
                self._admission.call(caller, spec.name, spec.rate)
        except RateLimited:
            self._meters.events["rate_limited"] += 1
            raise

    def give_back(self, caller: Caller, spec: ServerSpec) -> None:
        """Return what one call has cost: somebody else will charge it."""
        self._admission.give_back(caller, spec.name, spec.rate)

    def hears(self, caller: Caller, *, count: int) -> bool:
        """
        Take what messages cost that want no answer; False when there are too many of them.

        They are to be dropped then, not refused: there is no id to refuse them under, and real
        clients drop their whole session on 429 (lab 2.1.4).
        """
        try:
            for _ in range(count):
                self._admission.told(caller)
        except RateLimited:
            self._meters.events["messages_dropped"] += 1
            return False
        return True

    def charge_start(self, caller: Caller) -> None:
        """
        Take what a cold start costs beyond its call.

        :raises RateLimited: the key starts too much.
        """
        try:
            self._admission.start(caller)
        except RateLimited:
            self._meters.events["rate_limited"] += 1
            raise

    def enter(self, caller: Caller, *, count: int = 1) -> Callable[[], None]:
        """
        Take places for requests in work.

        :return: to be called once for each of them when it is answered; further calls do nothing.
        :raises Overloaded: the key has too many in work.
        """
        taken = 0
        try:
            for _ in range(count):
                self._admission.enter(caller)
                taken += 1
        except Overloaded:
            for _ in range(taken):
                self._admission.leave(caller)
            self._meters.events["overloaded"] += 1
            raise
        self._meters.calls_in_work += count

        def leave() -> None:
            nonlocal taken
            if not taken:
                return
            taken -= 1
            self._meters.calls_in_work -= 1
            self._admission.leave(caller)

        return leave
