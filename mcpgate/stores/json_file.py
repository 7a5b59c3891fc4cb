"""
A small JSON file that is read once and replaced whole: blocking, for a thread.

A crash leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from mcpgate.model import MIB

log = Logger()

LIMIT_BYTES: Final = 4 * MIB


def read_json(path: Path) -> object:
    """Give what the file holds; None when there is none, or none that can be read."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise ValueError("too large")
        value: object = json.loads(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warn("{path} can not be read and is passed over: {why}", path=str(path), why=str(error))
        return None
    return value


def write_json(path: Path, value: object) -> None:
    """
    Replace the file; readable by us alone.

    :raises OSError: the disk refuses; the old file is as it was.
    """
    data = json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
    replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """
    Replace any file so.

    :raises OSError: the disk refuses; the old file is as it was.
    """
    beside = path.with_name(path.name + ".new")
    with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
