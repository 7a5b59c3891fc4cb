"""
A real gate in a process of its own, for tests that block: what they test runs elsewhere.

`mcp_client` holds the client that goes with it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from unittest import TestCase

Seen = TypeVar("Seen")

SERVERS = Path(__file__).parent / "servers"
ROOT = Path(__file__).parent.parent.parent

MCPGATE = [sys.executable, "-c", "import sys; from mcpgate.cli import main; sys.exit(main())"]

# Traced code is slower, and takes more memory.
COVERED = any(name.startswith(("COVERAGE", "COV_CORE")) for name in os.environ)

# twistd ends by the signal that ended it; what coverage counted is written by an orderly exit.
_ORDERLY = "from twisted.application import app; app._exitWithSignal = lambda number: None; "
_RUN = "from twisted.scripts.twistd import run; run()"
TWISTD = [sys.executable, "-c", (_ORDERLY if COVERED else "") + _RUN]

# What comes about by itself is waited for this long: no test depends on how fast a machine is.
PATIENT_S = 90.0

# What need not wait for anything is over by then, however much else the machine does; what waits
# for a deadline by mistake takes longer.
AT_ONCE_S = 20.0

# Any test of a gate is a test of one with so many workers, too.
WORKERS = os.environ.get("MCPGATE_WORKERS", "")

GATE = """
[gate]
listen =
    tls:tcp:<port>:interface=127.0.0.1
    tcp:<plain>:interface=127.0.0.1
state_dir = <dir>/state
drain_timeout = 2s
sweep = 1s

[auth:keys]
type = static
keys_file = keys
"""

# No test but those of limits wants to meet them.
NO_LIMITS = """
[limits]
per_key = off
per_address = off
concurrent_per_key = 200
"""

STDIO = """
[server:io]
command = <python> <servers>/stdio_mcp.py
transport = stdio
stop_grace = 1s
env.X_KEY = {key}
env.X_USER = {user}
"""

HTTP = """
[server:web]
command = <python> <servers>/http_mcp.py {port}
transport = http
stop_grace = 1s
env.X_KEY = {key}
env.X_USER = {user}
"""


# Each process of tests begins elsewhere.
_ports = count(os.getpid() * 977)


def free_port() -> int:
    """Find a port nobody listens on, and that nobody is given by chance: below those of Linux."""
    for number in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 10_000 + number % 20_000))
            return int(probe.getsockname()[1])
    raise AssertionError("there is always another")


def wait_for(look: Callable[[], Seen], what: str, timeout_s: float = PATIENT_S) -> Seen:
    """Look until there is something to see; on a machine that does much else that may take long."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        rest(0.02)
    return seen


def rest(seconds: float) -> None:
    """Let the gate, another process, go on for a while."""
    time.sleep(seconds)  # noqa: TID251 - no reactor runs here


def processes_below(directory: Path) -> dict[int, str]:
    """Find the processes that work in a directory or name it: pid to command line or state."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = str((entry / "cwd").readlink())
            if str(directory) in command or place.startswith(str(directory)):
                found[int(entry.name)] = command
    return found


def children_of(pid: int) -> dict[int, str]:
    """Give the children of a process, zombies among them, and their states: ``S``, ``Z`` .."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                # The gate's own workers are no servers.
                if int(rest[1]) == pid and b"workers.sock" not in (entry / "cmdline").read_bytes():
                    found[int(entry.name)] = rest[0]
    return found


