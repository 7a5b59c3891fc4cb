"""The answer to one request of a modern client, from what a legacy server says."""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.errors import GateError
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Response, encode, error_response
from mcpgate.mcp.modern import INPUT_REQUIRED
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.answer import Answer
from mcpgate.web.mcp.modern.post import ModernPost, keeps_status, status_of


class ModernAnswer:
    """
    One exchange of the client: events while they come, then one last word.

    Gives the request's slot back when that was said, or when the client has gone.

    :param gone: called once when the client goes before the last word.
    """

    def __init__(self, post: ModernPost, *, wheel: DeadlineWheel, keepalive_s: float) -> None:
        self._post = post
        self._gone: Callable[[], None] | None = None
        self._released = False
        self._answer = Answer(
            post.inbound,
            wheel=wheel,
            keepalive_s=keepalive_s,
            accepts=post.accepts,
            ids=[post.request.id],
        )
        post.inbound.on_gone(self._went)

    @property
    def over(self) -> bool:
        """Tell whether nothing more can be said."""
        return self._answer.over

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called if the client goes; it replaces an earlier one."""
        self._gone = callback

    def on_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Have the source paused while the client reads too slowly."""
        self._post.inbound.register_flow(pause, resume)

    def tell(self, notification: Notification) -> None:
        """Pass on what is not the last word; lost for a client that takes no event streams."""
        self._answer.stream(notification)

    def complete(self, response: Response | ErrorResponse) -> None:
        """Say the last word."""
        self.say(response, status_of(response.code) if isinstance(response, ErrorResponse) else 200)

    def ask(self, inputs: dict[str, dict[str, object]], state: str) -> None:
        """End with the question what the client has to say first."""
        result: dict[str, object] = {
            "resultType": INPUT_REQUIRED,
            "inputRequests": inputs,
            "requestState": state,
        }
        self.say(Response(self._post.request.id, result))

    def refuse(self, error: GateError) -> None:
        """Say that the gate can not do it, and why."""
        inbound = self._post.inbound
        inbound.notes["reason"] = error.reason
        request = self._post.request
        response = error_response(request.id, error, inbound.request_id)
        self.say(response, error.status if keeps_status(error, request.method) else 200)

    def say(self, response: Response | ErrorResponse, status: int = 200) -> None:
        """Say the last word, with a status that counts unless something was said already."""
        self._gone = None
        self._answer.whole(encode(response), status)
        self._release()

    def _went(self) -> None:
        gone, self._gone = self._gone, None
        self._release()
        if gone is not None:
            gone()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self._post.release()
