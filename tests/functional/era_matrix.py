"""
Every client against every server through a gate: what each feature comes to.

    python -m tests.functional.era_matrix --via gate|direct     prints the table
    python -m tests.functional.era_matrix --write               writes the page in the docs

Clients and servers are written with the official SDKs, see ``clients/matrix*`` and `yardsticks`.
What does not work through the gate stands in ``era-matrix-expected.json``, which may only shrink;
the page is made of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.functional import real
from tests.functional.conformance import OPEN_GATE, Bench
from tests.functional.gate_process import ROOT, GateProcess
from tests.functional.yardsticks import YARDSTICKS, running

CLIENT_SCRIPTS = Path(__file__).parent / "clients"
EXPECTED = Path(__file__).parent / "era-matrix-expected.json"
PAGE = ROOT / "docs" / "reference" / "era-matrix.rst"

#: What a whole cell may take, and what its driver is told that it may.
CELL_S = 120.0
DRIVER_S = 90.0

FEATURES = (
    "tools",
    "progress",
    "logging",
    "cancellation",
    "elicitation",
    "sampling",
    "roots",
    "prompts",
    "resources",
    "subscription",
    "changes",
    "completion",
)


@dataclass(frozen=True)
class Client:
    """
    A client of the matrix.

    :ivar title: how the page names it.
    """

    revision: str
    part: str
    script: str
    title: str

    def command(self, task: Mapping[str, object]) -> list[str]:
        """Give the command that runs it."""
        script, text = str(CLIENT_SCRIPTS / self.script), json.dumps(task)
        if self.script.endswith(".mjs"):
            modules = str(real.package(self.part))
            return [real.node(), script, self.part.removeprefix("sdk"), modules, text]
        return [real.python(self.part), script, text]


@dataclass(frozen=True)
class Server:
    """A server of the matrix: a yardstick, and how the page names it."""

    yardstick: str
    title: str


CLIENTS = {
    "2024-11-05": Client("2024-11-05", "mcp1", "matrix1.py", "2024-11-05, HTTP+SSE"),
    "2025-06-18": Client("2025-06-18", "mcp1", "matrix1.py", "2025-06-18"),
    "2025-11-25": Client("2025-11-25", "mcp1", "matrix1.py", "2025-11-25"),
    "2025-11-25-ts": Client("2025-11-25", "sdk1", "matrix.mjs", "2025-11-25, TypeScript"),
    "2026-07-28": Client("2026-07-28", "mcp2", "matrix2.py", "2026-07-28"),
    "2026-07-28-ts": Client("2026-07-28", "sdk2", "matrix.mjs", "2026-07-28, TypeScript"),
}
SERVERS = {
    "stdio-legacy": Server("py1-stdio", "stdio, legacy"),
    "stdio-modern": Server("py2-modern-stdio", "stdio, modern"),
    "http-sse": Server("py1-sse", "HTTP+SSE"),
    "http-legacy": Server("py1", "Streamable HTTP, legacy"),
    "http-modern": Server("py2-modern", "Streamable HTTP, modern"),
}
PARTS = ("node", "mcp1", "mcp2", "sdk1", "sdk2")


def features_of(client: Client) -> list[str]:
    """Give what a client can be asked for: elicitation came with 2025-06-18."""
    old = client.revision < "2025-06-18"
    return [feature for feature in FEATURES if not (old and feature == "elicitation")]


def run_cell(client: Client, **target: str) -> dict[str, str]:
    """
    Run a client once.

    :param target: ``url`` of what it talks to, or the ``command`` of a stdio server.
    :returns: for each feature ``ok``, or why it failed.
    """
    features = features_of(client)
    task = {"revision": client.revision, "features": features, "seconds": DRIVER_S, **target}
    with tempfile.TemporaryDirectory(prefix="mcpgate-matrix-") as home:
        process = subprocess.Popen(
            client.command(task),
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, errors = process.communicate(timeout=CELL_S)
        except subprocess.TimeoutExpired:
            out, errors = b"", b"the driver did not end"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
    lines = out.decode(errors="replace").strip().splitlines()
    if not lines:
        return dict.fromkeys(features, errors.decode(errors="replace").strip()[-200:])
    return {str(name): str(how) for name, how in json.loads(lines[-1]).items()}


@contextlib.contextmanager
def gate_with_all() -> Iterator[GateProcess]:
    """Run a gate with all servers: it starts those on stdio, the others run beside it."""
    bench = Bench()
    with contextlib.ExitStack() as stack:
        stack.callback(bench.close)
        entries = []
        for name, server in SERVERS.items():
            yardstick = YARDSTICKS[server.yardstick]
            port = None if yardstick.how == "stdio" else stack.enter_context(running(yardstick))
            entries.append(yardstick.entry(name, port))
        yield GateProcess(bench, OPEN_GATE + "\n".join(entries)).start()


def through(gate: GateProcess, client: Client, server: str) -> dict[str, str]:
    """Run a client against a server behind a gate."""
    path = "sse" if client.revision == "2024-11-05" else "mcp"
    return run_cell(client, url=f"http://127.0.0.1:{gate.plain_port}/{server}/{path}")


def direct(client: Client, server: str) -> dict[str, str] | None:
    """Run a client against a server, or give nothing where the two have no common language."""
    yardstick = YARDSTICKS[SERVERS[server].yardstick]
    modern = "modern" in server
    if modern != (client.revision == "2026-07-28"):
        return None
    if (yardstick.how == "sse") != (client.revision == "2024-11-05"):
        return None
    if yardstick.how == "stdio":
        if client.script.endswith(".mjs"):
            return None
        return run_cell(client, command=shlex.join(yardstick.command()))
    path = "sse" if yardstick.how == "sse" else "mcp"
    with running(yardstick) as port:
        return run_cell(client, url=f"http://127.0.0.1:{port}/{path}")


# --- The page -------------------------------------------------------------------------------------


def page() -> str:
    """Write the page, of what is expected to fail."""
    expected = json.loads(EXPECTED.read_text())
    lines = [
        ".. Made by python -m tests.functional.era_matrix --write; do not change it by hand.",
        "",
        "===================",
        "Clients and servers",
        "===================",
        "",
        "What clients of each revision can do with each server through the gate.",
        "A test tries every cell with clients and servers on the official SDKs:",
        f"{', '.join(FEATURES)}.",
        "All stands for what the client's revision has; elicitation came with 2025-06-18.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :stub-columns: 1",
        "",
        "   * - Client",
    ]
    lines += [f"     - {server.title}" for server in SERVERS.values()]
    for name, client in CLIENTS.items():
        lines.append(f"   * - {client.title}")
        for server in SERVERS:
            failing = set(expected.get(name, {}).get(server, ()))
            whole = features_of(client)
            if not failing:
                text = "all"
            elif failing >= set(whole):
                text = "nothing yet"
            else:
                text = "not: " + ", ".join(sorted(failing))
            lines.append(f"     - {text}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.functional.era_matrix")
    parser.add_argument("--via", choices=("gate", "direct"), default="gate")
    parser.add_argument("--client", choices=CLIENTS, action="append")
    parser.add_argument("--server", choices=SERVERS, action="append")
    parser.add_argument("--write", action="store_true", help="write the page and do no more")
    asked = parser.parse_args(arguments)
    if asked.write:
        PAGE.write_text(page())
        return 0
    clients, servers = asked.client or CLIENTS, asked.server or SERVERS
    failed = False
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(gate_with_all()) if asked.via == "gate" else None
        for name in clients:
            for server in servers:
                client = CLIENTS[name]
                outcomes = through(gate, client, server) if gate else direct(client, server)
                if outcomes is None:
                    continue
                bad = {feature: how for feature, how in outcomes.items() if how != "ok"}
                failed = failed or bool(bad)
                good = len(outcomes) - len(bad)
                print(f"{name:14} {server:14} {good:2} ok {bad or ''}", flush=True)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
