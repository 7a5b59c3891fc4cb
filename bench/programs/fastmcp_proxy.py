"""
FastMCP as a proxy of a stdio server; runs in the environment FastMCP is installed in.

    python fastmcp_proxy.py PORT COMMAND WORD..
"""

from __future__ import annotations

import sys


def main(port: int, command: str, *words: str) -> None:
    """Serve at ``/mcp`` until SIGTERM."""
    from fastmcp.server import create_proxy  # noqa: PLC0415 - installed apart

    servers = {"mcpServers": {"echo": {"command": command, "args": list(words)}}}
    create_proxy(servers, name="proxy").run(
        transport="http", host="127.0.0.1", port=port, log_level="warning", show_banner=False
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
