"""Who holds a TCP port already: read from /proc when a listener can not be bound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def port_holder(port: int, proc: str = "/proc") -> str:
    """
    Name the process that listens on a port, as ``nginx (pid 812)``; empty when it can not be told.

    Other users' processes are seen only by root.  Reads a few files of each process: for the one
    moment before giving up, not for more.
    """
    sockets = set(_listening_sockets(port, proc))
    if not sockets:
        return ""
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        if sockets.isdisjoint(_links(os.path.join(proc, pid, "fd"))):
            continue
        try:
            name = Path(proc, pid, "comm").read_text().strip()
        except OSError:
            name = "a process"
        return f"{name} (pid {pid})"
    return ""


def _listening_sockets(port: int, proc: str) -> Iterator[str]:
    """Give the links that /proc/PID/fd shows for sockets listening on the port."""
    wanted = f":{port:04X}"
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = Path(proc, table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and columns[1].endswith(wanted) and columns[3] == _LISTEN:
                yield f"socket:[{columns[9]}]"


def _links(directory: str) -> set[str]:
    links: set[str] = set()
    try:
        names = os.listdir(directory)
    except OSError:
        return links
    for name in names:
        try:
            links.add(os.readlink(os.path.join(directory, name)))
        except OSError:
            continue
    return links
