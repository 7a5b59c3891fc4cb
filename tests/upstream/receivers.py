"""Receivers and wires for tests of the HTTP upstream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IResponseReceiver


class Recorder(Protocol):
    """A protocol that keeps what it got."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    @override
    def dataReceived(self, data: bytes) -> None:
        self.received += data

    @override
    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


@implementer(IResponseReceiver)
class RecordingReceiver:
    """Keeps what an upstream told; ``hooks`` are called with it, by name of the method."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.pieces = 0
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.failure: GateError | None = None
        self.sent: bool | None = None
        self.guest: Recorder | None = None
        self.hooks: dict[str, Callable[[], object]] = {}

    def _hook(self, name: str) -> None:
        if name in self.hooks:
            self.hooks[name]()

    def response_head(self, head: ResponseHead) -> None:
        """See `IResponseReceiver.response_head`."""
        self.head = head
        self._hook("head")

    def response_data(self, data: bytes) -> None:
        """See `IResponseReceiver.response_data`."""
        self.body += data
        self.pieces += 1
        self._hook("data")

    def response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `IResponseReceiver.response_end`."""
        self.trailers = trailers
        self._hook("end")

    def response_failed(self, error: GateError, sent: bool) -> None:
        """See `IResponseReceiver.response_failed`."""
        assert self.failure is None
        self.failure = error
        self.sent = sent
        self._hook("failed")

    def response_upgraded(self, head: ResponseHead, transport: Any) -> IProtocol:
        """See `IResponseReceiver.response_upgraded`."""
        self.head = head
        self.guest = Recorder()
        self._hook("upgraded")
        return self.guest
