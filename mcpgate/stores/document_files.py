"""
The last good OpenAPI documents on disk, one file for each server; blocking, for a thread.

The first line says in JSON where the document came from and when, the rest is the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from mcpgate.model import MIB
from mcpgate.stores.json_file import replace_file

log = Logger()

# A document of 4 MiB, each of its characters written as an escape.
LIMIT_BYTES: Final = 32 * MIB
_SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """
    Where a document came from.

    :ivar digest: of what was fetched.
    :ivar etag: what the service called this version, and when it said it was ``modified``.
    :ivar fetched_at: wall clock, seconds.
    """

    url: str
    digest: str
    etag: str = ""
    modified: str = ""
    fetched_at: float = 0.0


class DocumentFiles:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, server: str) -> tuple[Origin, dict[str, Any]] | None:
        """Give what was kept of a server; None when there is nothing that can be read."""
        path = self._path(server)
        try:
            with path.open("rb") as file:
                data = file.read(LIMIT_BYTES + 1)
            head, _, rest = data.partition(b"\n")
            told = json.loads(head)
            document = json.loads(rest)
            if not isinstance(document, dict) or len(data) > LIMIT_BYTES:
                raise ValueError("it holds no document")
            return Origin(**told), document
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warn(
                "{path} can not be read and is passed over: {why}", path=str(path), why=str(error)
            )
            return None

    def write(self, server: str, origin: Origin, document: dict[str, Any]) -> None:
        """
        Keep a document.

        :raises OSError: the disk refuses; the old one is as it was.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        head = json.dumps(asdict(origin))
        replace_file(self._path(server), f"{head}\n{json.dumps(document)}".encode("ascii"))

    def tidy(self, servers: Iterable[str]) -> None:
        """Remove what belongs to no server any more."""
        keep = {self._path(server) for server in servers}
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            if path not in keep:
                path.unlink(missing_ok=True)

    def _path(self, server: str) -> Path:
        return self._folder / (server + _SUFFIX)
