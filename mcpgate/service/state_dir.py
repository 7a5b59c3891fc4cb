"""The state directory: ours alone, and of one running gate at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class StateDirError(Exception):
    """The state directory can not be used; the text names it and the remedy."""


class StateDir:
    """
    Makes the directory and holds its lock.

    Two gates on one directory would adopt and kill each other's servers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def take(self) -> None:
        """
        Make it (mode 0700) and lock it.

        :raises StateDirError: it can not be made, or another gate runs on it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirError(
                f"state_dir {self.path}: {error.strerror}. Choose a directory this user can write."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise StateDirError(
                f"state_dir {self.path}: another gate runs on it. Stop that one, or choose another."
            ) from error

    def release(self) -> None:
        """Let the next gate in.  Idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
