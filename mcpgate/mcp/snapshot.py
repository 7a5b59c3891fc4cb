"""
What is kept of a server for those who ask while it does not run: its greeting and its lists.

Values only.  Whether one may be shown to somebody is decided by whoever keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from mcpgate.mcp.jsonrpc import Request


@dataclass(frozen=True, slots=True)
class Listing:
    """
    One kind of list.

    :ivar capability: what the server must have declared.
    :ivar items: the member of the result that holds them.
    :ivar changed: the notification that says the list is another now.
    """

    capability: str
    items: str
    changed: str


LISTINGS: Final[dict[str, Listing]] = {
    "tools/list": Listing("tools", "tools", "notifications/tools/list_changed"),
    "prompts/list": Listing("prompts", "prompts", "notifications/prompts/list_changed"),
    "resources/list": Listing("resources", "resources", "notifications/resources/list_changed"),
    "resources/templates/list": Listing(
        "resources", "resourceTemplates", "notifications/resources/list_changed"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    What a server said of itself.

    :ivar greeting: its InitializeResult.
    :ivar lists: results by method; only whole ones, of one page.
    """

    greeting: dict[str, object]
    lists: dict[str, dict[str, object]] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Put it down as JSON."""
        told = {"greeting": self.greeting, "lists": self.lists}
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )

    def offered(self) -> dict[str, object]:
        """
        Give the greeting for a client who is answered from here.

        It says that lists may change, for they do if the server turns out to have other ones.
        """
        capabilities = self.greeting.get("capabilities")
        if not isinstance(capabilities, dict):
            return dict(self.greeting)
        told = dict(capabilities)
        for name in {listing.capability for listing in LISTINGS.values()}:
            if isinstance(told.get(name), dict):
                told[name] = {**told[name], "listChanged": True}
        return {**self.greeting, "capabilities": told}


def decoded(data: bytes) -> Snapshot | None:
    """Read what `Snapshot.encoded` put down; None when it is something else."""
    try:
        told = json.loads(data)
        greeting, lists = told["greeting"], told["lists"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(greeting, dict) or not isinstance(lists, dict):
        return None
    known = {name: one for name, one in lists.items() if name in LISTINGS and isinstance(one, dict)}
    return Snapshot(greeting=greeting, lists=known)


def asks_for_list(request: Request) -> bool:
    """Tell whether a request asks for a list from its beginning."""
    return request.method in LISTINGS and (request.params or {}).get("cursor") is None


def lists_of(greeting: Mapping[str, object]) -> list[str]:
    """Name the methods of the lists a server has, by its greeting."""
    capabilities = greeting.get("capabilities")
    if not isinstance(capabilities, dict):
        return []
    return [name for name, listing in LISTINGS.items() if listing.capability in capabilities]


def is_whole(method: str, result: Mapping[str, object]) -> bool:
    """Tell whether a list came in one page and is one."""
    items = result.get(LISTINGS[method].items)
    return isinstance(items, list) and result.get("nextCursor") is None


def mark(method: str, result: Mapping[str, object]) -> str:
    """Give digits that are another for another list; the order of items does not count."""
    items = result.get(LISTINGS[method].items)
    texts = (
        sorted(json.dumps(one, sort_keys=True) for one in items) if isinstance(items, list) else []
    )
    return sha256("\n".join(texts).encode("utf-8", "replace")).hexdigest()[:16]


def differing(told: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    """
    Give the notifications for whoever was told lists that are others now.

    :param told: marks of what was told, by method; ``now``: of what is true.
    """
    changed = (
        LISTINGS[method].changed for method, before in told.items() if now.get(method) != before
    )
    return dict.fromkeys(changed)
