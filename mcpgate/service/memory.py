"""
What the gate does when its memory runs out, before the kernel ends it (R31).

Where a cgroup (systemd's ``MemoryMax``, a container) limits it: above 80 % of the limit no new
session and no start, above 90 % idle event streams are closed, those longest unused first, above
95 % nobody new is accepted.  Without a limit nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from mcpgate.telemetry.meters import Meters

log = Logger()

#: Above the first of each pair a level begins, below the second it is over.
LEVELS: Final = ((0.80, 0.75), (0.90, 0.85), (0.95, 0.85))
REFUSE, SHED, CLOSED = 1, 2, 3

# What cgroups of version 1 say when there is no limit.
_NO_LIMIT: Final = 1 << 60


class MemoryFiles:
    """
    Reads how much of its limit this process's cgroup uses.

    :param proc: other places than these, for tests.
    """

    def __init__(self, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> None:
        self._proc = Path(proc)
        self._cgroup = Path(cgroup)

    def ratio(self) -> float | None:
        """Give the part of the limit in use, of the tightest limit above us; None without one."""
        ratios = []
        for folder, names in self._folders():
            limit = _number(_text(folder / names[0]))
            used = _number(_text(folder / names[1]))
            if limit is None or used is None or not 0 < limit < _NO_LIMIT:
                continue
            # Files that were read make room when it is needed.
            for line in _text(folder / "memory.stat").splitlines():
                if line.startswith(names[2:]):
                    used -= _number(line.split()[1]) or 0
            ratios.append(max(0, used) / limit)
        return max(ratios, default=None)

    def _folders(self) -> list[tuple[Path, tuple[str, ...]]]:
        two: tuple[str, ...] = ("memory.max", "memory.current", "inactive_file ", "active_file ")
        one = (
            *("memory.limit_in_bytes", "memory.usage_in_bytes"),
            *("total_inactive_file ", "total_active_file "),
        )
        found = []
        for line in _text(self._proc / "self" / "cgroup").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if not controllers:
                root, names = self._cgroup, two
            elif "memory" in controllers.split(","):
                root, names = self._cgroup / "memory", one
            else:
                continue
            parts = [part for part in path.split("/") if part and part != ".."]
            # In a container the path may be one that is not seen here: then the root is ours.
            found += [(root.joinpath(*parts[:n]), names) for n in range(len(parts), -1, -1)]
        return found


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    word = text.strip()
    return int(word) if word.isdecimal() else None


class MemoryWatch:
    """
    Compares and acts; `look` is for a ticker of a second.

    :param ratio: see `MemoryFiles.ratio`.
    :param shed: closes some idle streams; gives how many.
    :param accept: takes new connections again, or takes none.
    :ivar used: the last ratio; 0 without a limit.
    """

    def __init__(
        self,
        meters: Meters,
        *,
        ratio: Callable[[], float | None],
        shed: Callable[[], int],
        accept: Callable[[bool], None],
    ) -> None:
        self.used = 0.0
        self._meters = meters
        self._ratio = ratio
        self._shed = shed
        self._accept = accept
        self._level = 0

    def has_room(self) -> bool:
        """Tell whether something may be begun that takes memory for long."""
        return self._level < REFUSE

    def look(self) -> None:
        """Read, and do what the level asks for."""
        used = self.used = self._ratio() or 0.0
        before, level = self._level, self._level
        while level < len(LEVELS) and used > LEVELS[level][0]:
            level += 1
        while level > 0 and used < LEVELS[level - 1][1]:
            level -= 1
        self._level = level
        if level > before:
            self._meters.events["memory_low"] += 1
            log.warn(
                "{used:.0f} % of the memory limit are in use: {what}",
                ev="memory_low",
                used=used * 100,
                what=(
                    "no new sessions and starts",
                    "idle event streams are closed",
                    "nobody new is accepted",
                )[level - 1],
            )
        elif before and not level:
            log.info("Memory is back to {used:.0f} % of its limit", used=used * 100)
        if (level >= CLOSED) != (before >= CLOSED):
            self._accept(level < CLOSED)
        if level >= SHED:
            self._meters.events["streams_shed"] += self._shed()
