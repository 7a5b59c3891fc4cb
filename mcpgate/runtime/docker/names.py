"""
What the names stand for that containers may reach, asked of the host's resolver.

That blocks, so each question gets a thread of its own: a few at a time, and whoever asks waits no
longer than the deadline.  What was known stays good while nobody answers.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from mcpgate.runtime.docker.engine import spawn_thread
from mcpgate.timing.deferreds import deferred

log = Logger()

DEADLINE_S: Final = 5.0
FRESH_S: Final = 60.0
AGAIN_S: Final = 15.0
THREADS: Final = 4

_MOST_ADDRESSES: Final = 16


def resolve(name: str) -> list[str]:
    """Give the IPv4 addresses of a name; blocks."""
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


@dataclass(slots=True, eq=False)
class _Name:
    """
    :ivar now: its addresses by the last answer.
    :ivar before: by the one before that: connections may be on their way to these.
    :ivar ask_at_s: not asked again before.
    """

    now: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    ask_at_s: float = float("-inf")
    asking: bool = False
    waiting: list[Deferred[None]] = field(default_factory=list)


class Names:
    """
    Names and their addresses.

    :param reactor: clock and ``callFromThread``.
    :param resolve: gives the addresses of a name; blocks, and raises `OSError`.
    :param spawn: starts a thread.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        resolve: Callable[[str], Sequence[str]] = resolve,
        spawn: Callable[[Callable[[], None]], None] = spawn_thread,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._reactor = reactor
        self._resolve = resolve
        self._spawn = spawn
        self._deadline_s = deadline_s
        self._names: dict[str, _Name] = {}
        self._queue: deque[str] = deque()
        self._threads = 0

    def now(self, name: str) -> tuple[str, ...]:
        """Give the addresses of a name by the last answer."""
        known = self._names.get(name)
        return () if known is None else known.now

    def lately(self, name: str) -> tuple[str, ...]:
        """Give its addresses by the last two answers."""
        known = self._names.get(name)
        return () if known is None else tuple(dict.fromkeys(known.now + known.before))

    def recall(self, name: str, addresses: Iterable[str]) -> None:
        """Take what an earlier life of the gate was told, if nothing else is known."""
        known = self._names.setdefault(name, _Name())
        known.now = known.now or tuple(addresses)

    @deferred
    async def look_up(self, names: Iterable[str]) -> None:
        """Ask for what is not known, or no longer; never fails, and ends by the deadline."""
        now_s = self._reactor.seconds()
        wanted = []
        for name in dict.fromkeys(names):
            known = self._names.setdefault(name, _Name())
            if now_s >= known.ask_at_s:
                wanted.append(self._ask(name, known))
        await DeferredList(wanted)

    def _ask(self, name: str, known: _Name) -> Deferred[None]:
        waiter: Deferred[None] = Deferred(known.waiting.remove)
        known.waiting.append(waiter)
        if not known.asking:
            known.asking = True
            self._queue.append(name)
            self._work()

        def late(_: object) -> None:
            known.ask_at_s = self._reactor.seconds() + AGAIN_S
            log.warn("Nobody tells in time what {name} stands for", name=name)

        return waiter.addTimeout(self._deadline_s, self._reactor).addErrback(late)

    def _work(self) -> None:
        while self._queue and self._threads < THREADS:
            self._threads += 1
            name = self._queue.popleft()
            self._spawn(lambda name=name: self._on_thread(name))  # type: ignore[misc]  # mypy's limit

    def _on_thread(self, name: str) -> None:
        found: Sequence[str] = ()
        why = ""
        try:
            found = self._resolve(name)
        except (OSError, UnicodeError) as error:
            why = str(error)
        self._reactor.callFromThread(self._told, name, tuple(found), why)

    def _told(self, name: str, found: tuple[str, ...], why: str) -> None:
        self._threads -= 1
        known = self._names[name]
        known.asking = False
        # In order, so that an answer that is only shuffled changes nothing.
        fresh = tuple(sorted(set(found)))[:_MOST_ADDRESSES]
        known.ask_at_s = self._reactor.seconds() + (FRESH_S if fresh else AGAIN_S)
        if fresh:
            known.before, known.now = known.now, fresh
        else:
            log.warn("{name} stands for nothing: {why}", name=name, why=why or "no address")
        for waiter in tuple(known.waiting):
            known.waiting.remove(waiter)
            waiter.callback(None)
        self._work()
