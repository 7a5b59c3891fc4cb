"""
Many servers as one: names, addresses of resources, lists and greetings put together.

Values in, values out.  Who is asked, and what happens when one does not answer, is decided
elsewhere; here is only what the client is shown and what its words mean for which server.

Tools and prompts are shown as ``SERVER__NAME``, resources as ``SERVER+URI``.  Names of servers
hold no ``_`` and no ``+``, so the first mark always ends them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from mcpgate.errors import InvalidParams

MARK: Final = "__"
URI_MARK: Final = "+"
# What most hosts allow for a tool's name, their own prefix among it (protocol.md 6.6).
NAME_CHARS: Final = 64
_DIGEST_CHARS: Final = 8
_LEAST_CHARS: Final = 24
_CUT: Final = re.compile(r"_[0-9a-f]{8}\Z")


@dataclass(frozen=True, slots=True)
class Items:
    """
    One kind of list.

    :ivar member: of the result that holds the items.
    :ivar field: of an item that says which it is: a name or a URI.
    :ivar changed: the notification that the list is another now.
    :ivar capability: what a server that has it declares.
    """

    member: str
    field: str
    changed: str
    capability: str


LISTS: Final[Mapping[str, Items]] = {
    "tools/list": Items("tools", "name", "notifications/tools/list_changed", "tools"),
    "prompts/list": Items("prompts", "name", "notifications/prompts/list_changed", "prompts"),
    "resources/list": Items(
        "resources", "uri", "notifications/resources/list_changed", "resources"
    ),
    "resources/templates/list": Items(
        "resourceTemplates", "uriTemplate", "notifications/resources/list_changed", "resources"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    How servers are shown together.

    :ivar servers: their names, in the order of their items.
    :ivar alias: what clients call this address: hosts put ``mcp__ALIAS__`` before each name.
    :ivar allow: patterns (``*``, ``?``) of ``SERVER__NAME`` that are shown; empty: all.
    :ivar deny: patterns of those that are not.
    :ivar rename: shown names by ``SERVER__NAME``.
    """

    servers: tuple[str, ...]
    alias: str = "mcpgate"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rename: Mapping[str, str] | None = None

    @property
    def name_chars(self) -> int:
        """Give how long a shown name may be."""
        return max(_LEAST_CHARS, NAME_CHARS - len(f"mcp__{self.alias}__"))

    def shows(self, server: str, name: str) -> bool:
        """Tell whether a tool or prompt of a server is shown."""
        full = f"{server}{MARK}{name}"
        allowed = not self.allow or any(fnmatchcase(full, one) for one in self.allow)
        return allowed and not any(fnmatchcase(full, one) for one in self.deny)

    def shown_name(self, server: str, name: str) -> str:
        """Give what clients call a tool or prompt; long names are cut, always alike."""
        full = f"{server}{MARK}{name}"
        full = (self.rename or {}).get(full, full)
        if len(full) <= self.name_chars:
            return full
        digest = sha256(full.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]
        return f"{full[: self.name_chars - _DIGEST_CHARS - 1]}_{digest}"

    def shown_uri(self, server: str, uri: str) -> str:
        """Give what clients call a resource, or a template of some."""
        return f"{server}{URI_MARK}{uri}"

    def meant_uri(self, shown: str) -> tuple[str, str] | None:
        """Tell which server's resource an address means; None when it is nobody's."""
        server, mark, uri = shown.partition(URI_MARK)
        return (server, uri) if mark and server in self.servers else None

    def meant_name(self, shown: str) -> tuple[str, str] | None:
        """
        Tell which server's tool a name means, as far as the name itself tells.

        Renamed and shortened names are known from the lists alone: see `Book`.
        """
        server, mark, name = shown.partition(MARK)
        if not mark or server not in self.servers or not self.shows(server, name):
            return None
        if len(shown) == self.name_chars and _CUT.search(shown):
            return None
        return (server, name) if self.shown_name(server, name) == shown else None


class Book:
    """
    Which server's item each shown name is, learned from the lists that were shown.

    :ivar view: how they were shown.
    :param limit: names kept of each server.
    """

    def __init__(self, view: View, limit: int = 10_000) -> None:
        self.view = view
        self._limit = limit
        self._names: dict[tuple[str, str], tuple[str, str]] = {}

    def learn(self, method: str, server: str, items: Iterable[Mapping[str, object]]) -> None:
        """Take note of a server's tools or prompts, instead of those noted before."""
        self._names = {
            key: meant
            for key, meant in self._names.items()
            if not (key[0] == method and meant[0] == server)
        }
        for item in list(items)[: self._limit]:
            name = item.get("name")
            if isinstance(name, str):
                shown = self.view.shown_name(server, name)
                self._names.setdefault((method, shown), (server, name))

    def meant(self, method: str, shown: str) -> tuple[str, str] | None:
        """Tell which server's tool or prompt a shown name is; None when nobody's is known."""
        return self._names.get((method, shown)) or self.view.meant_name(shown)


# --- Lists ------------------------------------------------------------------------------------


def shown_items(
    view: View, method: str, results: Mapping[str, Sequence[Mapping[str, object]]]
) -> list[dict[str, object]]:
    """
    Put the items of several servers together, as clients see them.

    In the order of the view, then as each server has them.  Of two that would be shown under one
    name the first counts.

    :param results: the items of each server that answered.
    """
    kind = LISTS[method]
    shown: dict[str, dict[str, object]] = {}
    for server in view.servers:
        for item in results.get(server, ()):
            told = item.get(kind.field)
            if not isinstance(told, str):
                continue
            if kind.field == "name":
                if not view.shows(server, told):
                    continue
                name = view.shown_name(server, told)
            else:
                name = view.shown_uri(server, told)
            shown.setdefault(name, with_shown_uris(view, server, {**item, kind.field: name}))
    return list(shown.values())


