"""
One request of a legacy client at a modern server: the loop that answers ``input_required``.

A modern server can not ask a client anything; it answers a request with what it needs to know,
and wants the request again with the answers.  A legacy client can be asked, while its request is
open.  So here: events in, commands out; whoever owns the wires carries the commands out.  No
clock, no ids of its own, no bytes.

::

    WORKING  --Answered(input_required)-->  ASKING     Ask, Ask ..
    ASKING   --Replied, the last one---->   WORKING    Send, with the answers
    WORKING  --Answered(complete)------->   OVER       Finish
    any      --Expired, Cancelled, Lost-->  OVER       Recall .., and what is to be said
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mcpgate.errors import BadBackendAnswer, CallCancelled, GateError
from mcpgate.mcp import to_legacy
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response
from mcpgate.mcp.methods import CAPABILITY_FOR
from mcpgate.mcp.modern import ASKING, COMPLETE, INPUT_REQUIRED, Context

MAX_ROUNDS: Final = 10
# What one answer may ask at once; servers ask for one or two things.
MAX_QUESTIONS: Final = 16


# --- Events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answered what was sent last."""

    response: Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Replied:
    """The client answered what it was asked; ``response`` carries the id of the `Ask`."""

    response: Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Expired:
    """The client did not answer in time."""

    ask_id: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client took its request back, or its session is over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There will be no answer of the server to what was sent last."""

    error: GateError


Event = Answered | Replied | Expired | Cancelled | Lost


# --- Commands ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Put this to the server; the last one sent is answered."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the client this, within its request, and wait for so long as one may."""

    request: Request

    @property
    def ask_id(self) -> str:
        """The id under which the client answers."""
        return str(self.request.id)


