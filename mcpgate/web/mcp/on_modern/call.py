"""
One request of a legacy session at a modern server, with all the server asks its client meanwhile.

The order of things is the driver's (`mcpgate.mcp.driver`); here its commands are carried out.
That the client has gone is no reason to stop: in the legacy era that is not a cancellation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.gate.sessions import Session
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp.driver import (
    Answered,
    Ask,
    Cancelled,
    Command,
    Driver,
    Expired,
    Fail,
    Finish,
    Lost,
    Recall,
    Replied,
    Send,
    State,
    TakeBack,
)
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.mcp.methods import CANCELLED
from mcpgate.timing.wheel import Deadline
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.post import Post
from mcpgate.web.mcp.session_state import public

if TYPE_CHECKING:
    from mcpgate.web.mcp.on_modern.link import BridgedLink
    from mcpgate.web.mcp.on_modern.sessions import BridgedSpeaker

log = Logger()

#: A person may think about a question for this long.
ASK_S: Final = 600.0


@implementer(IMessageSink)
class _Try:
    """What is heard of one request to the server; of an older one nothing is."""

    def __init__(self, call: BridgedCall) -> None:
        self._call = call
        self.take_back: Callable[[], None] = lambda: None

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self._call.told(self, message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert isinstance(response, Response | ErrorResponse)
        self._call.answered(self, response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._call.lost(self, error)


class BridgedCall:
    """
    Sends, asks, sends again, and gives everything back once, however the request ends.

    :ivar request: what the client asked.
    """

    __slots__ = (
        "_answer",
        "_asked",
        "_driver",
        "_link",
        "_over",
        "_post",
        "_session",
        "_speaker",
        "_try",
        "request",
    )

    def __init__(
        self,
        speaker: BridgedSpeaker,
        post: Post,
        session: Session,
        request: Request,
        answer: Answer,
    ) -> None:
        self.request = request
        self._speaker = speaker
        self._post = post
        self._session = session
        self._answer = answer
        self._link: BridgedLink = speaker.link(session, post.spec, post.caller)
        self._try: _Try | None = None
        self._asked: dict[str, Deadline] = {}
        self._over = False
        self._driver = Driver(
            request, self._link.said(), session.record.revision, self._link.mint_ask
        )

    def begin(self) -> None:
        """Send the request."""
        self._session.in_use += 1
        self._link.calls[self] = None
        self._do(self._driver.begin())

    # --- From the client ------------------------------------------------------------------------

    def cancel(self) -> None:
        """Take the request back: the client cancelled it, or the session is over."""
        self._do(self._driver.receive(Cancelled()))

    def replied(self, response: Response | ErrorResponse) -> None:
        """Take the client's answer to something it was asked."""
        self._settle(str(response.id))
        self._do(self._driver.receive(Replied(response)))

    # --- From the server ------------------------------------------------------------------------

    def told(self, of: _Try, message: Message) -> None:
        """Pass on progress and logs, while they can belong to this request."""
        if of is self._try and isinstance(message, Notification):
            self._say(message)

    def answered(self, of: _Try, response: Response | ErrorResponse) -> None:
        """Take the server's answer."""
        if of is not self._try:
            return
        self._try = None
        if isinstance(response, ErrorResponse):
            self._speaker.doubt(self._post.spec, self._post.caller, response)
        elif self.request.method == "tools/list":
            self._speaker.listed(self._post.spec, self._link, response.result)
        self._do(self._driver.receive(Answered(response)))

    def lost(self, of: _Try, error: GateError) -> None:
        """Take note that there will be no answer."""
        if of is self._try:
            self._try = None
            self._speaker.doubt(self._post.spec, self._post.caller, error)
            self._do(self._driver.receive(Lost(error)))

    # --- Commands -------------------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(request):
                    self._send(request)
                case Ask(request):
                    self._ask(command.ask_id, request)
                case Recall(ask_id, reason):
                    self._recall(ask_id, reason)
                case TakeBack():
                    self._take_back()
                case Finish(response):
                    self._end(response)
                    self._answer.complete(response)
                case Fail(error):
                    self._end(error)
                    self._answer.fail(error, self.request.id)

    def _send(self, request: Request) -> None:
        trying = self._try = _Try(self)
        post = self._post
        fields = self._link.params_fields(request)
        try:
            take_back = self._speaker.ask(
                post.spec, post.caller, request, trying, source=post.inbound, params_fields=fields
            )
        except Exception:
            self.lost(trying, public(Failure(), post.inbound))
            return
        trying.take_back = take_back

    def _ask(self, ask_id: str, request: Request) -> None:
        if self._over:
            return
        self._link.asked[ask_id] = self
        self._asked[ask_id] = self._speaker.wheel.arm(ASK_S, lambda: self._due(ask_id))
        self._say(request)

    def _due(self, ask_id: str) -> None:
        self._do(self._driver.receive(Expired(ask_id)))

    def _recall(self, ask_id: str, reason: str) -> None:
        self._settle(ask_id)
        self._say(Notification(CANCELLED, {"requestId": ask_id, "reason": reason}))

    def _settle(self, ask_id: str) -> None:
        self._link.asked.pop(ask_id, None)
        deadline = self._asked.pop(ask_id, None)
        if deadline is not None:
            deadline.cancel()

    def _take_back(self) -> None:
        trying, self._try = self._try, None
        if trying is not None:
            trying.take_back()

    def _say(self, message: Message) -> None:
        if not self._answer.stream(message):
            # A client that takes JSON alone, or has gone, may have a stream open beside.
            self._link.say(message)

    def _end(self, outcome: Response | ErrorResponse | GateError) -> None:
        if self._over:
            return
        self._over = True
        assert self._driver.state is State.OVER
        self._link.calls.pop(self, None)
        self._session.in_use -= 1
        self._post.release()
        if isinstance(outcome, Response):
            self._speaker.served(self._post.spec, self._post.caller, self._session)
