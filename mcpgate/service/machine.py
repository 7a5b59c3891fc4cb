"""What this machine has, read from /proc and the cgroups this process, or the gate, is in."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from mcpgate.model import KIB


class MachineFiles:
    """
    Reads them; what can not be read is None.

    :param proc: other places than these, for tests.
    """

    def __init__(self, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> None:
        self._proc = Path(proc)
        self._cgroup = Path(cgroup)

    def _text(self, *parts: str, root: Path | None = None) -> str:
        try:
            return (root or self._proc).joinpath(*parts).read_text("ascii", "replace")
        except OSError:
            return ""

    def _number(self, *parts: str, root: Path | None = None) -> int | None:
        words = self._text(*parts, root=root).split()
        return int(words[0]) if words and words[0].isdecimal() else None

    def memory(self) -> tuple[int, int]:
        """Give total and available memory, bytes; a limit of the cgroup counts as the total."""
        found = {}
        for line in self._text("meminfo").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdecimal():
                found[name] = int(words[0]) * KIB
        total, available = found.get("MemTotal", 0), found.get("MemAvailable", 0)
        limit = self._number("memory.max", root=self._cgroup) or self._number(
            "memory", "memory.limit_in_bytes", root=self._cgroup
        )
        if limit is not None and 0 < limit < total:
            return limit, min(limit, available)
        return total, available

    def cpus(self) -> float:
        """Give the processors that may be used; a quota of the cgroup counts."""
        allowed = float(len(os.sched_getaffinity(0)))
        words = self._text("cpu.max", root=self._cgroup).split()
        if len(words) == 2 and words[0].isdecimal() and int(words[1]) > 0:
            return min(allowed, int(words[0]) / int(words[1]))
        quota = self._number("cpu", "cpu.cfs_quota_us", root=self._cgroup)
        period = self._number("cpu", "cpu.cfs_period_us", root=self._cgroup)
        if quota and period:
            return min(allowed, quota / period)
        return allowed

    def pids(self) -> int | None:
        """Give how many processes and threads there may be."""
        bounds = (
            self._number("sys", "kernel", "pid_max"),
            self._number("sys", "kernel", "threads-max"),
            self._number("pids.max", root=self._cgroup),
            self._number("pids", "pids.max", root=self._cgroup),
        )
        return min((bound for bound in bounds if bound), default=None)

    def ports(self) -> int | None:
        """Give how many ports the kernel chooses from."""
        words = self._text("sys", "net", "ipv4", "ip_local_port_range").split()
        if len(words) == 2 and all(word.isdecimal() for word in words):
            return int(words[1]) - int(words[0]) + 1
        return None

    def open_files(self, pid: int | None) -> int | None:
        """Give how many files a process may have open; of None this one, at its hard limit."""
        if pid is None:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            return None if hard == resource.RLIM_INFINITY else hard
        for line in self._text(str(pid), "limits").splitlines():
            if line.startswith("Max open files"):
                words = line.split()
                return int(words[3]) if words[3].isdecimal() else None
        return None

    def resident(self, pid: int) -> int | None:
        """Give the memory a process has, bytes."""
        words = self._text(str(pid), "statm").split()
        page = os.sysconf("SC_PAGE_SIZE")
        return int(words[1]) * page if len(words) > 1 and words[1].isdecimal() else None
