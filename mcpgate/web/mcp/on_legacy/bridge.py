"""
Modern clients on legacy servers (protocol.md 4.1, 4.2).

A modern request stands for itself; a legacy server wants a handshake and a session.  So the gate
holds sessions of its own and puts each request to one of them, parks the calls in which the server
asks something, and listens for those who want to hear of changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import InvalidParams, MethodNotFound
from mcpgate.mcp.jsonrpc import ErrorResponse, Response
from mcpgate.mcp.log_levels import LEVELS
from mcpgate.mcp.methods import DISCOVER
from mcpgate.mcp.modern import ASKING, REMOVED
from mcpgate.mcp.parking import MAX_INPUTS
from mcpgate.mcp.to_modern import INTERNAL_ERROR, Powers, discovered, has
from mcpgate.model import Principal
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.on_legacy.answering import ModernAnswer
from mcpgate.web.mcp.on_legacy.call import BridgedCall, Lot
from mcpgate.web.mcp.on_legacy.listen import BridgedListen
from mcpgate.web.mcp.on_legacy.parked import Parked
from mcpgate.web.mcp.on_legacy.request_state import InvalidState, Seal
from mcpgate.web.mcp.on_legacy.session import Desk, GateSession, NotOpenedError
from mcpgate.web.mcp.on_legacy.sessions import GateSessions
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse_message

log = Logger()

_TASKS: Final = "tasks/"
_COMPLETION: Final = "completion/complete"
# Answers to more questions than a call can have asked over its rounds are not looked at.
_MAX_ANSWERS: Final = 4 * MAX_INPUTS


class LegacyBridge:
    """
    See `mcpgate.web.mcp.modern.post.ModernSpeaker`.

    :param seal: makes and reads ``requestState``.
    :param make_handle: gives handles nobody can guess.
    """

    def __init__(self, desk: Desk, *, seal: Seal, make_handle: Callable[[], str]) -> None:
        self._desk = desk
        self._lot = Lot(Parked(make_handle), seal)
        self._sessions = GateSessions(desk)
        self._listens: dict[BridgedListen, Principal] = {}

    @property
    def parked(self) -> int:
        """How many calls wait for their clients."""
        return len(self._lot.parked)

    # --- ModernSpeaker ------------------------------------------------------------------------

    def call(self, post: ModernPost) -> None:
        """See `ModernSpeaker.call`."""
        answer = ModernAnswer(post, wheel=self._desk.wheel, keepalive_s=self._desk.keepalive_s)
        calling = Deferred.fromCoroutine(self._call(post, answer))
        calling.addErrback(lambda failure: self._not_called(failure, post, answer))
        calling.addErrback(lambda failure: log.failure("A call went wrong", failure))

    def listen(self, post: ModernPost) -> None:
        """See `ModernSpeaker.listen`."""
        try:
            listen = BridgedListen(post, self._listened)
        except Exception:
            refuse_message(
                post.inbound, public(Failure(), post.inbound), post.request.id, live=False
            )
            post.release()
            return
        if listen.over:
            return
        self._listens[listen] = post.caller.principal
        listening = Deferred.fromCoroutine(self._listen(post, listen))
        listening.addErrback(lambda failure: self._not_heard(failure, post, listen))
        listening.addErrback(lambda failure: log.failure("A listen went wrong", failure))

    # --- Ends ---------------------------------------------------------------------------------

    def revoke(self, principal: Principal) -> None:
        """End what a principal whose key was revoked has open."""
        self._close(principal, "The key was revoked.")
        self._desk.sessions.end_all(principal, "revoked")

    def drain(self) -> None:
        """End what would last: the gate is stopping."""
        self._close(None, "The gate is stopping.")

    def _close(self, principal: Principal | None, reason: str) -> None:
        for listen, owner in tuple(self._listens.items()):
            if principal in (None, owner):
                listen.close()
        for call in self._lot.parked.of(principal):
            call.expire(reason)

    # --- Calls --------------------------------------------------------------------------------

    async def _call(self, post: ModernPost, answer: ModernAnswer) -> None:
        request, level = post.request, post.context.log_level
        method, params = request.method, request.params or {}
        if method in REMOVED or method.startswith(_TASKS):
            raise MethodNotFound(f"{method} is not available on this server.")
        if level and level not in LEVELS:
            raise InvalidParams("The log level is none of the specification's.")
        if method in ASKING and "requestState" in params:
            answers = _answers(params)
            if self._resumed(post, answer, answers):
                return
            if _declined(answers):
                answer.complete(ErrorResponse(request.id, INTERNAL_ERROR, "The user declined."))
                return
        session = await self._session(post)
        if answer.over:
            return
        post.inbound.notes["session"] = session.session.label
        if method == DISCOVER:
            answer.complete(Response(request.id, discovered(session.initialized)))
            return
        if method == _COMPLETION and not has(session.capabilities, "completions"):
            raise MethodNotFound("The server completes nothing.")
        call = BridgedCall(self._lot, session, post, answer)
        if level and has(session.capabilities, "logging"):
            call.want_level(call.send)
        else:
            call.send()

    def _resumed(
        self, post: ModernPost, answer: ModernAnswer, answers: Mapping[str, Mapping[str, object]]
    ) -> bool:
        """Go on with a parked call; False when the call has to be sent anew."""
        principal = post.caller.principal
        state = (post.request.params or {}).get("requestState")
        handle = self._lot.seal.open(state, principal, post.spec.name, post.request)
        if not handle:
            return False
        call = self._lot.parked.find(principal, handle)
        if call is None:
            raise InvalidState
        call.resume(post, answer, answers)
        return True

    async def _session(self, post: ModernPost) -> GateSession:
        powers = Powers.of(post.context.capabilities)
        return await self._sessions.get(post.caller, post.spec, powers, post.inbound)

    def _not_called(self, failure: Failure, post: ModernPost, answer: ModernAnswer) -> None:
        error = failure.value
        if isinstance(error, NotOpenedError):
            told = error.response
            response = ErrorResponse(post.request.id, told.code, told.message, told.data)
            answer.say(response, _status(error.status) if post.request.method == DISCOVER else 200)
        else:
            answer.refuse(public(failure, post.inbound))

    # --- Listens ------------------------------------------------------------------------------

    async def _listen(self, post: ModernPost, listen: BridgedListen) -> None:
        session = await self._session(post)
        post.inbound.notes["session"] = session.session.label
        await listen.begin(session)

    def _listened(self, listen: BridgedListen) -> None:
        self._listens.pop(listen, None)

    def _not_heard(self, failure: Failure, post: ModernPost, listen: BridgedListen) -> None:
        if not post.inbound.started:
            # Its stream's place is given back by the listen itself.
            told = replace(post, release=lambda: None)
            answer = ModernAnswer(told, wheel=self._desk.wheel, keepalive_s=self._desk.keepalive_s)
            self._not_called(failure, post, answer)
        else:
            public(failure, post.inbound)
            post.inbound.abort()
        listen.end()


def _answers(params: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    """
    Read what a client answers.

    :raises InvalidParams: it is no object of objects.
    """
    found = params.get("inputResponses", {})
    if not isinstance(found, dict) or len(found) > _MAX_ANSWERS:
        raise InvalidParams("inputResponses must be an object.")
    if not all(isinstance(answer, dict) for answer in found.values()):
        raise InvalidParams("Each of inputResponses must be an object.")
    return found


def _declined(answers: Mapping[str, Mapping[str, object]]) -> bool:
    """Tell whether a user does not want to visit the pages a server asks for."""
    actions = [answer.get("action") for answer in answers.values()]
    return bool(actions) and all(action in ("decline", "cancel") for action in actions)


def _status(status: int) -> int:
    """
    Give the status of a failed discovery.

    A client that is told 4xx takes the server for an older one (protocol.md 2.9).
    """
    return status if status >= 500 else 503