class GateProcess:
    """
    ``twistd -n mcpgate`` with a configuration and a state directory of its own.

    When the test is over, the log must hold no traceback and nothing may be left running.

    :param text: the configuration; ``<port>`` (TLS), ``<plain>``, ``<dir>``, ``<python>`` and
        ``<servers>`` are filled in.
    """

    def __init__(self, case: TestCase, text: str) -> None:
        self.case = case
        self.directory = Path(tempfile.mkdtemp(prefix="mcpgate-test-"))
        self.port = free_port()
        self.plain_port = free_port()
        self.ini = self.directory / "gate.ini"
        self.log = self.directory / "gate.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._context: ssl.SSLContext | None = None
        case.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        case.addCleanup(self._check_over)
        case.addCleanup(self._end)
        self.write(text)

    def write(self, text: str) -> None:
        """Write the configuration."""
        values = {
            "port": str(self.port),
            "plain": str(self.plain_port),
            "dir": str(self.directory),
            "python": sys.executable,
            "servers": str(SERVERS),
        }
        for name, value in values.items():
            text = text.replace("<" + name + ">", value)
        if WORKERS and not re.search("^workers = ", text, re.MULTILINE):
            text = text.replace("[gate]\n", f"[gate]\nworkers = {WORKERS}\n", 1)
        self.ini.write_text(text)
        self.ini.chmod(0o600)

    def _end(self) -> None:
        if COVERED and self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        self.kill()

    def _check_over(self) -> None:
        # Children of a killed gate have a moment to notice.
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not processes_below(self.directory), "the end", 30)
        left = processes_below(self.directory)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.case.assertEqual(left, {}, "processes were left behind")
        self.case.assertNotIn("Traceback", self.log_text())

    # --- Life -----------------------------------------------------------------------------------

    def start(self) -> GateProcess:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*TWISTD, "-n", "--pidfile=", "mcpgate", "--config", str(self.ini)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                env=self.environment(),
            )
        wait_for(self._answers, "the gate answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the gate ended:\n{self.log_text()}")
        with contextlib.suppress(OSError, http.client.HTTPException, StopIteration):
            return self.get("/ready").status == 200
        return False

    def environment(self) -> dict[str, str]:
        """Give what the gate and its commands see of ours."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("COV", "LANG")) or name == "PATH"
        }
        path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
        return {**kept, "HOME": str(self.directory), "PYTHONPATH": path}

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENT_S)

    def stop(self) -> int:
        """Ask it to end, and give its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENT_S)

    def memory(self, what: str = "VmRSS") -> float:
        """Give its memory in MiB: ``VmRSS`` now, ``VmHWM`` at most."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == what:
                return int(rest.split()[0]) / 1024
        raise AssertionError(what)

    def metric(self, name: str, fields: Mapping[str, str] | None = None) -> float:
        """
        Read a figure of ``/metrics``, its labels included in its name; 0 when it is not there.

        :param fields: of an administrator, where one is needed.
        """
        answer = self.get("/metrics", **(fields or {}))
        assert answer.status == 200, answer.body
        text = answer.body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def event(self, name: str) -> float:
        """Tell how often something happened."""
        return self.metric(f'mcpgate_events_total{{event="{name}"}}')

    def wait_for_calls(self, count: int = 1, fields: Mapping[str, str] | None = None) -> None:
        """Wait until so many calls are in work; see `metric`."""
        wait_for(lambda: self.metric("mcpgate_calls_in_work", fields) >= count, "calls in work")

    def log_text(self) -> str:
        """Give what it logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # --- Commands -------------------------------------------------------------------------------

    def command(
        self, *arguments: str, config: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``mcpgate`` with these arguments."""
        return subprocess.run(
            [*MCPGATE, *arguments, *(["--config", str(self.ini)] if config else [])],
            capture_output=True,
            check=False,
            text=True,
            input=input,
            cwd=self.directory,
            env=self.environment(),
            timeout=PATIENT_S,
        )

    def told(self, *arguments: str) -> Any:
        """Run a command and give what it printed as JSON."""
        ran = self.command(*arguments, "--format", "json")
        self.case.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)

    def add_key(self, name: str) -> str:
        """Make a key in the keys file of the gate."""
        return str(self.told("keys", "add", name)["key"])

    def add_keys(self, count: int) -> list[str]:
        """Make many keys quickly: by the code of the command, in this process."""
        from datetime import UTC, datetime

        from mcpgate.gate.access.keyfile import changing, make_entry, make_key

        made = []
        with changing(self.directory / "keys") as (keys, write):
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

    # --- Asking ---------------------------------------------------------------------------------

    @property
    def certificate(self) -> Path:
        """Where its self-signed certificate lies."""
        return self.directory / "state" / "tls" / "self-signed.pem"

    def context(self) -> ssl.SSLContext:
        """Trust its certificate."""
        if self._context is None:
            self._context = ssl.create_default_context(cafile=str(self.certificate))
        return self._context

    def connection(
        self, timeout_s: float = PATIENT_S, *, plain: bool = False
    ) -> http.client.HTTPConnection:
        """Open a connection that trusts the gate's certificate."""
        if plain:
            return http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=self.context(), timeout=timeout_s
        )

    def socket(self, timeout_s: float = PATIENT_S) -> ssl.SSLSocket:
        """Open a bare TLS connection, for what no client would send."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout_s)
        wrapped = self.context().wrap_socket(raw, server_hostname="127.0.0.1")
        self.case.addCleanup(wrapped.close)
        return wrapped

    def ask(self, method: str, path: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send one request on a connection of its own; ``_`` in names of fields is ``-``."""
        connection = self.connection()
        try:
            headers = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **fields: str) -> Answer:
        """GET a page."""
        return self.ask("GET", path, None, **fields)


class Answer:
    """What one request brought: status, fields, body, and the JSON-RPC messages in it."""

    def __init__(self, status: int, fields: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, whether they came as JSON or as events."""
        if (self.fields.get("content-type") or "").startswith("text/event-stream"):
            lines = self.body.decode().replace("\r\n", "\n").split("\n")
            told = [line[5:] for line in lines if line.startswith("data:")]
            return [json.loads(text) for text in told if text.strip()]
        if not self.body:
            return []
        read = json.loads(self.body)
        return read if isinstance(read, list) else [read]

    @property
    def message(self) -> dict[str, Any]:
        """The last message: the response."""
        return self.messages[-1]

    @property
    def text(self) -> str:
        """What a tool answered."""
        assert "result" in self.message, self.message
        return str(self.message["result"]["content"][0]["text"])

    @property
    def error(self) -> dict[str, Any]:
        """The JSON-RPC error."""
        assert "error" in self.message, self.message
        return dict(self.message["error"])
