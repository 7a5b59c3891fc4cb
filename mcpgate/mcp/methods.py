"""Names of MCP methods the gate must know, and what it must know of them."""

from __future__ import annotations

from typing import Final

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
PING: Final = "ping"
TOOLS_LIST: Final = "tools/list"
TOOLS_CALL: Final = "tools/call"
DISCOVER: Final = "server/discover"
LISTEN: Final = "subscriptions/listen"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
LOG_MESSAGE: Final = "notifications/message"
SET_LEVEL: Final = "logging/setLevel"
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
RESOURCE_UPDATED: Final = "notifications/resources/updated"

TOOLS_CHANGED: Final = "notifications/tools/list_changed"
LIST_CHANGED: Final = frozenset(
    {
        TOOLS_CHANGED,
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)

# A server's request -> the capability its client must have declared at initialize.
CAPABILITY_FOR: Final[dict[str, str]] = {
    "roots/list": "roots",
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
}

_REPEATABLE: Final = frozenset(
    {
        PING,
        DISCOVER,
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
        SET_LEVEL,
        SUBSCRIBE,
        UNSUBSCRIBE,
    }
)


def is_repeatable(method: str) -> bool:
    """
    Tell whether a request may be sent once more after it may have reached a server (R35).

    Lists, reads and idempotent settings may; ``tools/call`` and everything unknown may not.
    """
    return method in _REPEATABLE
