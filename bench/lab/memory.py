"""
What a gate's memory went to, by package: ``tracemalloc`` inside it, asked by a signal.

What the resident memory grew by and Python does not know of is OpenSSL's, and the allocator's.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from bench.lab.running import BenchError
from bench.lab.usage import usage

KEPT: Final = 8
_DEADLINE_S: Final = 60.0
_CODE: Final = """\
import json, os, signal, tracemalloc
def _tell(number, frame):
    found = {{}}
    for stat in tracemalloc.take_snapshot().statistics("filename"):
        path = stat.traceback[0].filename.partition("site-packages/")
        words = (path[2] or "mcpgate/" + path[0].rpartition("/mcpgate/")[2]).split("/")[:2]
        room = "/".join(words) if path[2] or "/mcpgate/" in path[0] else "standard library"
        found[room] = found.get(room, 0) + stat.size
    found[""] = tracemalloc.get_tracemalloc_memory()
    with open({file!r} + ".new", "w") as out:
        json.dump(found, out)
    os.replace({file!r} + ".new", {file!r})
signal.signal(signal.SIGUSR2, _tell)
tracemalloc.start()
"""


class Memory:
    """
    What a gate tells of its memory.

    :ivar code: what the gate has to run before anything else.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "memory.json"
        self.code = _CODE.format(file=str(self._file))

    def take(self, pid: int) -> dict[str, float]:
        """Give bytes by package, and what Python does not know of; :raises BenchError: too slow."""
        self._file.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        deadline = time.monotonic() + _DEADLINE_S
        while not self._file.exists():
            if time.monotonic() > deadline:
                raise BenchError("the gate told nothing of its memory")
            time.sleep(0.05)  # noqa: TID251 - what is waited for is another program
        found: dict[str, float] = json.loads(self._file.read_text())
        whole = usage(pid, only=True).rss_mib * (1 << 20) - found.pop("")
        found["outside Python: OpenSSL, allocator"] = whole - sum(found.values())
        return found


def grown(before: dict[str, float], after: dict[str, float], count: int, of: str) -> dict[str, Any]:
    """Give shares of what each of ``count`` things took, as profiles are kept."""
    more = {name: size - before.get(name, 0.0) for name, size in after.items()}
    whole = max(1.0, sum(more.values()))
    rows = sorted(more.items(), key=lambda pair: -pair[1])[:KEPT]
    return {
        "kind": "memory",
        "of": f"memory of {of}, {whole / count / 1024:.1f} KB where it is looked into",
        "rooms": [[name, size / whole] for name, size in rows],
    }
