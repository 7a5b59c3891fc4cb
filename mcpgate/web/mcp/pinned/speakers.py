"""
Speakers that hold lists of tools against what is trusted, and refuse calls of withheld tools.

They stand between the endpoints and whoever speaks to servers, once for each era, so that what a
client is told of tools has passed here, whichever way it came: over HTTP or stdio, from a server of
either era, out of a snapshot or a cache, alone or as one of a group.  Everything else goes on
untouched; of a call no more than its name is looked at, and that only where tools are blocked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mcpgate.errors import GateError, ToolWithheld
from mcpgate.gate.sessions import Session
from mcpgate.gate.tool_pins import PinBook
from mcpgate.mcp.jsonrpc import Request, encode, error_response
from mcpgate.mcp.methods import TOOLS_CALL, TOOLS_LIST
from mcpgate.model import Caller, Pinning, ServerSpec
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.batches import Batch
from mcpgate.web.mcp.modern.post import ModernPost, ModernSpeaker, keeps_status
from mcpgate.web.mcp.pinned.listing import PinnedListing
from mcpgate.web.mcp.post import Post, Speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What both need: the pins, and what answers are made with."""

    pins: PinBook
    wheel: DeadlineWheel
    keepalive_s: float

    def answer(self, post: Post | ModernPost, *requests: Request, batch: bool = False) -> Answer:
        """Make the answer to requests of a POST."""
        return Answer(
            post.inbound,
            wheel=self.wheel,
            keepalive_s=self.keepalive_s,
            accepts=post.accepts,
            ids=[request.id for request in requests],
            batch=batch,
        )

    def refusal(self, spec: ServerSpec, caller: Caller, request: Request) -> ToolWithheld | None:
        """Tell why a call is refused; None when it is not."""
        try:
            self.pins.check_call(spec, caller.principal, (request.params or {}).get("name"))
        except ToolWithheld as error:
            return error
        return None


class PinnedSpeaker:
    """
    See `mcpgate.web.mcp.post.Speaker`.

    :param inner: speaks to the server.
    """

    def __init__(self, desk: Desk, inner: Speaker) -> None:
        self._desk = desk
        self._inner = inner
        self.tell = inner.tell
        self.listen = inner.listen
        self.ready = inner.ready
        self.end = inner.end
        self.initialize = inner.initialize

    def call(self, post: Post, session: Session) -> None:
        """See `Speaker.call`."""
        if post.batch:
            blocks = post.spec.tools_pinned is Pinning.BLOCK
            concerned = (TOOLS_LIST, TOOLS_CALL) if blocks else (TOOLS_LIST,)
            if any(request.method in concerned for request in post.requests):
                self._take_apart(post, session)
            else:
                self._inner.call(post, session)
            return
        (request,) = post.requests
        method = request.method
        if method == TOOLS_LIST:
            self._list(post, session, request)
            return
        if method == TOOLS_CALL and post.spec.tools_pinned is Pinning.BLOCK:
            error = self._desk.refusal(post.spec, post.caller, request)
            if error is not None:
                post.release()
                self._desk.answer(post, request).fail(error, request.id)
                return
        self._inner.call(post, session)

    def _take_apart(self, post: Post, session: Session) -> None:
        Batch(
            post,
            self._desk.answer(post, *post.requests, batch=True),
            tell=lambda single: self._inner.tell(single, session),
            call=lambda single: self.call(single, session),
        ).begin()

    def _list(self, post: Post, session: Session, request: Request) -> None:
        answer = self._desk.answer(post, request)

        def refuse(error: GateError) -> None:
            answer.fail(error, request.id)

        listing = PinnedListing(
            self._desk.pins,
            post.spec,
            post.caller.principal,
            request,
            post.inbound,
            answer,
            refuse,
        )
        # A list is nobody's work: it need not be finished for a client that has gone.
        post.inbound.on_gone(listing.errand.give_up)
        self._inner.call(replace(post, inbound=listing.errand, accepts=(True, True)), session)


class PinnedModernSpeaker:
    """
    See `mcpgate.web.mcp.modern.post.ModernSpeaker`.

    :param inner: carries requests to the server.
    """

    def __init__(self, desk: Desk, inner: ModernSpeaker) -> None:
        self._desk = desk
        self._inner = inner
        self.listen = inner.listen

    def call(self, post: ModernPost) -> None:
        """See `ModernSpeaker.call`."""
        request, pinned = post.request, post.spec.tools_pinned
        if pinned is not Pinning.OFF:
            if request.method == TOOLS_LIST:
                self._list(post, request)
                return
            if request.method == TOOLS_CALL and pinned is Pinning.BLOCK:
                error = self._desk.refusal(post.spec, post.caller, request)
                if error is not None:
                    post.release()
                    self._refuse(post, self._desk.answer(post, request), error)
                    return
        self._inner.call(post)

    def _list(self, post: ModernPost, request: Request) -> None:
        answer = self._desk.answer(post, request)
        listing = PinnedListing(
            self._desk.pins,
            post.spec,
            post.caller.principal,
            request,
            post.inbound,
            answer,
            lambda error: self._refuse(post, answer, error),
        )
        post.inbound.on_gone(listing.errand.give_up)
        self._inner.call(replace(post, inbound=listing.errand, accepts=(True, True)))

    @staticmethod
    def _refuse(post: ModernPost, answer: Answer, error: GateError) -> None:
        inbound, request = post.inbound, post.request
        inbound.notes["reason"] = error.reason
        told = error_response(request.id, error, inbound.request_id)
        status = error.status if keeps_status(error, request.method) else 200
        answer.whole(encode(told), status)


def pinned(desk: Desk, speaker: Callable[[ServerSpec], Speaker]) -> Callable[[ServerSpec], Speaker]:
    """Make of what gives the speaker of a server what gives the one that watches over its tools."""
    made: dict[Speaker, PinnedSpeaker] = {}

    def choose(spec: ServerSpec) -> Speaker:
        inner = speaker(spec)
        if spec.tools_pinned is Pinning.OFF:
            return inner
        known = made.get(inner)
        if known is None:
            known = made[inner] = PinnedSpeaker(desk, inner)
        return known

    return choose
