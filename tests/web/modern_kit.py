"""Modern requests into the gate in memory of `tests.web.endpoint_kit`."""

from __future__ import annotations

from typing import Any

from mcpgate.mcp.headers import routing_fields
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.modern import META_CAPABILITIES, META_VERSION, MODERN
from mcpgate.model import Eras, Transport
from tests.web.endpoint_kit import World
from tests.web.fake_inbound import FakeInbound

EVERYTHING: dict[str, object] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}},
    "roots": {},
}
VERSION = MODERN.encode()


def meta(version: str = MODERN, capabilities: dict[str, object] | None = None) -> dict[str, object]:
    """Make the ``_meta`` of a request."""
    return {META_VERSION: version, META_CAPABILITIES: capabilities or {}}


def message(
    method: str,
    id: int | str = 1,
    *,
    capabilities: dict[str, object] | None = None,
    more_meta: dict[str, object] | None = None,
    **params: object,
) -> dict[str, Any]:
    """Make a modern request."""
    about = {**meta(MODERN, capabilities), **(more_meta or {})}
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": about}}


class ModernWorld(World):
    """
    A gate whose server speaks the modern era, over HTTP where nothing else is said.

    :ivar lists_tools: a child that is asked for its tools before a call has none with headers.
    """

    def __init__(self, transport: Transport = Transport.HTTP, **options: Any) -> None:
        super().__init__(transport, **{"era": Eras.MODERN, **options})
        self.lists_tools = transport is Transport.STDIO

    def send(
        self,
        body: dict[str, Any],
        *,
        more: tuple[tuple[bytes, bytes], ...] = (),
        **options: Any,
    ) -> FakeInbound:
        """POST a request with the fields that go with it."""
        request = Request(body["id"], body["method"], body["params"])
        fields = routing_fields(request, MODERN)[1:]
        return self.post(body, more=(*fields, *more), version=VERSION, **options)

    def call(self, method: str = "tools/call", id: int | str = 1, **params: Any) -> FakeInbound:
        """Send a request; a tool's name is added."""
        options = {
            name: params.pop(name) for name in ("key", "accept", "path", "more") if name in params
        }
        if method == "tools/call":
            params.setdefault("name", "search")
        answer = self.send(message(method, id, **params), **options)
        if self.lists_tools and method == "tools/call" and self.pool.instances:
            self.list_tools()
        return answer

    def list_tools(self, *tools: object) -> None:
        """Have the child tell its tools, if the gate asks before a call."""
        if self.child.sent and self.child.sent[-1]["method"] == "tools/list":
            sent = self.child.sent.pop()
            self.child.say(id=sent["id"], result={"tools": list(tools)})
