"""
What a message of the modern era (2026-07-28) carries beside its method: the keys of ``_meta``.

Every modern request says for itself which revision it is of, who asks and what the asker can do
(``basic/index``, "Statelessness"); nothing is remembered between two requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Request

MODERN: Final = "2026-07-28"

_PREFIX: Final = "io.modelcontextprotocol/"
META_VERSION: Final = _PREFIX + "protocolVersion"
META_CAPABILITIES: Final = _PREFIX + "clientCapabilities"
META_CLIENT: Final = _PREFIX + "clientInfo"
META_LOG_LEVEL: Final = _PREFIX + "logLevel"
META_SERVER: Final = _PREFIX + "serverInfo"
META_SUBSCRIPTION: Final = _PREFIX + "subscriptionId"

_OF_REQUESTS: Final = frozenset({META_VERSION, META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL})

COMPLETE: Final = "complete"
INPUT_REQUIRED: Final = "input_required"

# Results of these carry ``ttlMs`` and ``cacheScope``.
CACHEABLE: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
# Only these may be answered with ``input_required``.
ASKING: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
# Of the legacy era alone: unknown here, whatever a server would say.
REMOVED: Final = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
    }
)


def meta_of(request: Request) -> Mapping[str, object]:
    """Give the ``_meta`` of a request; empty when it has none."""
    meta = (request.params or {}).get("_meta")
    return meta if isinstance(meta, dict) else {}


def claims_modern(request: Request) -> bool:
    """Tell whether a request says of itself that it is modern, whatever its header says."""
    return META_VERSION in meta_of(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """
    What a modern request says of its client.

    :ivar version: the revision, any text.
    :ivar capabilities: what this client can do, on this request.
    :ivar client: its ``clientInfo``; None when it said nothing.
    :ivar log_level: least severity of log lines it wants within this request; empty for none.
    """

    version: str
    capabilities: Mapping[str, object]
    client: Mapping[str, object] | None = None
    log_level: str = ""

    @classmethod
    def of(cls, request: Request) -> Context:
        """
        Read the context of a request.

        :raises InvalidParams: what must be there is not (-32602, ``basic/index``).
        """
        meta = meta_of(request)
        version, capabilities = meta.get(META_VERSION), meta.get(META_CAPABILITIES)
        client, level = meta.get(META_CLIENT), meta.get(META_LOG_LEVEL, "")
        if not isinstance(version, str):
            raise InvalidParams(f"_meta needs {META_VERSION}, a string.")
        if not isinstance(capabilities, dict):
            raise InvalidParams(f"_meta needs {META_CAPABILITIES}, an object.")
        if client is not None and not isinstance(client, dict):
            raise InvalidParams(f"{META_CLIENT} must be an object.")
        if not isinstance(level, str):
            raise InvalidParams(f"{META_LOG_LEVEL} must be a string.")
        return cls(version=version, capabilities=capabilities, client=client, log_level=level)

    def meta(self) -> dict[str, object]:
        """Give the keys of ``_meta`` that say this."""
        meta: dict[str, object] = {
            META_VERSION: self.version,
            META_CAPABILITIES: dict(self.capabilities),
        }
        if self.client is not None:
            meta[META_CLIENT] = dict(self.client)
        if self.log_level:
            meta[META_LOG_LEVEL] = self.log_level
        return meta


def stamped(params: Mapping[str, object] | None, context: Context) -> dict[str, object]:
    """Give the params with a context in their ``_meta``; other keys of it stay."""
    plain = unstamped(params) or {}
    meta = plain.get("_meta")
    kept = meta if isinstance(meta, dict) else {}
    return {**plain, "_meta": {**kept, **context.meta()}}


def unstamped(params: Mapping[str, object] | None) -> dict[str, object] | None:
    """
    Give the params as a legacy server shall see them: without the context of modern requests.

    Progress token, trace context and keys of vendors stay.
    """
    if params is None:
        return None
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        return dict(params)
    kept = {key: value for key, value in meta.items() if key not in _OF_REQUESTS}
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return {**rest, "_meta": kept} if kept else rest
