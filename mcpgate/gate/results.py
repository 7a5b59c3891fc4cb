"""
Results that servers of the modern era allow to be kept: lists, reads, ``server/discover``.

The server says for how long (``ttlMs``) and for whom (``cacheScope``): what is private is found
again only by the principal it was given to (R74).  The bounds hold for all results together and for
each principal, so nobody fills the cache for the others.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final

from twisted.internet.interfaces import IReactorTime

from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.mcp.methods import DISCOVER, RESOURCE_UPDATED
from mcpgate.mcp.modern import CACHEABLE, COMPLETE
from mcpgate.model import KIB, MIB, Principal
from mcpgate.telemetry.meters import Meters

# However long a server says.
LONGEST_S: Final = 86400.0
_LONGEST_PARAMS: Final = 4 * KIB

_CHANGES: Final = {
    "notifications/tools/list_changed": frozenset({"tools/list"}),
    "notifications/prompts/list_changed": frozenset({"prompts/list"}),
    "notifications/resources/list_changed": frozenset(
        {"resources/list", "resources/templates/list", "resources/read"}
    ),
    RESOURCE_UPDATED: frozenset({"resources/read"}),
}

# (server, method, params, principal); None for what is everybody's.
_Key = tuple[str, str, str, Principal | None]


@dataclass(frozen=True, slots=True)
class _Entry:
    result: Mapping[str, object]
    size: int
    until_s: float
    giver: Principal


class ResultCache:
    """
    Keeps results by server, method and params, and whose they are.

    :param entries: kept at most; ``of_one`` of them for one principal's asking.
    :param size_bytes: of all results kept; ``of_one_bytes`` likewise.
    """

    def __init__(
        self,
        clock: IReactorTime,
        meters: Meters,
        *,
        entries: int = 4096,
        of_one: int = 256,
        size_bytes: int = 32 * MIB,
        of_one_bytes: int = 4 * MIB,
    ) -> None:
        self._clock = clock
        self._meters = meters
        self._limits = (entries, size_bytes)
        self._limits_of_one = (of_one, of_one_bytes)
        self._kept: OrderedDict[_Key, _Entry] = OrderedDict()
        self._bytes = 0
        self._of: Counter[Principal] = Counter()
        self._bytes_of: Counter[Principal] = Counter()
        self._changes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """How large the results kept are."""
        return self._bytes

    def find(self, server: str, principal: Principal, request: Request) -> dict[str, object] | None:
        """Give a result that still holds, with what is left of its time; None if there is none."""
        found = self._look_up(server, principal, request)
        if found is None:
            return None
        left_s = found.until_s - self._clock.seconds()
        if left_s <= 0:
            return None
        self._meters.events["result_cache_hit"] += 1
        return {**found.result, "ttlMs": int(left_s * 1000)}

    def last_discovery(
        self, server: str, principal: Principal, request: Request
    ) -> dict[str, object] | None:
        """
        Give what a server last said of itself, however old, for while it can not be asked.

        Its time is over at once, so that it is asked for again.
        """
        found = self._look_up(server, principal, request)
        return {**found.result, "ttlMs": 0} if found is not None else None

    def mark(self, server: str) -> int:
        """Give what `keep` has to be told, taken before the server is asked."""
        return self._changes[server]

    def keep(
        self,
        server: str,
        principal: Principal,
        request: Request,
        result: Mapping[str, object],
        size: int,
        *,
        mark: int,
        sharable: bool,
    ) -> None:
        """
        Keep a result, if it says that it may be.

        :param size: of the result as it was received, bytes.
        :param mark: a change heard since then makes the result worthless.
        :param sharable: the server is the same for every caller, so that ``public`` counts.
        """
        ttl_s = _ttl_s(result)
        discovery = request.method == DISCOVER
        if (ttl_s <= 0 and not discovery) or mark != self._changes[server]:
            return
        params = _params(request)
        if params is None or result.get("resultType", COMPLETE) != COMPLETE:
            return
        public = sharable and result.get("cacheScope") == "public"
        key = (server, request.method, params, None if public else principal)
        self._drop(key)
        if size > self._limits_of_one[1]:
            return
        self._kept[key] = _Entry(result, size, self._clock.seconds() + ttl_s, principal)
        self._bytes += size
        self._of[principal] += 1
        self._bytes_of[principal] += size
        self._make_room(principal)

    def heard(self, server: str, notification: Notification) -> None:
        """Drop what a server says has changed."""
        methods = _CHANGES.get(notification.method)
        if methods is None:
            return
        self._changes[server] += 1
        uri = None
        if notification.method == RESOURCE_UPDATED:
            uri = (notification.params or {}).get("uri")
        for key in [key for key in self._kept if key[0] == server and key[1] in methods]:
            # A change of a part may be told under the name of the whole, and the reverse.
            if uri is None or not isinstance(uri, str) or _touches(key[2], uri):
                self._drop(key)

    def forget(self, server: str) -> None:
        """Drop everything of a server."""
        self._changes[server] += 1
        for key in [key for key in self._kept if key[0] == server]:
            self._drop(key)

    def _look_up(self, server: str, principal: Principal, request: Request) -> _Entry | None:
        if request.method not in CACHEABLE:
            return None
        params = _params(request)
        if params is None:
            return None
        for whose in (principal, None):
            key = (server, request.method, params, whose)
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        return None

    def _make_room(self, principal: Principal) -> None:
        most, most_bytes = self._limits_of_one
        while self._of[principal] > most or self._bytes_of[principal] > most_bytes:
            self._drop(next(key for key, kept in self._kept.items() if kept.giver == principal))
        most, most_bytes = self._limits
        while len(self._kept) > most or self._bytes > most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        found = self._kept.pop(key, None)
        if found is None:
            return
        self._bytes -= found.size
        for counter, less in ((self._of, 1), (self._bytes_of, found.size)):
            counter[found.giver] -= less
            if not self._of[found.giver]:
                del counter[found.giver]


def _ttl_s(result: Mapping[str, object]) -> float:
    told = result.get("ttlMs")
    if isinstance(told, bool) or not isinstance(told, int | float) or not isfinite(told):
        return 0.0
    return min(max(float(told), 0.0) / 1000, LONGEST_S)


def _params(request: Request) -> str | None:
    """Write what a result depends on; None for a request whose result must not be kept."""
    params = request.params or {}
    if request.method not in CACHEABLE or "inputResponses" in params or "requestState" in params:
        return None
    told = {key: value for key, value in params.items() if key != "_meta"}
    if not told:
        return ""
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return text if len(text) <= _LONGEST_PARAMS else None


def _touches(params: str, uri: str) -> bool:
    read = json.loads(params).get("uri") if params else None
    return not isinstance(read, str) or read.startswith(uri) or uri.startswith(read)
