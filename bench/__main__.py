"""Runs what can be measured on this machine: ``python -m bench``, ``make bench``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def main() -> int:
    """Run each measurement in a process of its own; give how many failed."""
    engine = os.path.exists("/var/run/docker.sock") or "DOCKER_HOST" in os.environ
    own = os.geteuid() == 0 and shutil.which("dockerd") is not None
    failed = 0
    for name, possible, lack in (
        ("bench.relay", shutil.which("wrk") is not None, "wrk is not installed"),
        ("bench.containers", engine or own, "there is no Docker engine"),
    ):
        print(f"--- {name}" if possible else f"--- {name} skipped: {lack}", flush=True)
        if possible:
            failed += subprocess.run([sys.executable, "-m", name], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
