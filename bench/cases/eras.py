"""
``tools/call`` with 32 clients where client and server are of either era of MCP, and over HTTP.

A peer takes part where its page says that it serves the era.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.lab import echo
from bench.lab.calls import call
from bench.lab.gate import Gate, remote, stdio
from bench.lab.lab import GATE, Case, Lab
from bench.lab.nginx import NGINX, nginx
from bench.lab.parts import Parts
from bench.lab.peers import Peer, fastmcp, npm_mcp_proxy
from bench.lab.upstream import Upstream

ERAS = ("legacy", "modern")
NPM, FASTMCP = "npm mcp-proxy", "FastMCP"
DIRECT = "direct"


def work(client: str, server: str) -> str:
    """Name a pair."""
    return f"{client} client, {server} stdio server"


def over_http(client: str) -> str:
    """Name the work over HTTP."""
    return f"{client} client, HTTP server"


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    entries = [stdio(era, echo.command(era), f"era = {era}") for era in ERAS]
    gate = Gate(lab, "".join([*entries, remote("srv", upstream.port, "relay = on")]))
    clients = lab.size(32, 4)
    turn = partial(call, lab, clients=clients)
    parts = Parts(lab.parts)
    for server in ERAS:
        makers: dict[str, Callable[[], Peer]] = {
            NPM: partial(
                npm_mcp_proxy,
                lab,
                parts,
                echo.command(server),
                *(["--upstreamProtocol", "modern"] if server == "modern" else []),
            ),
        }
        if lab.smoke:
            makers = {}  # They were tried in the case stdio, and take long to start.
        elif server == "legacy":
            makers[FASTMCP] = partial(fastmcp, lab, parts, echo.command(server))
        peers = lab.assemble([work(client, server) for client in ERAS], makers)
        for client in ERAS:
            ours = partial(turn, gate.port, f"/{server}/mcp", pid=gate.pid, keys=gate.keys)
            turns: dict[str, Callable[[], dict[str, float]]] = {GATE: partial(ours, era=client)}
            for name, peer in peers.items():
                turns[name] = partial(turn, peer.port, "/mcp", pid=peer.pid, era=client)
            lab.interleave(work(client, server), turns)
        for peer in peers.values():
            peer.program.stop()
    webs = lab.assemble(
        [over_http(client) for client in ERAS],
        {NGINX: partial(nginx, lab, upstream.port, gate.key)},
    )
    for client in ERAS:
        turns = {
            DIRECT: partial(turn, upstream.port, "/mcp", pid=upstream.pid, era=client),
            GATE: partial(turn, gate.port, "/srv/mcp", pid=gate.pid, keys=gate.keys, era=client),
        }
        for name, web in webs.items():
            turns[name] = partial(
                turn, web.port, "/srv/mcp", pid=web.pid, keys=gate.keys, era=client
            )
        lab.interleave(over_http(client), turns)


CASE = Case(
    "eras", "tools/call of either era, bridged, and to an HTTP server; 32 clients", run, lives=2
)
