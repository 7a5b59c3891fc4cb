"""
What a client of ``subscriptions/listen`` asked for, and how it is told (2026-07-28).

Every frame of a subscription names it by the id of the listen request, in that id's own type; the
first one acknowledges what part of the filter is honoured (``basic/patterns/subscriptions``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Notification, Request, Response
from mcpgate.mcp.methods import RESOURCE_UPDATED
from mcpgate.mcp.modern import COMPLETE, META_SUBSCRIPTION

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
TASKS: Final = "notifications/tasks"

# Key of the filter -> the notification it asks for.
LISTS: Final[dict[str, str]] = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
_KEY_OF: Final = {method: key for key, method in LISTS.items()}
# One subscription may name so many resources.
MAX_URIS: Final = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """
    The ``notifications`` of a listen request, or the part of them that is honoured.

    :ivar told: as it was written; keys of extensions are in it.
    """

    told: Mapping[str, object]

    @classmethod
    def of(cls, request: Request) -> Filter:
        """
        Read what a client asks for.

        :raises InvalidParams: there is no filter, or none that can be read.
        """
        told = (request.params or {}).get("notifications")
        if not isinstance(told, dict):
            raise InvalidParams("subscriptions/listen needs notifications, an object.")
        if any(not isinstance(told.get(key, False), bool) for key in LISTS):
            raise InvalidParams("The filter's listChanged keys must be true or false.")
        uris = told.get("resourceSubscriptions", [])
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise InvalidParams("resourceSubscriptions must be a list of URIs.")
        if len(uris) > MAX_URIS:
            raise InvalidParams(f"One subscription may name {MAX_URIS} resources.")
        return cls(told)

    @classmethod
    def acknowledged(cls, notification: Notification) -> Filter:
        """Read what a server honours; what can not be read is not honoured."""
        told = (notification.params or {}).get("notifications")
        return cls(told if isinstance(told, dict) else {})

    @property
    def uris(self) -> tuple[str, ...]:
        """The resources whose updates are wanted."""
        uris = self.told.get("resourceSubscriptions")
        return tuple(uri for uri in uris if isinstance(uri, str)) if isinstance(uris, list) else ()

    def wants(self, notification: Notification) -> bool:
        """
        Tell whether a notification was asked for.

        Servers may tell of a part of a resource under the part's own URI, so any will do where
        there are some.
        """
        method = notification.method
        if method == RESOURCE_UPDATED:
            return bool(self.uris)
        if method == TASKS:
            return "taskIds" in self.told
        key = _KEY_OF.get(method)
        return key is not None and self.told.get(key) is True

    def all_changed(self) -> Iterator[Notification]:
        """Make what tells a client that it may have missed anything it asked for."""
        for key, method in LISTS.items():
            if self.told.get(key) is True:
                yield Notification(method)
        for uri in self.uris:
            yield Notification(RESOURCE_UPDATED, {"uri": uri})


def acknowledgement(honoured: Filter) -> Notification:
    """Make the first frame, yet without the subscription's id."""
    return Notification(ACKNOWLEDGED, {"notifications": dict(honoured.told)})


def tagged(notification: Notification, subscription: int | str) -> Notification:
    """Give a notification as a frame of a subscription."""
    params = notification.params or {}
    return Notification(notification.method, {**params, "_meta": _meta(params, subscription)})


def farewell(subscription: int | str) -> Response:
    """Make the result that ends a subscription politely."""
    result: dict[str, object] = {"resultType": COMPLETE, "_meta": _meta({}, subscription)}
    return Response(subscription, result)


def _meta(holder: Mapping[str, object], subscription: int | str) -> dict[str, object]:
    meta = holder.get("_meta")
    return {**(meta if isinstance(meta, dict) else {}), META_SUBSCRIPTION: subscription}
