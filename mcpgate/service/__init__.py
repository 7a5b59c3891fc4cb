"""The composition root: every room is made here and handed what it needs."""

from mcpgate.service.gateway import Gateway, GatewayError, make_gateway

__all__ = ["Gateway", "GatewayError", "make_gateway"]
