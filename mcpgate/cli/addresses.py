"""The URLs clients use, as far as the configuration tells."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from mcpgate.config.model import Config
from mcpgate.service.front import server_hosts
from mcpgate.web.listening.listeners import Kind, Listen, parse_listen

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read only


def address(config: Config) -> str:
    """Give scheme, host and port: the public ones, else those that this machine can use."""
    if config.gate.public_url:
        return config.gate.public_url
    listens = [parse_listen(text) for text in config.gate.listen]
    for kind, scheme in ((Kind.TLS, "https"), (Kind.PLAIN, "http")):
        for listen in listens:
            if listen.kind is kind and listen.port:
                return f"{scheme}://{reached(listen)}"
    return "https://127.0.0.1"


def reached(listen: Listen) -> str:
    """Give host and port at which this machine reaches a TCP listener."""
    host = _ANY.get(listen.host, listen.host)
    return f"{f'[{host}]' if ':' in host else host}:{listen.port}"


def endpoint(config: Config, server: str, base: str = "") -> str:
    """
    Give the URL of a server's MCP endpoint: on its own host where it has one, else by its path.

    :param base: scheme, host and port to be used in any case.
    """
    host = "" if base else server_hosts(config.gate).host_of(server)
    if not host:
        return f"{base or address(config)}/{server}/mcp"
    parts = urlsplit(address(config))
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}/mcp"
