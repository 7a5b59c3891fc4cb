"""
What /proc tells about the processes of a session; Linux only.

The gate gives each child a session of its own (setsid), so all descendants that do not leave it
on purpose carry the child's pid as their session id, also after the child is gone.  Those that
do leave carry the mark in their environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from mcpgate.model import Usage

MARK = "MCPGATE_INSTANCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """
    One line of the table.

    :ivar session: pid of the process that founded the session.
    :ivar started: clock ticks after boot.
    :ivar cpu_ticks: user and system time.
    """

    pid: int
    parent: int
    state: str
    session: int
    started: int
    cpu_ticks: int


class ProcFS:
    """
    Reads /proc.

    A scan costs about 20 microseconds per process of the machine; `usage` shares one scan among
    all that ask within a second.

    :param root: another place than ``/proc``, for tests.
    """

    def __init__(self, clock: IReactorTime, root: str = "/proc") -> None:
        self._clock = clock
        self._root = root
        self._tick_hz = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._scanned_at = float("-inf")
        self._sessions: dict[int, list[Process]] = {}

    def _read(self, *path: str) -> bytes:
        with open(os.path.join(self._root, *path), "rb", buffering=0) as file:
            # readall: an environment may be longer than one read.
            return file.readall()

    def process(self, pid: int) -> Process | None:
        """Read one process; None when there is none."""
        try:
            stat = self._read(str(pid), "stat")
        except OSError:
            return None
        # The name, in parentheses, may hold anything; what follows its end is regular.
        fields = stat[stat.rindex(b")") + 2 :].split()
        return Process(
            pid=pid,
            state=fields[0].decode(),
            parent=int(fields[1]),
            session=int(fields[3]),
            cpu_ticks=int(fields[11]) + int(fields[12]),
            started=int(fields[19]),
        )

    def processes(self) -> Iterator[Process]:
        """Read them all."""
        for name in os.listdir(self._root):
            if name.isdecimal():
                process = self.process(int(name))
                if process is not None:
                    yield process

    def marked(self, process: Process, mark: str) -> bool:
        """Tell whether the process was started with this mark; False when it can not be told."""
        try:
            environment = self._read(str(process.pid), "environ")
        except OSError:
            return False
        return f"{MARK}={mark}".encode() in environment.split(b"\0")

    def boot_id(self) -> str:
        """Tell one boot of the machine from another."""
        try:
            return self._read("sys", "kernel", "random", "boot_id").decode().strip()
        except OSError:
            return ""

    def oom_kills(self) -> int:
        """Count the processes the kernel killed for want of memory since boot."""
        try:
            for line in self._read("vmstat").splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
        except OSError:
            pass
        return 0

    def belonging(self, session: int, mark: str, since: int) -> list[int]:
        """
        Find the live processes of an instance, in its session or fled from it.

        :param session: pid of its first process.
        :param since: when that started, clock ticks after boot: whatever is older is another's.
        """
        return [
            process.pid
            for process in self.processes()
            if process.started >= since
            and process.state not in "ZX"
            and (process.session == session or self.marked(process, mark))
        ]

    def usage(self, session: int) -> Usage:
        """Add up what the processes of a session use now (up to a second old)."""
        age_s = self._clock.seconds() - self._scanned_at
        if age_s >= 1.0 or session not in self._sessions:
            self._scanned_at = self._clock.seconds()
            self._sessions = {}
            for process in self.processes():
                if process.state not in "ZX":
                    self._sessions.setdefault(process.session, []).append(process)
        members = self._sessions.get(session, [])
        return Usage(
            memory_bytes=sum(map(self._memory_bytes, members)),
            cpu_s=sum(member.cpu_ticks for member in members) / self._tick_hz,
            processes=len(members),
        )

    def _memory_bytes(self, process: Process) -> int:
        """Resident memory it shares with no file: adding up does not count code twice."""
        try:
            fields = self._read(str(process.pid), "statm").split()
            return (int(fields[1]) - int(fields[2])) * self._page_bytes
        except (OSError, IndexError):
            return 0
