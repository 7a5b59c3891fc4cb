"""
The conversation of one modern call with a legacy server: events in, commands out.

A legacy server asks its client in the middle of a call; a modern client is asked by ending its
exchange with ``input_required``, and answers in a new one.  In between the call is parked here,
its answer not given yet.  Nothing here waits, sends or keeps time: who drives it does.

.. code-block:: text

    WORKING ---Asked---> COLLECTING ---Collected---> PARKED ---Retried---> WORKING
       |                     |                          |
       +---- Answered, Failed, Gone, Expired ----------> OVER
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mcpgate.errors import GateError, MissingCapability
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.log_levels import is_severe
from mcpgate.mcp.methods import LOG_MESSAGE, PROGRESS
from mcpgate.mcp.modern import ASKING
from mcpgate.mcp.to_modern import (
    ELICIT,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    Powers,
    completed,
    failed,
    input_answer,
    input_request,
    is_failure,
    is_input,
    url_inputs,
)

# A server that asks more than this within one call is refused the rest.
MAX_INPUTS: Final = 16

# --- Events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """The server asks its client something."""

    request: Request


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The server takes a request of its own back."""

    request_id: object


@dataclass(frozen=True, slots=True)
class Told:
    """The server reports progress, or writes a log line."""

    notification: Notification


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answers the call."""

    response: Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no answer of the server."""

    error: GateError


@dataclass(frozen=True, slots=True)
class Collected:
    """The moment is over in which further requests of the server were waited for."""


@dataclass(frozen=True, slots=True)
class Retried:
    """
    The client came back.

    :ivar client: who is answered from here on.
    :ivar answers: by the keys it was given.
    """

    client: Client
    answers: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Gone:
    """The client has gone: in the modern era that cancels its call."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody came back in time, or nobody can any more."""

    reason: str = "The client did not come back."


Event = Asked | Withdrawn | Told | Answered | Failed | Collected | Retried | Gone | Expired

# --- Commands ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pass:
    """Tell the client within its exchange."""

    notification: Notification


@dataclass(frozen=True, slots=True)
class Complete:
    """End the client's exchange with the answer."""

    response: Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Refuse:
    """End the client's exchange with a failure of the gate."""

    error: GateError


@dataclass(frozen=True, slots=True)
class Ask:
    """
    End the client's exchange with ``input_required``.

    :ivar inputs: input requests by key.
    :ivar again: the call is over at the server, and has to be sent anew when the client is back.
    """

    inputs: dict[str, dict[str, object]]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request of the server."""

    response: Response | ErrorResponse


@dataclass(frozen=True, slots=True)
class Collect:
    """Wait a moment for further requests of the server, then tell `Collected`."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell the server that nobody wants the answer any more."""

    reason: str


Command = Pass | Complete | Refuse | Ask | Reply | Collect | Cancel


