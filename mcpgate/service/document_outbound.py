"""Connections to services that have OpenAPI documents, made when the first is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from mcpgate.model import RESTSource
from mcpgate.timing.deferreds import deferred

if TYPE_CHECKING:
    from mcpgate.gate.access.outbound import OutboundClient

CONNECT_S: Final = 10.0

#: Asked by GET for a document with these fields, answers treq's response.
Ask = Callable[[RESTSource, list[tuple[str, str]]], Deferred[Any]]


class NotHadError(Exception):
    """The document can not be had; the text says why, and what to do."""


class Outbound:
    """Connections to services that have documents; see `Ask`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._clients: dict[bool, OutboundClient] = {}

    def ask(self, source: RESTSource, fields: list[tuple[str, str]]) -> Deferred[Any]:
        """Send the request."""
        client = self._clients.get(source.allow_private)
        if client is None:
            # With all that HTTP needs, which is much: only a gate that has documents has it.
            from mcpgate.gate.access.outbound import OutboundClient  # noqa: PLC0415

            client = self._clients[source.allow_private] = OutboundClient(
                self._reactor, connect_s=CONNECT_S, public_only=not source.allow_private
            )
        return client.send("GET", source.url, fields, None)

    @deferred
    async def close(self) -> None:
        """Let go of idle connections."""
        for client in self._clients.values():
            await client.close()
