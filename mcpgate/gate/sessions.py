"""
Every live client session, in memory; the store behind only has to survive a restart.

A session is found by principal, server and id together: an unknown id, somebody else's and one of
another server all look the same (R70).  Nothing here waits; writing is behind.

What a session holds is bounded, so is how many there are (R71).  Idle time is counted on the
clock given, which must not jump with the wall clock (R60); the wall clock only tells how long a
session had been idle when the gate starts again.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from hashlib import sha256
from heapq import merge
from itertools import takewhile
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mcpgate.errors import Internal, Overloaded, TooLarge
from mcpgate.interfaces import ISessionStore
from mcpgate.model import KIB, Principal, SessionKey, SessionRecord
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.slices import emptied, in_slices

log = Logger()

#: A session in use is written again this often, so that a restart knows it was alive.
PERSIST_S: Final = 30.0
PARAMS_LIMIT_BYTES: Final = 64 * KIB


class Session:
    """
    One live session.

    :ivar record: what the store keeps; after changing it call `SessionTable.changed`.
    :ivar label: the form for logs and statistics; the id itself is a credential.
    :ivar capabilities: what the client declared at ``initialize``.
    :ivar last_used: clock reading of the last `SessionTable.touch`, or when ``in_use`` became 0 or
        was it no longer; seconds.
    :ivar in_use: open calls and streams; while it is not 0 the session neither expires nor is it
        ended to make room.  Whoever adds to it takes the same away again.
    :ivar extras: free for the endpoint (live stream, stdio peer).
    :ivar events: what was said on its event streams, kept for a client that lost its connection.
    :ivar on_end: called once each, with the reason, when the session has ended.
    :ivar ended: it is over: found by nobody, kept nowhere.
    :ivar kept: it is in the store, so it survives a restart of the gate.
    """

    __slots__ = (
        "_shifted",
        "_uses",
        "capabilities",
        "ended",
        "events",
        "extras",
        "kept",
        "label",
        "last_used",
        "on_end",
        "persisted",
        "record",
    )

    def __init__(
        self,
        record: SessionRecord,
        capabilities: dict[str, object],
        last_used: float,
        *,
        kept: bool = True,
        shifted: Callable[[Session], object] = lambda _: None,
    ) -> None:
        self.record = record
        self.kept = kept
        self.label = session_label(record.key.session_id)
        self.capabilities = capabilities
        self.last_used = last_used
        self.persisted = last_used
        self._uses = 0
        self._shifted = shifted
        self.extras: object = None
        self.events: object = None
        self.on_end: list[Callable[[str], object]] = []
        self.ended = False

    @property
    def in_use(self) -> int:
        """See the class."""
        return self._uses

    @in_use.setter
    def in_use(self, uses: int) -> None:
        before, self._uses = self._uses, uses
        if not before or not uses:
            self._shifted(self)

    def __repr__(self) -> str:
        return f"<Session {self.label} of {self.record.server}, {self.in_use} in use>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """
    What statistics show of a session.

    :ivar owner: the principal's fingerprint.
    :ivar idle_s: seconds since it was last used; ``age_s`` since it was made.
    """

    label: str
    server: str
    owner: str
    user: str
    revision: str
    age_s: float
    idle_s: float
    in_use: int
    instance: str


def session_label(session_id: str) -> str:
    """Give what stands for a session id: 8 hex digits of its digest."""
    return sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class SessionTable:
    """
    The sessions of one gate.

    :param clock: only its ``seconds`` are used; monotonic.
    :param wall: the wall clock, seconds.
    :param make_id: gives new ids: 128 random bits, visible ASCII (MCP 2025-06-18, Transports).
    :param idle_s: without use for this long a session ends; 0 = never.
    :param per_principal: most sessions of one principal; ``total``: of all.  0 = no cap.
    :param has_room: tells whether memory is left for another one.
    """

    def __init__(
        self,
        store: ISessionStore,
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        make_id: Callable[[], str],
        meters: Meters,
        idle_s: float = 3600.0,
        per_principal: int = 32,
        total: int = 10_000,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._has_room = has_room
        self._store = store
        self._clock = clock
        self._wall = wall
        self._make_id = make_id
        self._meters = meters
        self._idle_s = idle_s
        self._per_principal = per_principal
        self._total = total
        # Those that may make room, and those in use; each least recently used first.
        self._idle: OrderedDict[Session, None] = OrderedDict()
        self._busy: OrderedDict[Session, None] = OrderedDict()
        self._by_principal: dict[Principal, dict[str, Session]] = {}
        self._by_server: Counter[str] = Counter()
        # Only to tell a stolen id from an invented one; never used to find a session.
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    def __iter__(self) -> Iterator[Session]:
        """Go through a snapshot: first those not in use; of each least recently used first."""
        return iter((*self._idle, *self._busy))

    @deferred
    async def load(self) -> int:
        """Restore what the store kept; tell how many sessions live again."""
        records = await self._store.load()
        loaded, left = len(records), emptied(records)
        del records
        now, wall = self._clock.seconds(), self._wall()

        def restore(record: SessionRecord) -> None:
            # A last use in the future is a wall clock put back, not a reason to forget.
            idle_s = max(0.0, wall - record.last_used_at)
            if (self._idle_s and idle_s >= self._idle_s) or not _is_visible(record.key.session_id):
                self._store.delete(record.key)
                return
            capabilities = _capabilities_of(record.initialize_params)
            self._add(Session(record, capabilities, now - idle_s, shifted=self._shifted))

        def bound(session: Session) -> None:
            mine = self._by_principal[session.record.key.principal]
            over_own = self._per_principal and len(mine) > self._per_principal
            if over_own or (self._total and len(self) > self._total):
                self.end(session, "limit")

        await in_slices(self._clock, left, restore)
        dropped = loaded - len(self)
        await in_slices(self._clock, tuple(self), bound)
        log.info(
            "{count} sessions restored, {dropped} had expired", count=len(self), dropped=dropped
        )
        return len(self)

    def create(
        self,
        principal: Principal,
        server: str,
        initialize_params: bytes,
        revision: str,
        capabilities: dict[str, object],
        *,
        kept: bool = True,
    ) -> Session:
        """
        Make a session, ending the least recently used idle one where a cap is reached.

        :param initialize_params: JSON; replayed when the server forgot.
        :param kept: False for a session that ends with its client's connection: it is not
            written to the store, and never found by `pooled`.
        :raises TooLarge: the parameters are over 64 KiB.
        :raises Overloaded: every session that could make room is in use, or memory is short.
        """
        if not self._has_room():
            raise Overloaded("The gate is short of memory.", retry_after_s=10.0)
        if len(initialize_params) > PARAMS_LIMIT_BYTES:
            raise TooLarge("The parameters of initialize are too large.")
        mine = self._by_principal.get(principal, {})
        if self._per_principal and len(mine) >= self._per_principal:
            idle = [session for session in mine.values() if not session.in_use]
            if not idle:
                raise Overloaded("Too many sessions of this key are in use.", retry_after_s=5.0)
            self.end(min(idle, key=lambda session: session.last_used), "limit")
        if self._total and len(self) >= self._total:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                raise Overloaded("Too many sessions are in use.", retry_after_s=5.0)
            self.end(oldest, "limit")
        wall = self._wall()
        record = SessionRecord(
            key=SessionKey(principal, self._fresh_id()),
            server=server,
            initialize_params=initialize_params,
            revision=revision,
            created_at=wall,
            last_used_at=wall,
        )
        session = Session(
            record, capabilities, self._clock.seconds(), kept=kept, shifted=self._shifted
        )
        self._add(session)
        if kept:
            self._store.put(record)
        else:
            record.id_returned = True
        self._meters.events["session_created"] += 1
        return session

    def find(self, principal: Principal, server: str, session_id: str) -> Session | None:
        """Look a session up; None for any id that is not this principal's on this server."""
        mine = self._by_principal.get(principal)
        session = mine.get(session_id) if mine is not None else None
        known = session_id in self._ids
        if session is None:
            if known:
                self._meters.events["session_theft"] += 1
                log.warn(
                    "A session id of somebody else was presented by {owner} for {server}",
                    ev="session_theft",
                    owner=principal.fingerprint,
                    server=server,
                )
            return None
        return session if session.record.server == server else None

    def pooled(self, principal: Principal, server: str) -> Session | None:
        """
        Find a session for a client that does not return its id.

        The most recently used one of this principal on this server whose client never sent its
        id back; so a client that does return ids never has its session shared.
        """
        candidates = [
            session
            for session in self._by_principal.get(principal, {}).values()
            if session.record.server == server and not session.record.id_returned
        ]
        return max(candidates, key=lambda session: session.last_used, default=None)

    def touch(self, session: Session) -> None:
        """Note that the session is in use now; written at most every 30 s."""
        if session.ended:
            return
        session.last_used = now = self._clock.seconds()
        (self._busy if session.in_use else self._idle).move_to_end(session)
        if now - session.persisted >= PERSIST_S:
            self.changed(session)

    def changed(self, session: Session) -> None:
        """Keep the record as it is now."""
        if session.ended:
            return
        session.persisted = now = self._clock.seconds()
        session.record.last_used_at = self._wall() - max(0.0, now - session.last_used)
        if session.kept:
            self._store.put(session.record)

    def end(self, session: Session, reason: str) -> None:
        """
        End a session: forget it here and in the store, then call its ``on_end``.  Idempotent.

        :param reason: for the log and the callbacks: ``deleted``, ``idle``, ``limit`` ..
        """
        if session.ended:
            return
        session.ended = True
        key = session.record.key
        del (self._busy if session.in_use else self._idle)[session]
        self._ids.discard(key.session_id)
        mine = self._by_principal[key.principal]
        del mine[key.session_id]
        if not mine:
            del self._by_principal[key.principal]
        server = session.record.server
        self._by_server[server] -= 1
        if not self._by_server[server]:
            del self._by_server[server]
        if session.kept:
            self._store.delete(key)
        self._meters.events["session_ended"] += 1
        log.debug(
            "Session {session} of {owner} on {server} ended: {reason}",
            session=session.label,
            owner=key.principal.fingerprint,
            server=server,
            reason=reason,
        )
        callbacks, session.on_end = session.on_end, []
        for callback in callbacks:
            try:
                callback(reason)
            except Exception:
                log.failure("Ending a session failed in part")

    def of(self, principal: Principal) -> list[Session]:
        """List the sessions of a principal."""
        return list(self._by_principal.get(principal, {}).values())

    def end_all(self, principal: Principal, reason: str) -> int:
        """End every session of a principal (its key was revoked); tell how many."""
        sessions = self.of(principal)
        for session in sessions:
            self.end(session, reason)
        return len(sessions)

    @deferred
    async def end_those_of(self, servers: Container[str], reason: str) -> None:
        """End every session of these servers (they were taken out), a few each turn."""

        def end(session: Session) -> None:
            if session.record.server in servers:
                self.end(session, reason)

        await in_slices(self._clock, emptied(self), end)

    @deferred
    async def sweep(self) -> int:
        """End sessions idle for too long, a few each turn; tell how many.  For a ticker."""
        if not self._idle_s:
            return 0
        due = self._clock.seconds() - self._idle_s
        # Those in use are touched here, so that an open stream counts as use, on disk too.
        look_at = self._clock.seconds() - min(self._idle_s / 2, PERSIST_S)
        ended = 0

        def look(session: Session) -> None:
            nonlocal ended
            # Its time may have come, or gone, since the list was made.
            if session.in_use:
                self.touch(session)
            elif session.last_used <= due and not session.ended:
                self.end(session, "idle")
                ended += 1

        old = takewhile(lambda session: session.last_used <= due, self._idle)
        held = (session for session in self._busy if session.last_used <= look_at)
        await in_slices(self._clock, emptied((*old, *held)), look)
        return ended

    @deferred
    async def persist(self) -> None:
        """Hand every session that was used since it was written to the store: before the end."""

        def keep(session: Session) -> None:
            if session.last_used > session.persisted:
                self.changed(session)

        await in_slices(self._clock, tuple(self), keep)

    def views(self, limit: int = 1000) -> list[SessionView]:
        """Describe sessions, most recently used first."""
        now, wall = self._clock.seconds(), self._wall()
        views: list[SessionView] = []
        parts = (reversed(self._busy), reversed(self._idle))
        for session in merge(*parts, key=lambda session: -session.last_used):
            if len(views) >= limit:
                break
            record = session.record
            views.append(
                SessionView(
                    label=session.label,
                    server=record.server,
                    owner=record.key.principal.fingerprint,
                    user=record.key.principal.subject,
                    revision=record.revision,
                    age_s=max(0.0, wall - record.created_at),
                    idle_s=max(0.0, now - session.last_used),
                    in_use=session.in_use,
                    instance=record.upstream_instance,
                )
            )
        return views

    def count_by_server(self) -> dict[str, int]:
        """Tell how many sessions each server has."""
        return dict(self._by_server)

    def _add(self, session: Session) -> None:
        key = session.record.key
        self._idle[session] = None
        self._by_principal.setdefault(key.principal, {})[key.session_id] = session
        self._by_server[session.record.server] += 1
        self._ids.add(key.session_id)

    def _shifted(self, session: Session) -> None:
        """Its use began, or ended: it was used now."""
        if session.ended:
            return
        session.last_used = self._clock.seconds()
        for part in (self._idle, self._busy):
            part.pop(session, None)
        (self._busy if session.in_use else self._idle)[session] = None

    def _fresh_id(self) -> str:
        for _ in range(4):
            session_id = self._make_id()
            if session_id not in self._ids and _is_visible(session_id):
                return session_id
        raise Internal


def _is_visible(session_id: str) -> bool:
    return bool(session_id) and all("!" <= char <= "~" for char in session_id)


def _capabilities_of(initialize_params: bytes) -> dict[str, object]:
    try:
        params = json.loads(initialize_params)
    except (ValueError, RecursionError):
        return {}
    capabilities = params.get("capabilities") if isinstance(params, dict) else None
    return capabilities if isinstance(capabilities, dict) else {}
