"""
Instructions of one request through the gate, for each kind of request, beside those kept.

    python -m bench --count                 count all, print the difference to counts.json
    python -m bench --count relay stdio     count these
    python -m bench --count --keep          write what was counted to counts.json

One gate serves all of it.  One client asks and waits, so that each request has turns of the reactor
for itself: the same in every run, and more than where 32 clients share a turn.  Counts of two
versions of Python, or of two architectures, do not compare: what they were made with is kept.
"""

from __future__ import annotations

import json
import platform
import re
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench.lab import echo
from bench.lab.figures import Outcome
from bench.lab.gate import Gate, remote, stdio
from bench.lab.instructions import Counted
from bench.lab.lab import Lab
from bench.lab.parts import need
from bench.lab.running import HOST, ROOT, BenchError
from bench.lab.upstream import Upstream
from bench.programs import mcp_load, stream_load, ws_load

KEPT: Final = ROOT / "bench" / "counts.json"
EVENTS: Final = 1000
# Whose code runs on the path of a request.
_PACKAGES: Final = ("Twisted", "httptools", "pyOpenSSL", "cryptography", "zope.interface")


@dataclass(frozen=True)
class Work:
    """
    What is counted.

    :ivar prepare: makes one client of a gate; what it gives does the work once.
    :ivar unit: what an instruction count is for; ``each`` of them in one piece of work.
    :ivar times: how often it is done for a count.
    """

    prepare: Callable[[Gate], Callable[[], None]]
    unit: str = "request"
    each: int = 1
    times: int = 120


def _client(gate: Gate, path: str, era: str, *, tls: bool = False) -> Callable[[], None]:
    port = gate.tls_port if tls else gate.port
    client = mcp_load.Client({"port": port, "path": path, "era": era, "keys": gate.keys}, 0)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = socket.create_connection((HOST, port), mcp_load.PATIENCE_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sock = context.wrap_socket(raw)
    client.shake_hands()
    client.prepare("echo")

    def once() -> None:
        client.id += 1
        client.ask(b"%b%d%b" % (client.before, client.id, client.after))
        client.check()

    return once


def _stream(gate: Gate) -> Callable[[], None]:
    task = {"port": gate.port, "path": f"/srv/events/{EVENTS}", "key": gate.key}
    reader: list[stream_load.Reader] = []

    def once() -> None:
        if reader:
            reader[0].begin()
        else:
            reader.append(stream_load.Reader(task))
        while not reader[0].over:
            data = reader[0].sock.recv(1 << 17)
            if not data:
                raise BenchError("the connection was closed in a stream")
            reader[0].parser.feed_data(data)
        if reader[0].count != EVENTS:
            raise BenchError(f"{reader[0].count} events came")

    return once


def _messages(gate: Gate) -> Callable[[], None]:
    client = ws_load.Client({"port": gate.port, "path": "/srv/ws", "key": gate.key})

    def once() -> None:
        client.send()
        while not client.back():
            pass

    return once


WORKS: Final[Mapping[str, Work]] = {
    "relay": Work(partial(_client, path="/srv/json", era="none")),
    "relay-tls": Work(partial(_client, path="/srv/json", era="none", tls=True)),
    "http": Work(partial(_client, path="/srv/mcp", era="legacy")),
    "stdio": Work(partial(_client, path="/legacy/mcp", era="legacy")),
    "modern": Work(partial(_client, path="/modern/mcp", era="modern")),
    "bridged": Work(partial(_client, path="/legacy/mcp", era="modern")),
    "events": Work(_stream, "event", EVENTS, 12),
    "websocket": Work(_messages, "message"),
}


def count(names: Sequence[str], parts: Path, *, keep: bool, smoke: bool) -> int:
    """Count, print, and keep what was counted; give 1 when something could not be."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"made with": {}, "counts": {}}
    found: dict[str, float] = {}
    chosen = [name for name in WORKS if name in names] or list(WORKS)
    try:
        here = _made_with()
        _say(kept, here)
        with (
            tempfile.TemporaryDirectory(prefix="mcpgate-bench-") as scratch,
            Lab(
                outcome=Outcome("count"),
                scratch=Path(scratch),
                parts=parts,
                rounds=1,
                smoke=smoke,
            ) as lab,
        ):
            upstream = Upstream(lab)
            servers = [
                stdio(era, echo.command(era), f"era = {era}") for era in ("legacy", "modern")
            ]
            servers.append(remote("srv", upstream.port, "relay = on"))
            counted = Counted(lab, "".join(servers))
            for name in chosen:
                _one(name, counted, found, kept, smoke=smoke)
    except BenchError as error:
        print(f"bench: nothing was counted: {error}")
        return 1
    if keep and not smoke:
        if kept["made with"] != here:
            kept["counts"] = {}  # Of two environments they do not compare.
        counts = kept["counts"] | {
            name: {"instructions": round(number), "for each": WORKS[name].unit}
            for name, number in found.items()
        }
        whole = {
            "made with": here,
            "counts": {name: counts[name] for name in WORKS if name in counts},
        }
        KEPT.write_text(json.dumps(whole, indent=1) + "\n")
        print(f"kept: {KEPT.relative_to(ROOT)}")
    return int(len(found) < len(chosen))


def _made_with() -> dict[str, str]:
    """Tell what counts depend on beside the code of the gate."""
    said = subprocess.run(
        [need("valgrind"), "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    found = {
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "openssl": ssl.OPENSSL_VERSION,
        "valgrind": re.sub(r"^valgrind-", "", said.stdout.strip()),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _say(kept: dict[str, Any], here: dict[str, str]) -> None:
    print("== instructions, one client")
    made_with = kept["made with"]
    if made_with and made_with != here:
        other = [
            f"{name} {made_with.get(name, '-')}, here {here.get(name, '-')}"
            for name in sorted({*made_with, *here})
            if made_with.get(name) != here.get(name)
        ]
        print(f"   what is kept was counted with another {'; '.join(other)}")


def _one(
    name: str, counted: Counted, found: dict[str, float], kept: dict[str, Any], *, smoke: bool
) -> None:
    work = WORKS[name]
    times = 3 if smoke else work.times
    try:
        number = counted.count(work.prepare(counted.gate), times)
    except (BenchError, OSError, mcp_load.LoadError) as error:
        print(f"   {name:12} not counted: {error}", flush=True)
        return
    found[name] = number / work.each
    before = kept["counts"].get(name, {}).get("instructions")
    told = f"{found[name] / before - 1:+8.1%} of {before}" if before else "   not kept"
    print(f"   {name:12} {found[name]:10.0f} for each {work.unit:8} {told}", flush=True)