@dataclass(frozen=True, slots=True)
class Recall:
    """The client need not answer this any more; tell it, and wait no longer."""

    ask_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Tell the server that what was sent last is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Give the client its answer.  Nothing comes after it."""

    response: Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Fail:
    """Give the client a failure of the gate.  Nothing comes after it."""

    error: GateError


Command = Send | Ask | Recall | TakeBack | Finish | Fail


# --- The loop ---------------------------------------------------------------------------------


class State(Enum):
    """Whose turn it is."""

    WORKING = "working"
    ASKING = "asking"
    OVER = "over"


class UnaskableError(Exception):
    """What the server asks for can not be asked of this client; the text tells it."""


class Driver:
    """
    The life of one request.

    :param request: the client's.
    :param said: what is told of the client with every try.
    :param revision: of the client's session.
    :param mint: gives ids for what the client is asked; no other of its session is the same.
    :ivar state: whose turn it is.
    :ivar sent: what was put to the server last.
    """

    def __init__(
        self, request: Request, said: Context, revision: str, mint: Callable[[], str]
    ) -> None:
        self.state = State.WORKING
        self.sent = request
        self._request = request
        self._said = said
        self._revision = revision
        self._mint = mint
        self._round = 0
        # The id of an `Ask` -> the server's key for it, while the client has not answered.
        self._open: dict[str, str] = {}
        self._replies: dict[str, object] = {}
        self._request_state: object = None

    def begin(self) -> list[Command]:
        """Give the first command."""
        return [self._send({})]

    def receive(self, event: Event) -> list[Command]:
        """Take an event; give what is to be done about it, in order."""
        react = _TABLE.get((self.state, type(event)))
        return react(self, event) if react is not None else []

    # --- The server's turn ----------------------------------------------------------------------

    def _answered(self, event: Event) -> list[Command]:
        assert isinstance(event, Answered)
        response = event.response
        if isinstance(response, ErrorResponse):
            return self._finish(to_legacy.error(self._request, response))
        kind = response.result.get("resultType", COMPLETE)
        if kind == INPUT_REQUIRED and self._request.method in ASKING:
            return self._required(response.result)
        if kind != COMPLETE:
            # Tasks and what else is never declared.  A result of a kind nobody knows must not
            # look like an empty success.
            error = BadBackendAnswer(f"The server answered with a result of kind {kind!r:.40}.")
            return self._over([Fail(error)])
        result = to_legacy.result(self._request.method, response.result, self._revision)
        return self._finish(Response(self._request.id, result))

    def _required(self, result: Mapping[str, object]) -> list[Command]:
        questions = result.get("inputRequests", {})
        self._request_state = result.get("requestState")
        if not isinstance(questions, dict) or not (questions or self._request_state is not None):
            error = BadBackendAnswer("The server requires input and does not say which.")
            return self._over([Fail(error)])
        if self._round > MAX_ROUNDS:
            return self._give_up(f"The server asked for input more than {MAX_ROUNDS} times.")
        if len(questions) > MAX_QUESTIONS:
            return self._give_up("The server asks for too much at once.")
        try:
            asks = [(key, self._question(question)) for key, question in questions.items()]
        except UnaskableError as refusal:
            return self._give_up(str(refusal))
        self._replies = {}
        if not asks:
            return [self._send({})]
        self.state = State.ASKING
        self._open = {ask.ask_id: key for key, ask in asks}
        return [ask for _, ask in asks]

    def _question(self, question: object) -> Ask:
        if not isinstance(question, dict):
            raise UnaskableError("The server asks for input in a form that can not be read.")
        method, params = question.get("method"), question.get("params")
        needed = CAPABILITY_FOR.get(method) if isinstance(method, str) else None
        if needed is None:
            raise UnaskableError("The server asks the client for something that MCP does not have.")
        params = dict(params) if isinstance(params, dict) else {}
        ask_id = self._mint()
        declared = self._said.capabilities.get(needed)
        if needed == "elicitation":
            params = self._elicitation(params, declared, ask_id)
        elif declared is None:
            raise UnaskableError(f"The server asks for {needed}, which the client does not have.")
        return Ask(Request(ask_id, str(method), params or None))

    def _elicitation(
        self, params: dict[str, object], declared: object, ask_id: str
    ) -> dict[str, object]:
        modes = declared if isinstance(declared, dict) else {}
        if params.get("mode") == "url":
            if "url" not in modes:
                # A person can still open it.
                said = f"{params.get('message', '')}\n{params.get('url', '')}".strip()
                raise UnaskableError(f"Open this address, then call again.\n{said}")
            return {**params, "elicitationId": ask_id}
        if "form" not in modes:
            raise UnaskableError("The server asks for elicitation, which the client does not have.")
        if self._revision < "2025-11-25":
            params.pop("mode", None)
        return params

    # --- The client's turn ----------------------------------------------------------------------

    def _replied(self, event: Event) -> list[Command]:
        assert isinstance(event, Replied)
        response = event.response
        key = self._open.pop(str(response.id), None)
        if key is None:
            return []
        if isinstance(response, ErrorResponse):
            return self._give_up(f"The client did not give what was asked: {response.message}")
        self._replies[key] = response.result
        if self._open:
            return []
        self.state = State.WORKING
        return [self._send({"inputResponses": self._replies})]

    def _expired(self, event: Event) -> list[Command]:
        assert isinstance(event, Expired)
        if event.ask_id not in self._open:
            return []
        return self._give_up("The client did not answer in time.")

    # --- Ends -----------------------------------------------------------------------------------

    def _cancelled(self, _: Event) -> list[Command]:
        last: list[Command] = [TakeBack()] if self.state is State.WORKING else []
        return self._over([*last, Fail(CallCancelled())])

    def _lost(self, event: Event) -> list[Command]:
        assert isinstance(event, Lost)
        return self._over([Fail(event.error)])

    def _give_up(self, text: str) -> list[Command]:
        return self._finish(to_legacy.failed(self._request, text))

    def _finish(self, response: Response | ErrorResponse) -> list[Command]:
        return self._over([Finish(response)])

    def _over(self, last: list[Command]) -> list[Command]:
        recalled: list[Command] = [Recall(ask_id, "The request is over.") for ask_id in self._open]
        self._open = {}
        self.state = State.OVER
        return recalled + last

    def _send(self, extra: dict[str, object]) -> Send:
        """Give the next try: the client's own words, with what the server wanted beside them."""
        self._round += 1
        request = to_legacy.request(self._request, self._said, self._round)
        params = {**(request.params or {}), **extra}
        # Echoed as it came, and never one that was not given.
        if self._request_state is not None:
            params["requestState"] = self._request_state
        self.sent = Request(request.id, request.method, params)
        return Send(self.sent)


_TABLE: Final[dict[tuple[State, type[Event]], Callable[[Driver, Event], list[Command]]]] = {
    (State.WORKING, Answered): Driver._answered,
    (State.WORKING, Lost): Driver._lost,
    (State.WORKING, Cancelled): Driver._cancelled,
    (State.ASKING, Replied): Driver._replied,
    (State.ASKING, Expired): Driver._expired,
    (State.ASKING, Cancelled): Driver._cancelled,
}
