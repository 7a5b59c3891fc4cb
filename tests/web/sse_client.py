"""A client of HTTP+SSE in the memory of a test."""

from __future__ import annotations

import json
from typing import Any

from mcpgate.mcp.framing import SSEEvent, SSEReader
from tests.web.endpoint_kit import INIT, World, notification, request
from tests.web.fake_inbound import FakeInbound


class SSEClient:
    """
    Opens a stream.

    :ivar stream: the GET.
    """

    def __init__(
        self, world: World, *, key: str = "k1", path: bytes = b"/notes/sse", **options: Any
    ) -> None:
        self.world = world
        self.key = key
        self.stream = world.ask(
            "GET", path=path, key=key, **{"accept": b"text/event-stream", **options}
        )

    @property
    def events(self) -> list[SSEEvent]:
        """All that came."""
        return SSEReader(64 << 20).feed(self.stream.body)

    @property
    def endpoint(self) -> str:
        """What the first event holds."""
        first = self.events[0]
        assert first.event == "endpoint"
        return first.data.decode()

    @property
    def query(self) -> bytes:
        """The query for POSTs."""
        return self.endpoint.partition("?")[2].encode()

    @property
    def stream_id(self) -> str:
        """The id of the stream."""
        return self.endpoint.partition("=")[2]

    @property
    def heard(self) -> list[Any]:
        """Every message so far."""
        assert all(event.event == "message" for event in self.events[1:])
        return [json.loads(event.data) for event in self.events[1:]]

    def post(self, message: object) -> FakeInbound:
        """POST a message that is accepted."""
        path, _, query = self.endpoint.partition("?")
        answer = self.world.ask(
            "POST", message, key=self.key, path=path.encode(), query=query.encode(), accept=b"*/*"
        )
        assert answer.status == 202, (answer.status, answer.body)
        return answer

    def open(self, version: str = "2024-11-05") -> SSEClient:
        """Shake hands."""
        self.post({**INIT, "params": {**INIT["params"], "protocolVersion": version}})
        self.world.answer_initialize()
        assert self.heard[-1]["result"]["protocolVersion"] == version, self.heard
        self.post(notification("notifications/initialized"))
        return self

    def call(self, name: str, id: int | str = 1, **params: object) -> FakeInbound:
        """Call a tool."""
        return self.post(request("tools/call", id, name=name, **params))

    def leave(self) -> None:
        """Close the stream."""
        self.stream.go()
        self.world.settle()
