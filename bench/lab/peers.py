"""Other programs that put a stdio server onto HTTP, each started as its page says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bench.lab import cores
from bench.lab.lab import Lab
from bench.lab.parts import Parts
from bench.lab.running import HOST, ROOT, Program, free_port

_FASTMCP: Final = str(ROOT / "bench" / "programs" / "fastmcp_proxy.py")


class Peer:
    """A running peer; MCP is at ``/mcp`` of its port."""

    def __init__(self, program: Program, port: int) -> None:
        self.program, self.port = program, port
        self.pid = program.pid


def pypi_mcp_proxy(lab: Lab, parts: Parts, server: list[str]) -> Peer:
    """mcp-proxy of PyPI."""
    script = parts.script("mcp-proxy-py", "mcp-proxy")
    port = free_port()
    words = ["--host", HOST, "--port", str(port), "--pass-environment", "--", *server]
    return Peer(lab.start("mcp-proxy-py", [*cores.for_proxy(), script, *words], port), port)


def npm_mcp_proxy(lab: Lab, parts: Parts, server: list[str], *options: str) -> Peer:
    """mcp-proxy of npm."""
    script = str(parts.package("mcp-proxy-js") / "mcp-proxy" / "dist" / "bin" / "mcp-proxy.mjs")
    port = free_port()
    words = ["--host", HOST, "--port", str(port), "--server", "stream", *options, "--", *server]
    command = [*cores.for_proxy(), parts.node(), script, *words]
    return Peer(lab.start("mcp-proxy-js", command, port), port)


def supergateway(lab: Lab, parts: Parts, server: list[str]) -> Peer:
    """supergateway, with a process for each session: its other way starts one for each request."""
    script = str(parts.package("supergateway") / "supergateway" / "dist" / "index.js")
    port = free_port()
    words = ["--stdio", " ".join(server), "--outputTransport", "streamableHttp", "--stateful"]
    command = [*cores.for_proxy(), parts.node(), script, *words]
    program = lab.start("supergateway", [*command, "--logLevel", "none", "--port", str(port)], port)
    return Peer(program, port)


def fastmcp(lab: Lab, parts: Parts, server: list[str]) -> Peer:
    """The proxy of FastMCP."""
    python = parts.script("fastmcp", "python")
    port = free_port()
    command = [*cores.for_proxy(), python, _FASTMCP, str(port), *server]
    return Peer(lab.start("fastmcp", command, port), port)


PEERS: Final[Mapping[str, Callable[[Lab, Parts, list[str]], Peer]]] = {
    "PyPI mcp-proxy": pypi_mcp_proxy,
    "npm mcp-proxy": npm_mcp_proxy,
    "supergateway": supergateway,
    "FastMCP": fastmcp,
}