class Place(Enum):
    """Where a conversation is."""

    WORKING = "working"
    COLLECTING = "collecting"
    PARKED = "parked"
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """
    Who is answered: one exchange of the client.

    :ivar id: of its request.
    :ivar powers: what it can be asked.
    :ivar token: its progress token; None when it wants no progress.
    :ivar log_level: least severity of the log lines it wants; empty for none.
    """

    id: int | str
    powers: Powers
    token: object = None
    log_level: str = ""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """
    See the module.

    :ivar method: of the call.
    :ivar client: who is answered now, or was last.
    :ivar server: who the server says it is, for results.
    """

    method: str
    client: Client
    server: Mapping[str, object] | None = None
    place: Place = Place.WORKING
    _pending: dict[str, Request] = field(default_factory=dict)
    _asked: int = 0
    _unable: list[Request] = field(default_factory=list)
    _missing: dict[str, object] = field(default_factory=dict)
    _held: Answered | Failed | None = None

    @property
    def attached(self) -> bool:
        """Tell whether an exchange of the client waits."""
        return self.place in (Place.WORKING, Place.COLLECTING)

    @property
    def over(self) -> bool:
        """Tell whether nothing more will come of it."""
        return self.place is Place.OVER

    @property
    def may_ask(self) -> bool:
        """Tell whether the server may be about to ask something within it: it is not parked."""
        return self.attached and self.method in ASKING

    def waits_for(self, request_id: object) -> bool:
        """Tell whether a request of the server with this id was not answered yet."""
        waiting = (*self._pending.values(), *self._unable)
        return any(_same(request.id, request_id) for request in waiting)

    def take(self, event: Event) -> list[Command]:
        """Take an event; give what is to be done, in order."""
        return list(self._take(event))

    def _take(self, event: Event) -> Iterator[Command]:
        if self.place is Place.OVER:
            if isinstance(event, Asked):
                yield _refusal(event.request, METHOD_NOT_FOUND, "The call is over.")
        elif isinstance(event, Asked):
            yield from self._take_ask(event.request)
        elif isinstance(event, Withdrawn):
            self._pending = {
                key: request
                for key, request in self._pending.items()
                if not _same(request.id, event.request_id)
            }
            self._unable = [
                request for request in self._unable if not _same(request.id, event.request_id)
            ]
        elif isinstance(event, Told):
            yield from self._take_told(event.notification)
        elif isinstance(event, Answered | Failed):
            if self.attached:
                yield from self._finish(event)
            else:
                self._held = event
        elif isinstance(event, Collected):
            yield from self._take_collected()
        elif isinstance(event, Retried):
            yield from self._take_retry(event)
        elif isinstance(event, Gone):
            if self.attached:
                yield from self._give_up("The client has gone.")
        elif not self.attached:
            yield from self._give_up(event.reason)

    def _take_ask(self, request: Request) -> Iterator[Command]:
        if self.method not in ASKING or not is_input(request):
            yield _refusal(request, METHOD_NOT_FOUND, "The client can not be asked this here.")
            return
        if len(self._pending) + len(self._unable) >= MAX_INPUTS:
            yield _refusal(request, INTERNAL_ERROR, "Too many requests wait for the client.")
            return
        if self.client.powers.lacking(request) is not None:
            # Refused a moment later: many a server gives up what else it asks with the first
            # refusal, and the client could have been asked that.
            self._unable.append(request)
        else:
            self._asked += 1
            self._pending[f"{request.method.partition('/')[0]}-{self._asked}"] = request
        if self.place is Place.WORKING:
            self.place = Place.COLLECTING
            yield Collect()

    def _take_told(self, notification: Notification) -> Iterator[Command]:
        if not self.attached:
            return
        params = notification.params or {}
        if notification.method == PROGRESS:
            if self.client.token is not None:
                told = {**params, "progressToken": self.client.token}
                yield Pass(Notification(PROGRESS, told))
        elif notification.method == LOG_MESSAGE:
            if is_severe(self.client.log_level, params.get("level")):
                yield Pass(notification)

    def _take_collected(self) -> Iterator[Command]:
        if self.place is not Place.COLLECTING:
            return
        if not self._pending:
            self.place = Place.WORKING
            yield from self._refuse_unable()
            return
        self.place = Place.PARKED
        yield Ask(
            {
                key: input_request(request.method, request.params)
                for key, request in self._pending.items()
            }
        )

    def _take_retry(self, event: Retried) -> Iterator[Command]:
        if self.place is not Place.PARKED:
            return
        self.client = event.client
        self.place = Place.WORKING
        for key, answer in event.answers.items():
            request = self._pending.pop(key, None)
            if request is not None:
                yield Reply(Response(request.id, input_answer(answer)))
        yield from self._refuse_unable()
        if self._held is not None:
            yield from self._finish(self._held)
        elif self._pending:
            # What was answered may be all the server needs; else the client is asked again.
            self.place = Place.COLLECTING
            yield Collect()

    def _refuse_unable(self) -> Iterator[Command]:
        """Refuse what the client did not declare; if the call fails of it the client learns why."""
        unable, self._unable = self._unable, []
        for request in unable:
            lacking = self.client.powers.lacking(request) or {}
            self._missing = _merged(self._missing, lacking)
            yield _refusal(request, METHOD_NOT_FOUND, "The client did not declare this capability.")

    def _finish(self, event: Answered | Failed) -> Iterator[Command]:
        self.place = Place.OVER
        if isinstance(event, Failed):
            yield Refuse(event.error)
            return
        response = event.response
        missing = self._missing
        urls: list[dict[str, object]] = []
        if isinstance(response, ErrorResponse) and self.method in ASKING:
            urls = url_inputs(response)
            if urls and not self.client.powers.url:
                missing = _merged(missing, {"elicitation": {"url": {}}})
        if missing and is_failure(response):
            yield Refuse(MissingCapability(data={"requiredCapabilities": missing}))
        elif urls:
            yield Ask({f"url-{number}": url for number, url in enumerate(urls, 1)}, again=True)
        elif isinstance(response, Response):
            result = completed(self.method, response.result, self.server)
            yield Complete(Response(self.client.id, result))
        else:
            error = failed(self.method, response)
            yield Complete(ErrorResponse(self.client.id, error.code, error.message, error.data))

    def _give_up(self, reason: str) -> Iterator[Command]:
        self.place = Place.OVER
        if self._held is not None:
            return
        yield Cancel(reason)
        for request in (*self._pending.values(), *self._unable):
            if request.method == ELICIT:
                yield Reply(Response(request.id, {"action": "cancel"}))
            else:
                yield _refusal(request, INTERNAL_ERROR, reason)


def _refusal(request: Request, code: int, text: str) -> Reply:
    return Reply(ErrorResponse(request.id, code, text))


def _same(own: int | str, given: object) -> bool:
    return own == given and type(own) is type(given)


def _merged(known: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Join two sets of capabilities."""
    out = dict(known)
    for name, parts in more.items():
        old = out.get(name)
        both = isinstance(old, dict) and isinstance(parts, dict)
        out[name] = {**old, **parts} if both else parts  # type: ignore[dict-item]
    return out
