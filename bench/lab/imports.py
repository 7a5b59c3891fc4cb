"""What the start of a gate goes into: time and memory of what it imports, by package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from typing import Any, Final

from bench.lab import cores
from bench.lab.running import ROOT, BenchError, run

SHOWN: Final = 8
_DEADLINE_S: Final = 60.0
_LINE = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", re.MULTILINE)
# In this order each comes without what the ones before it brought.
_STEPS: Final = (
    ("OpenSSL, cryptography", "OpenSSL.SSL,cryptography.x509"),
    ("Twisted", "twisted.internet.reactor,twisted.application.service,twisted.internet.ssl"),
    ("mcpgate and the rest", "mcpgate.tap"),
)
_MEMORY: Final = """
import importlib, json, re, sys
def rss():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
found = [["Python itself", rss()]]
for title, names in json.loads(sys.argv[1]):
    before = rss()
    for name in names.split(","):
        importlib.import_module(name)
    found.append([title, rss() - before])
print(json.dumps(found))
"""


def profile() -> list[dict[str, Any]]:
    """Tell shares of the time that imports take, and the memory of each step, as profiles are."""
    return [_times(), _memory()]


def _times() -> dict[str, Any]:
    command = [*cores.for_proxy(), sys.executable, "-X", "importtime", "-c", "import mcpgate.tap"]
    run(command, ROOT, _DEADLINE_S)  # What Python compiles once for all is there from now on.
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    spent: Counter[str] = Counter()
    for took, name in _LINE.findall(done.stderr):
        package = name.split(".")[0]
        spent[package if package not in sys.stdlib_module_names else "standard library"] += int(
            took
        )
    whole = sum(spent.values())
    if not whole:
        raise BenchError("Python told no times of imports")
    return {
        "of": f"the time of imports, {whole / 1000:.0f} ms",
        "rooms": [[name, took / whole] for name, took in spent.most_common(SHOWN)],
    }


def _memory() -> dict[str, Any]:
    found = json.loads(run([sys.executable, "-c", _MEMORY, json.dumps(_STEPS)], ROOT, _DEADLINE_S))
    whole = sum(mib for _, mib in found)
    return {
        "kind": "memory",
        "of": f"memory after imports, {whole:.0f} MiB",
        "rooms": [[name, mib / whole] for name, mib in found],
    }
