"""What a client hears of the start it waits for, if it asked to hear of progress."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.mcp.methods import PROGRESS
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.mcp.answer import Answer

T = TypeVar("T")

FIRST_S: Final = 1.0
"""A start that is over sooner is not worth an event stream."""

EVERY_S: Final = 5.0

_STEP: Final = 1000
"""Progress must grow, and goes on from here with what the server reports: so it grows little."""


class StartReport:
    """
    Sends ``notifications/progress`` for every request with a token, until `over`.

    :param server: its name, for the message.
    """

    __slots__ = ("_answer", "_count", "_deadline", "_message", "_tokens", "_wheel")

    def __init__(
        self, answer: Answer, server: str, requests: Iterable[Request], wheel: DeadlineWheel
    ) -> None:
        self._answer = answer
        self._message = f"starting server {server}"
        self._wheel = wheel
        self._count = 0
        self._deadline: Deadline | None = None
        self._tokens = [token for token in map(_token, requests) if token is not None]
        if self._tokens:
            self._deadline = wheel.arm(FIRST_S, self._tell)

    def over(self, result: T) -> T:
        """Say no more; passes through what it is given."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._tokens = []
        return result

    def _tell(self) -> None:
        self._deadline = None
        if self._answer.over:
            return
        progress = self._count / _STEP if self._count else 0
        self._count += 1
        for token in self._tokens:
            params: dict[str, object] = {
                "progressToken": token,
                "progress": progress,
                "message": self._message,
            }
            if not self._answer.stream(Notification(PROGRESS, params)):
                return  # This client takes JSON alone.
        if self._tokens:
            self._deadline = self._wheel.arm(EVERY_S, self._tell)


def _token(request: Request) -> int | str | None:
    meta = (request.params or {}).get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, int | str) else None
