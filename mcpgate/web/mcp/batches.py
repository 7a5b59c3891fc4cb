"""
Arrays of messages of revision 2025-03-26, taken apart for servers over HTTP.

Most servers do not take them, whatever revision they agreed to (protocol.md 1.5): each element
goes up by itself, and the answers come down together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mcpgate.errors import BadBackendAnswer
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    encode,
)
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.over_http.fetch import messages_in
from mcpgate.web.mcp.post import Post
from mcpgate.web.mcp.session_state import with_id


class Batch:
    """
    One array on its way.

    :param answer: of the array as a whole.
    :param tell: takes a post of one notification or response; ``call``: of one request.
    """

    def __init__(
        self,
        post: Post,
        answer: Answer,
        *,
        tell: Callable[[Post], None],
        call: Callable[[Post], None],
    ) -> None:
        self._post = post
        self._answer = answer
        self._tell = tell
        self._call = call
        self._errands: dict[Errand, None] = {}

    def begin(self) -> None:
        """Send every element."""
        inbound = self._post.inbound
        inbound.register_flow(self._pause, self._resume)
        inbound.on_gone(self._resume)
        tell_each(self._post, self._tell)
        for request in self._post.requests:
            errand = self._asking(request)
            self._errands[errand] = None
            self._call(_single(self._post, request, errand))

    def _asking(self, request: Request) -> Errand:
        def told(data: bytes) -> None:
            for message in messages_in(data):
                self._heard(request, message)

        def ended(errand: Errand) -> None:
            self._errands.pop(errand, None)
            # Does nothing where the answer was heard.
            self._answer.fail(BadBackendAnswer(), request.id)

        return _errand(self._post, told, ended)

    def _heard(self, request: Request, message: Message) -> None:
        if isinstance(message, Response | ErrorResponse):
            self._answer.complete(with_id(message, request.id))
        else:
            self._answer.stream(message)

    def _pause(self) -> None:
        for errand in self._errands:
            errand.pause()

    def _resume(self) -> None:
        for errand in tuple(self._errands):
            errand.resume()


def tell_each(post: Post, tell: Callable[[Post], None]) -> None:
    """Hand on the notifications and responses of an array one by one; nobody waits for them."""
    for message in post.others:
        tell(_single(post, message, _errand(post, lambda _: None, lambda _: None)))


def _errand(post: Post, told: Callable[[bytes], None], ended: Callable[[Errand], None]) -> Errand:
    inbound = post.inbound
    return Errand(inbound.head, inbound.peer, inbound.request_id, told=told, ended=ended)


def _single(
    post: Post, message: Request | Notification | Response | ErrorResponse, errand: Errand
) -> Post:
    return replace(
        post,
        inbound=errand,
        body=encode(message),
        requests=(message,) if isinstance(message, Request) else (),
        others=() if isinstance(message, Request) else (message,),
        batch=False,
        accepts=(True, True),
    )
