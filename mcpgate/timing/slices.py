"""
Long work in short turns, so that nobody waits for the end of a list.

Between two slices anything may happen: the work must look again at what it decides on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mcpgate.timing.deferreds import deferred

T = TypeVar("T")

#: How long a slice may take; what else is to be done in the same turn comes on top.
SLICE_S: Final = 0.01


@deferred
async def in_slices(
    clock: IReactorTime,
    items: Iterable[T],
    work: Callable[[T], object],
    *,
    slice_s: float = SLICE_S,
) -> None:
    """
    Do ``work`` with each item, letting the reactor turn whenever ``slice_s`` seconds are used up.

    Of few items everything is done at once.  Stops at the first that raises; cancelling stops
    between two slices.

    :param items: not to change meanwhile: make a copy of what may, and an `emptied` one of what
        is large: to let go of very many things at once is long work, too.
    """
    until_s = clock.seconds() + slice_s
    for item in items:
        work(item)
        if clock.seconds() >= until_s:
            await deferLater(clock, 0)
            until_s = clock.seconds() + slice_s


def emptied(items: Iterable[T]) -> Iterator[T]:
    """Go through a copy, letting go of each item as the next is asked for."""
    left = deque(items)
    del items
    while left:
        yield left.popleft()
