"""
Files that name MCP servers in other programs' words, made into sections of ``gate.ini``.

`read_servers` knows them all; each dialect is a module, `entries` holds what they share.
"""

from mcpgate.config.dialects.entries import NotTakenError, Server, Taken
from mcpgate.config.dialects.reading import read_servers

__all__ = ["NotTakenError", "Server", "Taken", "read_servers"]
