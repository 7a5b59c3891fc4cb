"""One request of the gate's own to a modern server, its answer wanted and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Request, Response
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.mcp.modern.post import ModernAsker

Answered = Response | ErrorResponse


@implementer(IMessageSink)
class _Awaited:
    """Fires a Deferred with the last word."""

    def __init__(self) -> None:
        self.result: Deferred[Answered] = Deferred(self._give_up)
        self._take_back: Callable[[], None] | None = None
        self._over = False

    def sent(self, take_back: Callable[[], None]) -> None:
        """Keep how the request is taken back while there is no answer."""
        if not self._over:
            self._take_back = take_back

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`; nobody wants it."""

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert isinstance(response, Response | ErrorResponse)
        if not self._over:
            self._over = True
            self.result.callback(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        if not self._over:
            self._over = True
            self.result.errback(error)

    def _give_up(self, _: object) -> None:
        self._over = True
        if self._take_back is not None:
            self._take_back()


def ask_once(
    asker: ModernAsker,
    spec: ServerSpec,
    caller: Caller,
    request: Request,
    *,
    source: IInbound | None = None,
) -> Deferred[Answered]:
    """Ask a modern server; fails with a `GateError`.  Cancelling takes the request back."""
    awaited = _Awaited()
    awaited.sent(asker.ask(spec, caller, request, awaited, source=source))
    return awaited.result
