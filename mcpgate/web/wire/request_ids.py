"""Ids of requests: in the log, in errors, in ``X-Request-Id``."""

from __future__ import annotations

from collections.abc import Callable


def request_ids(life: str) -> Callable[[], str]:
    """
    Give what makes ids that tell requests of one process apart, and processes from one another.

    :param life: eight hex digits by chance, for this life of this process.
    """
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        return f"{life}-{count:x}"

    return make
