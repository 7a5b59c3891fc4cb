"""What a legacy session on a modern server keeps while the gate runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from mcpgate.gate.sessions import Session
from mcpgate.mcp import to_legacy
from mcpgate.mcp.headers import annotated, param_fields
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.modern import Context
from mcpgate.web.mcp.on_modern.listen import BridgedListen, Filter
from mcpgate.web.mcp.stream_link import StreamLink

if TYPE_CHECKING:
    from mcpgate.web.mcp.on_modern.call import BridgedCall

# Tools of one session whose arguments are repeated in fields.
MAX_TOOLS: Final = 500


class BridgedLink(StreamLink):
    """
    What a session keeps while the gate runs: its stream, calls, questions, and its listen.

    :param group: the server is a group, which tells of every list, whoever is in it.
    :ivar calls: in work.
    :ivar asked: what the client was asked and has not answered: id -> within which call.
    :ivar discovered: the server's DiscoverResult; None until it was asked.
    :ivar uris: resources subscribed to, oldest first.
    """

    __slots__ = (
        "_group",
        "_minted",
        "_params",
        "_session",
        "_tag",
        "_tools",
        "asked",
        "calls",
        "discovered",
        "listen",
        "uris",
    )

    def __init__(self, session: Session, tag: str, *, group: bool = False) -> None:
        super().__init__()
        self.calls: dict[BridgedCall, None] = {}
        self.asked: dict[str, BridgedCall] = {}
        self.discovered: dict[str, object] | None = None
        self.listen: BridgedListen | None = None
        self.uris: dict[str, None] = dict.fromkeys(session.record.subscriptions)
        self._session = session
        self._group = group
        self._params: dict[str, object] = json.loads(session.record.initialize_params)
        # A client may answer what an earlier life of the gate asked: never under an id of ours.
        self._tag = tag
        self._minted = 0
        self._tools: dict[str, object] = {}

    def said(self) -> Context:
        """Give what every request says of the client."""
        record = self._session.record
        return to_legacy.context(self._params, record.revision, record.log_level)

    def mint_ask(self) -> str:
        """Make an id for a question to the client."""
        self._minted += 1
        return f"ask-{self._tag}-{self._minted}"

    def call_of(self, request_id: object) -> BridgedCall | None:
        """Find the one call in work with the client's id; None when it can not be told."""
        found = [
            call
            for call in self.calls
            if call.request.id == request_id and type(call.request.id) is type(request_id)
        ]
        return found[0] if len(found) == 1 else None

    def wanted(self) -> Filter:
        """Give the filter the session should listen with; empty when nobody would hear it."""
        if self.stream is None and not self.uris:
            return {}
        if self.discovered is None and not self._group:
            return {}
        return to_legacy.listen_filter(self.discovered, tuple(self.uris))

    # --- Arguments of tools that fields repeat --------------------------------------------------

    def learn(self, tools: object) -> None:
        """Keep which arguments of these tools stand in fields, too."""
        for tool in tools if isinstance(tools, list) else []:
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(name, str):
                continue
            schema = tool.get("inputSchema")
            if annotated(schema) and len(self._tools) < MAX_TOOLS:
                self._tools[name] = schema
            else:
                self._tools.pop(name, None)

    def params_fields(self, request: Request) -> list[tuple[bytes, bytes]]:
        """Make the ``Mcp-Param-*`` fields that go with a request."""
        params = request.params or {}
        schema = self._tools.get(str(params.get("name"))) if self._tools else None
        if request.method != to_legacy.CALL or schema is None:
            return []
        return param_fields(schema, params.get("arguments"))

    def leave(self, _: str) -> None:
        """Let go of everything: the session is over."""
        for call in tuple(self.calls):
            call.cancel()
        if self.listen is not None:
            self.listen.stop()
        self.close_stream()
