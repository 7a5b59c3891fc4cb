"""
The gate as a contender: ``twistd -n mcpgate`` with a configuration, keys and a state of its own.

It does what it does for every administrator: keys are checked, buckets are kept (too large to meet
them), every request is logged to a file.  Only what would end a run is off: limits on connections
of one address, on requests of one connection, on sessions of one key.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.lab import cores
from bench.lab.lab import GATE, Lab
from bench.lab.parts import Parts
from bench.lab.profile import Profile
from bench.lab.running import HOST, START_S, BenchError, free_port, get, listens, run
from bench.lab.usage import Usage
from mcpgate.cli.control_client import SOCKET_NAME
from mcpgate.gate.access.keyfile import changing, make_entry, make_key

PLENTY = "per_key = 1000000/s\nburst = 1000000\nper_address = 1000000/s\naddress_burst = 1000000\n"
NO_LIMITS = "per_key = off\nper_address = off\n"
CONFIG = """
[gate]
listen =
    tls:tcp:{tls}:interface=127.0.0.1:backlog=1024
    tcp:{plain}:interface=127.0.0.1:backlog=1024
state_dir = {directory}/state
drain_timeout = 2s
max_connections_per_address = 0
requests_per_connection = 0
sessions_per_key = 100000
sessions_total = 100000
{gate}
[auth:keys]
type = static
keys_file = keys
[limits]
concurrent_per_key = 0
{limits}
{servers}
"""
_TURN = "mcpgate_reactor_longest_turn_seconds"
_TWISTD = "from twisted.scripts.twistd import run; run()"
# How the program chooses its reactor, before anything else of it imports one.
REACTORS = {
    "epoll": _TWISTD,
    "asyncio": f"from twisted.internet import asyncioreactor as r; r.install(); {_TWISTD}",
    "uvloop": (
        "import uvloop; from twisted.internet import asyncioreactor as r; "
        f"r.install(uvloop.new_event_loop()); {_TWISTD}"
    ),
}
_COMMAND = [sys.executable, "-c", "import sys; from mcpgate.cli import main; sys.exit(main())"]


class Gate:
    """
    A running gate.

    :param called: what its profile calls it.
    :param reactor: one of `REACTORS`.
    :param before: code that it runs first.
    :param under: what its command is given to: a tool that looks into it.
    :param start_s: how long it may take to start.
    :ivar port: in clear; `tls_port` with TLS.
    :ivar keys: as many as were asked for.
    :ivar listening_s: how long it took from its start to the first connection it took.
    """

    def __init__(
        self,
        lab: Lab,
        servers: str,
        *,
        keys: int = 1,
        gate: str = "",
        limits: str = PLENTY,
        core: Callable[[], list[str]] = cores.for_proxy,
        called: str = "the gate",
        reactor: str = "epoll",
        before: str = "",
        under: Sequence[str] = (),
        start_s: float = START_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self._about = lab.outcome.about
        self._stopped = False
        self._directory = lab.place(GATE)
        self._gate, self._limits = gate, limits
        self.configure(servers)
        self.keys = make_keys(self._directory / "keys", keys)
        code = before + REACTORS[reactor]
        program = [sys.executable, "-c", code, "-n", "--pidfile=", "mcpgate"]
        command = [*core(), *under, *program, "--config", str(self.file)]
        begun = time.perf_counter()
        self.program = lab.start(GATE, command, environment=environment)
        self.pid = self.program.pid
        self.program.wait_for(lambda: listens(self.port), "it did not listen", start_s)
        self.listening_s = time.perf_counter() - begun
        self.program.wait_for(self._is_ready, "it was not ready", start_s)
        lab.keep(self)
        if lab.profiles is not None and not before:
            file = lab.profiles / f"{lab.outcome.case}-{self.pid}.stacks"
            of = f"the time that {called} did not wait"
            lab.keep(Profile(Parts(lab.parts), self.pid, file, of, lab.outcome.profiles))

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self._directory / "gate.ini"

    @property
    def key(self) -> str:
        """The first key."""
        return self.keys[0]

    @property
    def certificate(self) -> Path:
        """The self-signed certificate."""
        return self._directory / "state" / "tls" / "self-signed.pem"

    @property
    def control_socket(self) -> Path:
        """Where commands ask it."""
        return self._directory / "state" / SOCKET_NAME

    def configure(self, servers: str) -> None:
        """Write the configuration."""
        text = CONFIG.format(
            tls=self.tls_port,
            plain=self.port,
            directory=self._directory,
            gate=self._gate,
            limits=self._limits,
            servers=servers,
        )
        self.file.write_text(text)
        self.file.chmod(0o600)

    def command(self, *words: str) -> str:
        """Run a command of ``mcpgate``; :raises BenchError: it fails."""
        whole = [*cores.for_load(), *_COMMAND, *words, "--config", str(self.file)]
        return run(whole, self._directory, 60.0)

    def stop(self) -> None:
        """End it; its longest turn so far is kept with the case's results."""
        if not self._stopped:
            self._stopped = True
            with contextlib.suppress(OSError, http.client.HTTPException, BenchError):
                turn_ms = self.metrics().get(_TURN, 0.0) * 1000
                about = self._about
                about["longest_turn_ms"] = round(max(turn_ms, about.get("longest_turn_ms", 0.0)), 1)
            self.program.stop()

    def usage(self, without: str = "") -> Usage:
        """Tell what it and its servers used."""
        return self.program.usage(without=without)

    def metrics(self) -> dict[str, float]:
        """Give what ``/metrics`` tells, by name and labels."""
        status, text = get(self.port, "/metrics")
        if status != 200:
            raise BenchError(f"/metrics answers {status}")
        found = re.findall(r"^([a-z]\S*) (\S+)$", text.decode(), re.MULTILINE)
        return {name: float(value) for name, value in found}

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return get(self.port, "/ready")[0] == 200
        return False


def make_keys(file: Path, count: int) -> list[str]:
    """Make many keys quickly, by the code of ``mcpgate keys add``."""
    made = []
    with changing(file) as (keys, write):
        for number in range(count):
            key = make_key(os.urandom, f"{number:08x}")
            entry = make_entry(
                f"user{number}",
                key,
                random_bytes=os.urandom,
                now=datetime.now(UTC),
                servers=None,
            )
            keys = keys.with_key(entry)  # noqa: PLW2901 - a new value, written below
            made.append(key.reveal())
        write(keys)
    return made


def remote(name: str, port: int, more: str = "") -> str:
    """Write the entry of an HTTP server that runs already."""
    return f"[server:{name}]\nurl = http://{HOST}:{port}/mcp\ntransport = http\n{more}\n"


def stdio(name: str, command: list[str], more: str = "") -> str:
    """Write the entry of a stdio server that everybody shares."""
    words = " ".join(command)
    return (
        f"[server:{name}]\ncommand = {words}\nisolation = shared\nmemory = 0\nmax_calls = 1000\n"
        f"stop_grace = 1s\n{more}\n"
    )
