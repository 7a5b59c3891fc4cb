"""
mcpgate: one URL in front of MCP servers of their own for every user.

Run it with ``twistd -n mcpgate --config gate.ini``, or embed it::

    from mcpgate import make_gateway, read_config

    gateway = make_gateway(reactor, read_config(Path("gate.ini"), os.environ))
    gateway.setServiceParent(application)
"""

from typing import TYPE_CHECKING, Any

from mcpgate._version import __version__

if TYPE_CHECKING:
    from mcpgate.config.load import read_config
    from mcpgate.service import Gateway, GatewayError, make_gateway

__all__ = ["Gateway", "GatewayError", "__version__", "make_gateway", "read_config"]


def __getattr__(name: str) -> Any:
    # The rooms are heavy and some import the reactor: only who asks for them gets them.
    if name == "read_config":
        from mcpgate.config.load import read_config  # noqa: PLC0415

        return read_config
    if name in ("Gateway", "GatewayError", "make_gateway"):
        from mcpgate import service  # noqa: PLC0415

        return getattr(service, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
