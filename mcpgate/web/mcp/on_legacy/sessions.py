"""
The sessions the gate holds for modern clients: by principal, server and capability class.

One is made when it is first needed, by one of those who wait for it, and ends like any other:
idle for too long, for room, or with its key.  None survives the gate: nobody holds its id.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcpgate._version import __version__
from mcpgate.errors import BackendDied
from mcpgate.gate.sessions import Session
from mcpgate.interfaces import IInbound
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response, encode, error_response
from mcpgate.mcp.log_levels import LogLevels
from mcpgate.mcp.methods import INITIALIZE
from mcpgate.mcp.revisions import LATEST_LEGACY
from mcpgate.mcp.to_modern import ALL_POWERS, Powers
from mcpgate.model import Caller, Isolation, Principal, ServerSpec, Transport
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.on_legacy.session import Desk, GateSession, NotOpenedError, plain
from mcpgate.web.mcp.over_http.fetch import messages_in
from mcpgate.web.mcp.post import Post, owner_of

_Key = tuple[Principal, str, Powers]
# A server, and the digest of whose copy of it.
_Place = tuple[str, str]

_CLIENT: Final = {"name": "mcpgate", "version": __version__}


def advertised(spec: ServerSpec, powers: Powers) -> Powers:
    """
    Tell what a server is told that its client can do.

    A child shared by several sessions is shaken hands with once, so it hears of everything the
    gate can carry; what a client did not declare is refused when it is asked for.
    """
    shared = spec.transport is not Transport.HTTP and spec.isolation is not Isolation.PER_SESSION
    return ALL_POWERS if shared else powers


def _shared_place(spec: ServerSpec, caller: Caller, session: Session) -> _Place | None:
    """Tell which copy of a server several sessions speak to; None when each has its own."""
    if spec.transport is Transport.HTTP or spec.isolation is Isolation.PER_SESSION:
        return None
    owner = owner_of(spec, caller.principal, session.record.key.session_id)
    return spec.name, owner.digest


class GateSessions:
    """See the module."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open: dict[_Key, GateSession] = {}
        self._opening: dict[_Key, list[Deferred[GateSession]]] = {}
        # Of servers that several sessions share, and how many do.
        self._levels: dict[_Place, LogLevels] = {}
        self._sharers: Counter[_Place] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, principal: Principal | None = None) -> list[GateSession]:
        """List the sessions of one principal, or all."""
        return [one for key, one in self._open.items() if principal in (None, key[0])]

    async def get(
        self, caller: Caller, spec: ServerSpec, powers: Powers, source: IInbound
    ) -> GateSession:
        """
        Give the session for a client with these powers, opened if need be.

        :param source: the client's request that needs it.
        :raises NotOpenedError: the server can not be reached, or refused.
        """
        told = advertised(spec, powers)
        key = (caller.principal, spec.name, told)
        found = self._open.get(key)
        if found is not None and not found.over:
            found.caller = caller
            return found
        waiting = self._opening.get(key)
        if waiting is not None:
            turn: Deferred[GateSession] = Deferred()
            waiting.append(turn)
            return await turn
        waiting = self._opening[key] = []
        try:
            session = await self._make(key, caller, spec, told, source)
        except BaseException:
            failure = Failure()
            del self._opening[key]
            for waiter in waiting:
                self._desk.clock.callLater(0, waiter.errback, failure)
            raise
        del self._opening[key]
        for waiter in waiting:
            self._desk.clock.callLater(0, waiter.callback, session)
        return session

    async def _make(
        self, key: _Key, caller: Caller, spec: ServerSpec, powers: Powers, source: IInbound
    ) -> GateSession:
        desk = self._desk
        params: dict[str, object] = {
            "protocolVersion": LATEST_LEGACY.name,
            "capabilities": powers.declared(),
            "clientInfo": _CLIENT,
        }
        session = desk.sessions.create(
            caller.principal,
            spec.name,
            json.dumps(params, separators=(",", ":")).encode("ascii"),
            LATEST_LEGACY.name,
            # Whatever the server asks is to be heard of here: it is answered, or refused in words.
            ALL_POWERS.declared(),
            # Nobody comes back to what was said in it, and nobody who lost a session of his own
            # is to be given this one.
            kept=False,
        )
        result = await self._initialize(session, caller, spec, source, params)
        place = _shared_place(spec, caller, session)
        levels = LogLevels() if place is None else self._levels.setdefault(place, LogLevels())
        gate_session = GateSession(desk, session, caller, spec, source, result, levels)
        self._open[key] = gate_session
        if place is not None:
            self._sharers[place] += 1
        session.on_end.append(lambda _: self._forget(key, gate_session, place))
        await gate_session.introduce()
        return gate_session

    def _forget(self, key: _Key, gate_session: GateSession, place: _Place | None) -> None:
        if self._open.get(key) is gate_session:
            del self._open[key]
        if place is None:
            return
        self._sharers[place] -= 1
        if not self._sharers[place]:
            del self._sharers[place]
            del self._levels[place]

    async def _initialize(
        self,
        session: Session,
        caller: Caller,
        spec: ServerSpec,
        source: IInbound,
        params: dict[str, object],
    ) -> dict[str, object]:
        request = Request(self._desk.mint(), INITIALIZE, params)
        heard: list[Response | ErrorResponse] = []
        over: Deferred[None] = Deferred()

        def told(data: bytes) -> None:
            heard.extend(
                one for one in messages_in(data) if isinstance(one, Response | ErrorResponse)
            )

        errand = Errand(
            plain(source.head),
            source.peer,
            source.request_id,
            told=told,
            ended=lambda _: over.callback(None),
        )
        self._desk.speaker(spec).initialize(
            Post(
                inbound=errand,
                caller=caller,
                spec=spec,
                body=encode(request),
                requests=(request,),
                others=(),
                batch=False,
                accepts=(True, False),
                release=lambda: None,
            ),
            session,
        )
        await over
        answer = heard[-1] if heard else error_response(None, BackendDied(), source.request_id)
        if isinstance(answer, Response):
            return answer.result
        # An error the server answered itself comes with 200.
        raise NotOpenedError(answer, errand.status if errand.status >= 400 else 502)
