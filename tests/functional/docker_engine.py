"""
A container engine for functional tests: the one at hand, or one of the tests' own.

Only with ``MCPGATE_DOCKER=1``: an engine of root's changes the machine's firewall and networks, so
it has to be asked for.  ``DOCKER_HOST`` (or the usual socket) is taken when it answers; else, for
root with ``dockerd`` on ``PATH``, a private engine is started in a temporary directory and ended
with the tests.  Where there is neither, the tests fail.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from tests.functional import real
from tests.functional.images import PREFIX, python_image

PYTHON = f"{PREFIX}/python:1"

_START_S = 90.0


def asked_for() -> None:
    """Give up a test unless ``MCPGATE_DOCKER`` is 1, as `real.missing` does."""
    if os.environ.get("MCPGATE_DOCKER", "") != "1":
        real.missing("containers are tried with MCPGATE_DOCKER=1")


def lacking(what: str) -> NoReturn:
    """Fail a test that lacks an engine, or skip it where none was asked for."""
    asked_for()
    raise AssertionError(f"{what}, and MCPGATE_DOCKER promises an engine")


def client(url: str, timeout_s: float = 60.0) -> Any:
    """Make a client of the SDK, or give up the test."""
    try:
        import docker
    except ImportError:
        lacking("the docker SDK is not installed")
        raise
    return docker.APIClient(base_url=url, version="auto", timeout=timeout_s)


def answers(url: str) -> bool:
    """Tell whether an engine answers there."""
    try:
        one = client(url, 5.0)
        one.ping()
        one.close()
    except Exception:
        return False
    return True


class Machine:
    """What an engine with bridges changes of the machine, as it was before."""

    _FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
    _TABLES = ("filter", "nat")

    def __init__(self) -> None:
        self._forwarding = self._FORWARDING.read_text()
        self._rules = {table: self._saved(table) for table in self._TABLES}

    def _saved(self, table: str) -> str:
        """Give the rules of a table; what was never used has none."""
        words = ["iptables-save", "-t", table]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        if found:
            return found
        chains = {"filter": "INPUT FORWARD OUTPUT", "nat": "PREROUTING INPUT OUTPUT POSTROUTING"}
        policies = [f":{chain} ACCEPT [0:0]" for chain in chains[table].split()]
        return "\n".join([f"*{table}", *policies, "COMMIT", ""])

    def restore(self) -> None:
        """Make it so again, unless another engine counts on it."""
        if "DOCKER-USER" in self._rules["filter"] or _engines():
            return
        for text in self._rules.values():
            subprocess.run(
                ["iptables-restore"], input=text, text=True, check=False, capture_output=True
            )
        self._FORWARDING.write_text(self._forwarding)


def _engines() -> int:
    """Count the engines that run on this machine."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                count += (entry / "comm").read_text().strip() == "dockerd"
    return count


class PrivateEngine:
    """``dockerd`` with everything of its own in a temporary directory."""

    def __init__(self, *options: str, bridges: bool = False) -> None:
        asked_for()
        self.bridges = bridges
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            lacking("a private engine needs root and dockerd")
        self.directory = Path(tempfile.mkdtemp(prefix="mcpgate-engine-"))
        self.url = f"unix://{self.directory}/docker.sock"
        walls = [] if bridges else ["--iptables=false", "--ip-forward=false"]
        self.command = [
            "dockerd",
            f"--data-root={self.directory}/data",
            f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/pid",
            f"--containerd={self.directory}/containerd.sock",
            f"--host={self.url}",
            "--bridge=none",
            *walls,
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.machine: Machine | None = None
        # A program of its own, as on any real machine: so it outlives an engine that is killed.
        self.containerd: subprocess.Popen[bytes] | None = None

    def _start_containerd(self) -> None:
        words = [
            "containerd",
            f"--address={self.directory}/containerd.sock",
            f"--root={self.directory}/containerd/root",
            f"--state={self.directory}/containerd/state",
        ]
        config = self.directory / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        with (self.directory / "containerd.log").open("ab") as log:
            self.containerd = subprocess.Popen(
                [*words, f"--config={config}"], stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.containerd is None:
            if self.bridges:
                self.machine = Machine()
            self._start_containerd()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if answers(self.url):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)  # noqa: TID251  # no reactor runs here
        text = (self.directory / "log").read_text(errors="replace")[-500:]
        self.stop()
        lacking(f"a private engine does not start: {text}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the engine alone."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(10)

    def stop(self) -> None:
        """End it and what it runs, and remove what it left."""
        if self.bridges and self.process is not None and answers(self.url):
            self._remove_networks()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()
            self.process.wait()
        self._end_containers()
        if self.containerd is not None:
            self.containerd.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.containerd.wait(10)
            self.containerd.kill()
            self.containerd.wait()
        for line in Path("/proc/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.machine is not None:
            self.machine.restore()

    def _remove_networks(self) -> None:
        """Remove networks: the engine itself would leave their bridges."""
        one = client(self.url, 20.0)
        for box in one.containers(all=True):
            one.remove_container(box["Id"], force=True)
        for network in one.networks(filters={"type": "custom"}):
            one.remove_network(network["Id"])
        one.close()

    def _end_containers(self) -> None:
        """End the shims, which would outlive the engine, and with them what they watch."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                ours = str(self.directory).encode()
                if any(word.startswith(ours) for word in words) and b"shim" in words[0]:
                    os.kill(int(entry.name), signal.SIGKILL)


_SHARED: list[str] = []
_MADE: set[tuple[str, str]] = set()


def require_engine() -> str:
    """Give the address of an engine all tests may use, or give up the test."""
    asked_for()
    if not _SHARED:
        url = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not answers(url):
            engine = PrivateEngine(bridges=True)
            engine.start()
            atexit.register(engine.stop)
            url = engine.url
        _SHARED.append(url)
    return _SHARED[0]


def require_python(url: str) -> str:
    """Give the tag of an image that runs Python, made on first use."""
    if (url, PYTHON) not in _MADE:
        maker = client(url, 300.0)
        boxed = (Path(__file__).parent / "servers" / "boxed_mcp.py").read_text()
        python_image(maker, "python", files={"/app/boxed_mcp.py": boxed})
        maker.close()
        _MADE.add((url, PYTHON))
    return PYTHON
