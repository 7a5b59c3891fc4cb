"""
Where instances keep files: what goes with each of them, and what stays with its owner.

``run/ID/`` is made for one start and removed after its end: ``files/`` (from the spec, mode
0600), ``tmp/``, and ``process``, the record by which the next gate finds what this one left
behind.  ``data/SERVER/OWNER/`` is the working directory and HOME and survives.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcpgate.model import InstanceKey, Isolation, Owner

_RECORD = "process"
_LABEL = 8  # Digits of `mcpgate.model.Owner.label`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    What is written down of a running instance.

    :ivar session: pid of its first process and id of its session.
    :ivar started: clock ticks after boot.
    :ivar boot_id: of the machine; pids mean nothing after another boot.
    """

    session: int
    started: int
    boot_id: str


class Places:
    """
    The folders below one state directory.

    Folder names come from the gate's own digests and the checked server name, never from what a
    client said (R54).
    """

    def __init__(self, state_dir: str) -> None:
        self._run = os.path.join(state_dir, "run")
        self._data = os.path.join(state_dir, "data")

    def run_dir(self, instance_id: str) -> str:
        """Name the folder of one start."""
        return os.path.join(self._run, instance_id)

    def data_dir(self, key: InstanceKey) -> str:
        """Name the folder that stays with the owner."""
        owner = key.owner.digest.replace("/", "-") or "shared"
        return os.path.join(self._data, key.server, owner)

    def make(self, instance_id: str, key: InstanceKey) -> tuple[str, str, str]:
        """Make the folders; answer those for files, for temporary files, and for data."""
        run_dir = self.run_dir(instance_id)
        data_dir = self.data_dir(key)
        folders = (os.path.join(run_dir, "files"), os.path.join(run_dir, "tmp"), data_dir)
        # One by one: makedirs gives its mode to the last folder only.
        for folder in (self._run, self._data, os.path.dirname(data_dir)):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        os.mkdir(run_dir, mode=0o700)
        for folder in folders:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        return folders

    def make_data(self, key: InstanceKey) -> str:
        """
        Make the folder that stays with an owner, for a container; answer it.

        Whoever the container runs as can write there; the folder above is closed to others.
        """
        folder = self.data_dir(key)
        os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        os.makedirs(folder, exist_ok=True)
        os.chmod(self._data, 0o700)
        os.chmod(folder, 0o777)  # noqa: S103  # below a folder that is closed
        return folder

    def data_of(self, label: str) -> list[tuple[str, str]]:
        """
        Give server and folder of the data of an owner.

        :param label: of the owner, or more digits of its digest; whole folder names match, too.
        """
        found = []
        for server in _names(self._data):
            for name in _names(os.path.join(self._data, server)):
                if name == label or (len(label) >= _LABEL and name.startswith(label)):
                    found.append((server, os.path.join(self._data, server, name)))
        return found

    def write_file(self, folder: str, name: str, text: str) -> None:
        """Write a file only its owner can read; the name may hold folders, but not lead out."""
        path = os.path.normpath(os.path.join(folder, name))
        if not path.startswith(folder + os.sep):
            raise ValueError(f"file name {name!r} leads out of the folder")
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)

    def write_record(self, instance_id: str, record: Record) -> None:
        """Remember a process for the next gate."""
        text = f"{record.session} {record.started} {record.boot_id}\n"
        self.write_file(self.run_dir(instance_id), _RECORD, text)

    def records(self) -> dict[str, Record | None]:
        """Give what earlier starts left: by instance id; None when the record is not readable."""
        found: dict[str, Record | None] = {}
        try:
            names = os.listdir(self._run)
        except OSError:
            return found
        for name in names:
            try:
                with open(os.path.join(self._run, name, _RECORD), encoding="utf-8") as file:
                    session, started, boot_id = file.read().split()
                found[name] = Record(session=int(session), started=int(started), boot_id=boot_id)
            except (OSError, ValueError):
                found[name] = None
        return found

    def of_nobody(self) -> list[str]:
        """Name the folders of owners that are nobody (`Owner.is_nobody`)."""
        found = []
        try:
            servers = [entry.path for entry in os.scandir(self._data) if entry.is_dir()]
            for server in servers:
                found += [
                    entry.path
                    for entry in os.scandir(server)
                    if Owner(Isolation.PER_KEY, entry.name).is_nobody
                ]
        except OSError:
            return found
        return found

    def leftovers(self, key: InstanceKey) -> list[str]:
        """Name the folders to remove with an instance: a session's data is the session's."""
        if key.owner.isolation is not Isolation.PER_SESSION:
            return []
        return [self.data_dir(key)]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def remove_tree(folder: str) -> None:
    """
    Remove a folder and what is below, also where the server took away its own permissions.

    Blocks for as long as there are files: call it on a thread.  What can not be removed is left.
    """

    def open_up(retry: Callable[..., object], path: str, _: Any) -> None:
        try:
            os.chmod(os.path.dirname(path), stat.S_IRWXU)
            if not os.path.islink(path):
                os.chmod(path, stat.S_IRWXU)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                retry(path)
        except OSError:
            return

    shutil.rmtree(folder, onerror=open_up)
