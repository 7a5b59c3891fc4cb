"""
What a container uses, read from its cgroups, version 1 or 2: five small files.

The engine's own call for this takes a second.  Only where the gate and the engine share a machine.
"""

from __future__ import annotations

import os
import re
from typing import Final

from mcpgate.model import Usage

_NANO: Final = 1e-9
_MICRO: Final = 1e-6


class Cgroups:
    """
    Finds and reads them.

    :param proc: other places than these, for tests.
    """

    def __init__(self, proc: str = "/proc", root: str = "/sys/fs/cgroup") -> None:
        self._proc = proc
        self._root = root

    def find(self, pid: int, container_id: str) -> dict[str, str]:
        """
        Give the folders of a container's first process, by controller; empty when not found.

        :param container_id: must stand in the path: on another machine the pid is somebody else's.
        """
        try:
            with open(os.path.join(self._proc, str(pid), "cgroup"), encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError:
            return {}
        found = {}
        for line in lines:
            _, names, path = line.split(":", 2)
            if container_id not in path:
                continue
            for name in names.split(","):
                found[name] = os.path.join(self._root, name, path.lstrip("/"))
        if set(found) == {""}:
            return {"": os.path.join(self._root, lines[0].split(":", 2)[2].lstrip("/"))}
        return found

    def usage(self, folders: dict[str, str]) -> Usage:
        """Read; what can not be read is None."""
        if not folders:
            return Usage()
        if "" in folders and "memory" not in folders:
            one = folders[""]
            cpu = _field(_read(one, "cpu.stat"), "usage_usec")
            return Usage(
                memory_bytes=_memory(one, "memory.current", "inactive_file"),
                cpu_s=None if cpu is None else cpu * _MICRO,
                processes=_number(_read(one, "pids.current")),
                oom_kills=_field(_read(one, "memory.events"), "oom_kill"),
            )
        nanos = _number(_read(folders.get("cpuacct", ""), "cpuacct.usage"))
        return Usage(
            memory_bytes=_memory(
                folders.get("memory", ""), "memory.usage_in_bytes", "total_inactive_file"
            ),
            cpu_s=None if nanos is None else nanos * _NANO,
            processes=_number(_read(folders.get("pids", ""), "pids.current")),
            oom_kills=_field(_read(folders.get("memory", ""), "memory.oom_control"), "oom_kill"),
        )


def _memory(folder: str, name: str, cached: str) -> int | None:
    """Without what the kernel would drop at once, as the engine counts it."""
    used = _number(_read(folder, name))
    if used is None:
        return None
    return max(0, used - (_field(_read(folder, "memory.stat"), cached) or 0))


def _read(folder: str, name: str) -> str:
    if not folder:
        return ""
    try:
        with open(os.path.join(folder, name), encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _field(text: str, name: str) -> int | None:
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None
