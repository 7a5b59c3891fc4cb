"""
Files of a server in its container, among them secrets: in memory of the host, never in the
engine's sight.

``file.NAME`` entries become files below a folder of a tmpfs; the container gets that folder,
read-only, as ``{files_dir}``.  `docker inspect` shows the folder's name, nothing of what is in it,
and no disk holds it.  The folder above is closed to every other user of the host; what is inside
may be read by anybody, for who the container runs as is the image's business.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

from mcpgate.model import ServerSpec, fill

_HOSTS: Final = ".hosts"
_MOST_HOSTS: Final = 1 << 20
_FALLBACK: Final = "/dev/shm"  # noqa: S108  # a tmpfs on every Linux; our folder in it is 0700


def default_root(environ: Mapping[str, str], gate_id: str) -> str:
    """Give ``$RUNTIME_DIRECTORY`` (a tmpfs with systemd), else a folder in ``/dev/shm``."""
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return os.path.join(given, "files") if given else f"{_FALLBACK}/mcpgate-{gate_id}"


class SecretFiles:
    """
    The folders below one root, one for each (server, owner).

    :param root: absolute; made when missing, for the gate alone.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def folder(self, label: str) -> str:
        """Name the folder of a container, by its key label."""
        return os.path.join(self._root, label)

    def write(self, label: str, spec: ServerSpec, values: Mapping[str, str]) -> str:
        """
        Write the files of a start; give their folder, or nothing when there are none.

        :raises OSError: they can not be written.
        """
        if not spec.files:
            return ""
        self._make_root()
        folder = self.folder(label)
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)  # noqa: S103  # below a folder that is closed
        for name, text in spec.files:
            path = os.path.normpath(os.path.join(folder, name))
            if os.path.dirname(path) != folder:
                raise ValueError(f"file name {name!r} leads out of the folder")
            part = path + ".part"
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o444), "w") as file:
                file.write(fill(text, dict(values)))
                os.fchmod(file.fileno(), 0o444)
            os.replace(part, path)
        return folder

    def _make_root(self) -> None:
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        status = os.lstat(self._root)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077 or os.path.islink(self._root):
            raise PermissionError(f"{self._root} is open to others")

    def hosts_path(self, label: str) -> str:
        """Name the file that stands for ``/etc/hosts`` of a container."""
        return self.folder(label) + _HOSTS

    def hosts(self, label: str) -> str:
        """Read that file; empty when there is none."""
        try:
            with open(self.hosts_path(label), encoding="ascii") as file:
                return file.read(_MOST_HOSTS)
        except (OSError, ValueError):
            return ""

    def write_hosts(self, label: str, text: str) -> None:
        """
        Write that file, in place: who has it mounted sees the change.

        :raises OSError: it can not be written.
        """
        self._make_root()
        handle = os.open(self.hosts_path(label), os.O_WRONLY | os.O_CREAT, 0o644)
        with open(handle, "w", encoding="ascii") as file:
            os.fchmod(handle, 0o644)
            file.write(text)
            file.truncate()

    def empty(self, label: str) -> None:
        """Remove what is in the folder of a container that has ended; the folder stays for it."""
        folder = self.folder(label)
        try:
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
        except OSError:
            return

    def remove(self, label: str) -> None:
        """Remove the folder of a container that is gone."""
        shutil.rmtree(self.folder(label), ignore_errors=True)
        with suppress(OSError):
            os.unlink(self.hosts_path(label))

    def tidy(self, kept: Collection[str]) -> None:
        """Remove all folders but these."""
        for label in self.others(kept):
            self.remove(label)

    def others(self, kept: Collection[str]) -> list[str]:
        """Name all folders but these."""
        try:
            names = os.listdir(self._root)
        except OSError:
            return []
        return sorted({name.removesuffix(_HOSTS) for name in names} - set(kept))
