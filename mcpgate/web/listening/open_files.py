"""The bound on open files: raised at start, watched while running (R28, R29)."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from twisted.logger import Logger

from mcpgate.telemetry.meters import Meters

log = Logger()

# More than any gate will use; some containers set a hard limit of a billion, which makes
# programs slow that close "all" files.
MOST = 1 << 20


def raise_open_files() -> int:
    """Raise the soft limit on open files to the hard one; answer the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def count_open_files(directory: str = "/proc/self/fd") -> int:
    """Tell how many descriptors are open; 0 where that can not be told."""
    try:
        return len(os.listdir(directory))
    except OSError:
        return 0


class OpenFilesWatch:
    """
    Says once when more than 80 % of the limit is in use, and once when it is over.

    :param limit: what `raise_open_files` answered.
    """

    def __init__(
        self, limit: int, meters: Meters, count: Callable[[], int] = count_open_files
    ) -> None:
        self._limit = limit
        self._meters = meters
        self._count = count
        self.low = False

    def look(self) -> None:
        """Compare; for a `Ticker` of some seconds."""
        used = self._count()
        if not self.low and used > 0.8 * self._limit:
            self.low = True
            self._meters.events["fd_low"] += 1
            log.warn(
                "{used} of {limit} open files are in use: raise LimitNOFILE",
                used=used,
                limit=self._limit,
            )
        elif self.low and used < 0.7 * self._limit:
            self.low = False
            log.info("Open files are back to {used} of {limit}", used=used, limit=self._limit)
