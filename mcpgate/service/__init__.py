"""The composition root: every room is made here and handed what it needs."""

from mcpgate.service.gateway import Gateway, make_gateway

__all__ = ["Gateway", "make_gateway"]
