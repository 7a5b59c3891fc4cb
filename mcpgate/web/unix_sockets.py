"""
What a program that died leaves of a unix socket: its file, and Twisted's lock beside it.

The lock names the process that made it.  That tells nothing where numbers come again: in a
container the next gate is mostly the same number, and after a crash of the machine it may be
anybody's.  What tells is whether somebody listens.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from twisted.logger import Logger

log = Logger()


def clear_forsaken(path: str) -> bool:
    """
    Remove a socket nobody listens on, with its lock; True when there was one.

    Anything else that lies there is left for listening to complain about.
    """
    lock = f"{path}.lock"
    if not os.path.islink(lock) or _in_use(path):
        return False
    for name in (path, lock):
        with suppress(FileNotFoundError):
            os.unlink(name)
    log.info("Removed the socket {path} of a program that is no more", path=path)
    return True


def _in_use(path: str) -> bool:
    """Tell whether somebody listens, or something else lies there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return True
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # That the queue is full is an answer, too.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True
