"""
One call of a modern client on its way through a legacy session, over as many exchanges as it takes.

What follows what is decided in `mcpgate.mcp.parking`; here are the server's request, the client's
exchange, the timers, and the place among the parked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mcpgate.errors import BackendDied, GateError, Overloaded
from mcpgate.mcp import parking
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.mcp.methods import LOG_MESSAGE
from mcpgate.mcp.modern import meta_of, unstamped
from mcpgate.mcp.parking import Client, Conversation
from mcpgate.mcp.to_modern import Powers, server_info
from mcpgate.timing.wheel import Deadline
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.on_legacy.answering import ModernAnswer
from mcpgate.web.mcp.on_legacy.parked import Parked
from mcpgate.web.mcp.on_legacy.request_state import Seal, original
from mcpgate.web.mcp.on_legacy.session import GateSession

log = Logger()

# After a server's first question others are waited for a moment: they go to the client together.
COLLECT_S: Final = 0.05
# A client, and the person behind it, may take so long to answer; the server may wait shorter.
PARKED_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Lot:
    """Where calls are parked, and how their clients find them again."""

    parked: Parked[BridgedCall]
    seal: Seal


def client_of(post: ModernPost) -> Client:
    """Tell who is answered by answering this request."""
    return Client(
        id=post.request.id,
        powers=Powers.of(post.context.capabilities),
        token=meta_of(post.request).get("progressToken"),
        log_level=post.context.log_level,
    )


class BridgedCall:
    """See the module, and `mcpgate.web.mcp.on_legacy.session.InWork`."""

    def __init__(
        self, lot: Lot, session: GateSession, post: ModernPost, answer: ModernAnswer
    ) -> None:
        self._lot = lot
        self._session = session
        self._post = post
        self._answer: ModernAnswer | None = None
        self._id = session.desk.mint()
        self._token = session.desk.mint()
        self._errand: Errand | None = None
        self._handle = ""
        self._expiry: Deadline | None = None
        self._collecting: IDelayedCall | None = None
        self._over = False
        self._conversation = Conversation(
            method=post.request.method,
            client=client_of(post),
            server=server_info(session.initialized),
        )
        session.begin(self, self._token)
        self._attach(answer)

    # --- The client ---------------------------------------------------------------------------

    def send(self) -> None:
        """Send the call to the server, unless the client has gone."""
        if self._over:
            return
        request = self._post.request
        params = unstamped(original(request))
        meta = (params or {}).get("_meta")
        if isinstance(meta, dict) and "progressToken" in meta:
            params = {**(params or {}), "_meta": {**meta, "progressToken": self._token}}
        errand = self._session.send(
            Request(self._id, request.method, params),
            told=self._heard,
            ended=self._ended,
            source=self._post.inbound,
        )
        self._errand = errand
        if self._over:
            errand.give_up()
        elif self._answer is not None:
            self._answer.on_flow(errand.pause, errand.resume)

    def resume(
        self, post: ModernPost, answer: ModernAnswer, answers: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Go on with a client that came back."""
        self._unpark()
        self._post = post
        self._attach(answer)
        errand = self._errand
        if errand is not None:
            answer.on_flow(errand.pause, errand.resume)
        if post.context.log_level:
            self._session.want_level(self, post.context.log_level)
        self._take(parking.Retried(client_of(post), answers))
        if answer.over:
            self._take(parking.Gone())
        if errand is not None and not self._over:
            errand.resume()

    def expire(self, reason: str) -> None:
        """Give a parked call up."""
        self._unpark()
        self._take(parking.Expired(reason))

    def want_level(self, then: Callable[[], None]) -> None:
        """Have the server write the lines the client wants, then go on."""
        setting = self._session.want_level(self, self._post.context.log_level)
        setting.addCallback(lambda _: then())
        setting.addErrback(lambda failure: log.failure("A call could not be sent", failure))

    def _attach(self, answer: ModernAnswer) -> None:
        self._answer = answer
        answer.on_gone(lambda: self._take(parking.Gone()))

    # --- The server ---------------------------------------------------------------------------

    def asked(self, request: Request) -> None:
        """See `InWork.asked`."""
        self._take(parking.Asked(request))

    def told(self, notification: Notification) -> None:
        """See `InWork.told`."""
        self._take(parking.Told(notification))

    @property
    def may_ask(self) -> bool:
        """See `InWork.may_ask`."""
        return self._conversation.may_ask

    def waits_for(self, request_id: object) -> bool:
        """See `InWork.waits_for`."""
        return self._conversation.waits_for(request_id)

    def withdrawn(self, request_id: object) -> None:
        """See `InWork.withdrawn`."""
        self._take(parking.Withdrawn(request_id))

    def _heard(self, message: Message) -> None:
        if isinstance(message, Response | ErrorResponse):
            # An error may come under another id or none: it belongs to the exchange.
            if message.id == self._id or isinstance(message, ErrorResponse):
                self._take(parking.Answered(message))
        elif isinstance(message, Request) and message.method != "ping":
            self.asked(message)
        elif isinstance(message, Notification) and message.method == LOG_MESSAGE:
            self.told(message)
        else:
            self._session.unsolicited(message)

    def _ended(self) -> None:
        if not self._conversation.over:
            self._take(parking.Failed(BackendDied("The server gave no answer to this call.")))

    # --- What is to be done -------------------------------------------------------------------

    def _take(self, event: parking.Event) -> None:
        for command in self._conversation.take(event):
            self._do(command)
        if self._conversation.over:
            self._finish()

    def _do(self, command: parking.Command) -> None:
        answer = self._answer
        if isinstance(command, parking.Reply):
            if not self._session.reply(command.response) and not self._conversation.over:
                self._session.desk.clock.callLater(0, self._unanswerable)
        elif isinstance(command, parking.Collect):
            self._collecting = self._session.desk.clock.callLater(COLLECT_S, self._collected)
        elif isinstance(command, parking.Cancel):
            self._cancel(command.reason)
        elif answer is None:
            pass
        elif isinstance(command, parking.Pass):
            answer.tell(command.notification)
        elif isinstance(command, parking.Complete):
            answer.complete(command.response)
        elif isinstance(command, parking.Refuse):
            answer.refuse(command.error)
        else:
            self._ask(answer, command)

    def _collected(self) -> None:
        self._collecting = None
        self._take(parking.Collected())

    def _unanswerable(self) -> None:
        if not self._over:
            error = Overloaded("The server does not read its input.", retry_after_s=1.0)
            self._take(parking.Failed(error))
            self._cancel("The server does not read its input.")

    def _ask(self, answer: ModernAnswer, command: parking.Ask) -> None:
        session, post = self._session, self._post
        principal = session.caller.principal
        self._answer = None
        try:
            if not command.again:
                self._handle = self._lot.parked.add(principal, self)
        except GateError as error:
            answer.refuse(error)
            self._take(parking.Expired(error.detail))
            return
        valid_s = min(PARKED_S, session.spec.call_timeout_max_s)
        state = self._lot.seal.close(
            self._handle, principal, session.spec.name, post.request, valid_s
        )
        if not command.again:
            self._expiry = session.desk.wheel.arm(
                valid_s, lambda: self.expire("The client did not come back.")
            )
            if self._errand is not None:
                # Nobody is there to be told, and a person may take long: no deadline meanwhile
                # but the call's last.
                self._errand.pause()
        answer.ask(command.inputs, state)

    def _unpark(self) -> None:
        self._lot.parked.remove(self._handle)
        self._handle = ""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _cancel(self, reason: str) -> None:
        errand = self._errand
        if errand is not None and not errand.finished:
            self._session.cancel(self._id, reason)
            errand.give_up()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._unpark()
        if self._collecting is not None:
            self._collecting.cancel()
            self._collecting = None
        self._session.end(self, self._token)
