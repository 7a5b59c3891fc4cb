"""
``tools/call`` to one stdio server that all clients share, through the gate and its peers.

Every client has a session and a connection of its own; each answer is checked.  The server is the
same program for everybody and has the other core; supergateway starts one for each session.  The
time of the processor is the proxy's own, memory is that of everything it started as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.lab import echo
from bench.lab.calls import call
from bench.lab.gate import Gate, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.parts import Parts
from bench.lab.peers import PEERS

CLIENTS = (1, 8, 32, 128)


def work(clients: int) -> str:
    """Name the work of so many clients."""
    return f"{clients} client{'s' if clients > 1 else ''}"


def run(lab: Lab) -> None:
    """Measure."""
    gate = Gate(lab, stdio("io", echo.command()))
    parts = Parts(lab.parts)
    counts = lab.size(CLIENTS, (1, 4))
    peers = lab.assemble(
        [work(count) for count in counts],
        {name: partial(make, lab, parts, echo.command()) for name, make in PEERS.items()},
    )
    for name in peers:
        lab.outcome.about[name] = parts.version(_PART[name])
    for count in counts:
        turns: dict[str, Callable[[], dict[str, float]]] = {
            GATE: partial(
                call, lab, gate.port, "/io/mcp", pid=gate.pid, clients=count, keys=gate.keys
            )
        }
        for name, peer in peers.items():
            turns[name] = partial(call, lab, peer.port, "/mcp", pid=peer.pid, clients=count)
        lab.interleave(work(count), turns)


_PART = {
    "PyPI mcp-proxy": "mcp-proxy-py",
    "npm mcp-proxy": "mcp-proxy-js",
    "supergateway": "supergateway",
    "FastMCP": "fastmcp",
}
CASE = Case("stdio", "tools/call to a shared stdio server, 1 to 128 clients", run, lives=2)
