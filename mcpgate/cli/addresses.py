"""The URL clients use, as far as the configuration tells."""

from __future__ import annotations

from typing import Final

from mcpgate.config.model import Config
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
