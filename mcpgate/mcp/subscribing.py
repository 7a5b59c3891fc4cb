"""
``subscriptions/listen`` of the modern era: what is wanted, what is honoured, and its frames.

Every frame carries the id of the request that asked for it, of the same JSON type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Notification
from mcpgate.mcp.listening import ACKNOWLEDGED, tagged
from mcpgate.mcp.methods import RESOURCE_UPDATED
from mcpgate.mcp.to_modern import has

MAX_URIS: Final = 256
MAX_URI_CHARS: Final = 4096

_TOOLS: Final = "notifications/tools/list_changed"
_PROMPTS: Final = "notifications/prompts/list_changed"
_RESOURCES: Final = "notifications/resources/list_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client wants to hear of, or the part of it that is honoured."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, object] | None) -> Wanted:
        """
        Read the params of the request.

        :raises InvalidParams: they are not of the form the specification gives.
        """
        wanted = (params or {}).get("notifications")
        if not isinstance(wanted, dict):
            raise InvalidParams("notifications must be an object.")
        uris = wanted.get("resourceSubscriptions", [])
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise InvalidParams("resourceSubscriptions must be an array of strings.")
        if len(uris) > MAX_URIS or any(len(uri) > MAX_URI_CHARS for uri in uris):
            raise InvalidParams(
                f"resourceSubscriptions holds more than {MAX_URIS} URIs, or one of more than "
                f"{MAX_URI_CHARS} characters."
            )
        return cls(
            tools=wanted.get("toolsListChanged") is True,
            prompts=wanted.get("promptsListChanged") is True,
            resources=wanted.get("resourcesListChanged") is True,
            uris=tuple(dict.fromkeys(uris)),
        )

    def within(self, capabilities: Mapping[str, object]) -> Wanted:
        """
        Give the part that a server with these capabilities may honour.

        Servers on the Python SDK 1 say that they take no subscriptions whether they do or not; so
        whoever has resources is asked, and what it accepts is honoured.
        """
        changes = "listChanged"
        return Wanted(
            tools=self.tools and has(capabilities, "tools", changes),
            prompts=self.prompts and has(capabilities, "prompts", changes),
            resources=self.resources and has(capabilities, "resources", changes),
            uris=self.uris if has(capabilities, "resources") else (),
        )

    def only(self, uris: tuple[str, ...]) -> Wanted:
        """Give the same with fewer URIs."""
        return replace(self, uris=uris)

    def wants(self, method: str) -> bool:
        """Tell whether changes of a list are wanted."""
        return (
            (method == _TOOLS and self.tools)
            or (method == _PROMPTS and self.prompts)
            or (method == _RESOURCES and self.resources)
        )

    def notifications(self) -> dict[str, object]:
        """Give this as it stands in params."""
        flags = {
            "toolsListChanged": self.tools,
            "promptsListChanged": self.prompts,
            "resourcesListChanged": self.resources,
        }
        out: dict[str, object] = {name: True for name, on in flags.items() if on}
        if self.uris:
            out["resourceSubscriptions"] = list(self.uris)
        return out


def acknowledged(subscription: int | str, honoured: Wanted) -> Notification:
    """Make the first frame."""
    return tagged(
        Notification(ACKNOWLEDGED, {"notifications": honoured.notifications()}), subscription
    )


def subject(notification: Notification) -> tuple[str, str]:
    """Tell what a notification is about: two about the same say no more than one."""
    uri = (notification.params or {}).get("uri")
    about = uri if notification.method == RESOURCE_UPDATED and isinstance(uri, str) else ""
    return notification.method, about