def page(
    items: Sequence[dict[str, object]], cursor: object, size: int
) -> tuple[list[dict[str, object]], str | None]:
    """
    Cut a list into pages; give one page and the cursor of the next.

    A cursor holds a mark of the list it was made for: after a change it is refused, for it would
    leave items out or show them twice.

    :param size: items on a page; 0: all.
    :raises InvalidParams: the cursor is not of this list.
    """
    mark = _mark(items)
    start = 0
    if cursor is not None:
        start = _start(cursor, mark, len(items))
    end = start + size if size else len(items)
    more = end < len(items)
    return list(items[start:end]), _cursor(end, mark) if more else None


def _mark(items: Sequence[Mapping[str, object]]) -> str:
    names = json.dumps([item.get("name", item.get("uri")) for item in items])
    return sha256(names.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]


def _cursor(start: int, mark: str) -> str:
    return base64.urlsafe_b64encode(f"{start}.{mark}".encode()).decode().rstrip("=")


def _start(cursor: object, mark: str, count: int) -> int:
    stale = InvalidParams("The cursor is not valid, or not any more; begin again without one.")
    if not isinstance(cursor, str) or len(cursor) > NAME_CHARS:
        raise stale
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        start, _, found = base64.urlsafe_b64decode(padded.encode()).decode().partition(".")
    except (binascii.Error, UnicodeError, ValueError):
        raise stale from None
    if found != mark or not start.isdecimal() or not 0 < int(start) < count:
        raise stale
    return int(start)


# --- Addresses inside of results --------------------------------------------------------------


def with_shown_uris(view: View, server: str, value: Mapping[str, object]) -> dict[str, object]:
    """
    Give an item or a result with the addresses of resources in it as clients see them.

    Those the protocol has: ``uri`` of contents, of embedded resources and of links, and
    ``resourceUri`` of an application's surface (``_meta.ui``).  What tools say in texts is left.
    """
    changed = dict(value)
    for member in ("contents", "content", "messages"):
        parts = value.get(member)
        if isinstance(parts, list):
            changed[member] = [_part(view, server, one) for one in parts]
    meta = value.get("_meta")
    surface = meta.get("ui") if isinstance(meta, dict) else None
    if isinstance(meta, dict) and isinstance(surface, dict):
        uri = surface.get("resourceUri")
        if isinstance(uri, str):
            inner = {**surface, "resourceUri": view.shown_uri(server, uri)}
            changed["_meta"] = {**meta, "ui": inner}
    return changed


def _part(view: View, server: str, part: object) -> object:
    if not isinstance(part, dict):
        return part
    changed = dict(part)
    content, resource = part.get("content"), part.get("resource")
    if isinstance(content, dict):  # a message of a prompt
        changed["content"] = _part(view, server, content)
    if isinstance(resource, dict):
        changed["resource"] = _part(view, server, resource)
    uri = part.get("uri")
    if isinstance(uri, str):
        changed["uri"] = view.shown_uri(server, uri)
    return changed


# --- Greetings --------------------------------------------------------------------------------


def merged_capabilities(
    told: Iterable[Mapping[str, object]], *, changing: bool = True
) -> dict[str, object]:
    """
    Give what several servers can do together: whatever one of them can.

    :param told: the capabilities of each.
    :param changing: lists may change though no server says so: one of them may come and go.
    """
    merged: dict[str, object] = {}
    for capabilities in told:
        for name, value in capabilities.items():
            before = merged.get(name)
            if isinstance(value, dict) and isinstance(before, dict):
                # What is false or empty in one server only stays so: null is no capability.
                merged[name] = {**value, **{k: v for k, v in before.items() if v or k not in value}}
            elif before is None:
                merged[name] = dict(value) if isinstance(value, dict) else value
    if changing:
        for kind in LISTS.values():
            value = merged.get(kind.capability)
            if isinstance(value, dict):
                merged[kind.capability] = {**value, "listChanged": True}
    return merged


def merged_instructions(told: Mapping[str, object], limit_chars: int = 16_000) -> str:
    """Give the instructions of several servers, each under its name; long ones are cut."""
    parts = [
        f"## {server}\n{text.strip()}"
        for server, text in told.items()
        if isinstance(text, str) and text.strip()
    ]
    whole = "\n\n".join(parts)
    return whole if len(whole) <= limit_chars else whole[: limit_chars - 1] + "…"


def merged_hints(
    results: Iterable[Mapping[str, object]], *, all_of_them: bool
) -> dict[str, object]:
    """
    Give ``ttlMs`` and ``cacheScope`` of a merged list: the shortest, the most private.

    :param all_of_them: every server answered; else the list is to be asked for again soon.
    """
    ttl: float | None = None
    scope = "public"
    for result in results:
        value = result.get("ttlMs")
        known = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        mine = float(value) if known else 0.0  # type: ignore[arg-type]  # checked just above
        ttl = mine if ttl is None else min(ttl, mine)
        if result.get("cacheScope") != "public":
            scope = "private"
    if ttl is None or not all_of_them:
        return {"ttlMs": 0, "cacheScope": "private"}
    return {"ttlMs": int(ttl), "cacheScope": scope}
