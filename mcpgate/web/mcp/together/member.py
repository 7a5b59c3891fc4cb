"""
One server of a group, asked in the words of the modern era whatever its own is.

The question goes the way a client's would: to whoever carries modern requests to that server.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable, GateError, Internal
from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    encode,
)
from mcpgate.mcp.methods import LISTEN
from mcpgate.mcp.modern import Context
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.modern.post import ModernPost, ModernSpeaker
from mcpgate.web.mcp.over_http.fetch import messages_in
from mcpgate.web.mcp.session_state import public, with_id

_NOBODY = Peer("", secure=True)


class Members:
    """
    The servers of every group.

    :param speaker: carries modern requests to a server of either era.
    """

    def __init__(self, speaker: ModernSpeaker) -> None:
        self._speaker = speaker

    def ask(
        self,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        source: IInbound | None,
    ) -> Callable[[], None]:
        """Put a request to one server; see `ModernAsker.ask`."""
        asking = _Asking(spec, request, sink, source)
        post = ModernPost(
            inbound=asking.errand,
            caller=caller,
            spec=spec,
            body=encode(request),
            request=request,
            context=Context.of(request),
            accepts=(True, True),
            release=lambda: None,
        )
        try:
            if request.method == LISTEN:
                self._speaker.listen(post)
            else:
                self._speaker.call(post)
        except Exception:
            asking.refused(Failure())
        return asking.errand.give_up

    def answer(
        self, spec: ServerSpec, caller: Caller, request: Request, source: IInbound | None
    ) -> Deferred[Response]:
        """
        Put a request to one server and wait for its result.

        Fails with a `GateError`, or `RefusedError` with the server's own error.  Cancelling takes
        the request back.
        """
        sink = _OneResult()
        sink.taken_back = self.ask(spec, caller, request, sink, source)
        return sink.answered


class RefusedError(Exception):
    """
    The server answered with an error.

    :ivar response: that error.
    """

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.message)
        self.response = response


class _Asking:
    """One request under way: its answer read back into messages."""

    def __init__(
        self, spec: ServerSpec, request: Request, sink: IMessageSink, source: IInbound | None
    ) -> None:
        self._spec = spec
        self._request = request
        self._sink: IMessageSink | None = sink
        head = source.head if source is not None else _own_head(spec)
        self.errand = Errand(
            head,
            source.peer if source is not None else _NOBODY,
            source.request_id if source is not None else f"for-{spec.name}",
            told=self._told,
            ended=self._ended,
        )

    def refused(self, failure: Failure) -> None:
        """Fail: nobody took the request."""
        self._fail(public(failure, self.errand))

    def _told(self, data: bytes) -> None:
        for message in messages_in(data):
            if self._sink is None:
                return
            if isinstance(message, Response | ErrorResponse):
                sink, self._sink = self._sink, None
                sink.finish(with_id(message, self._request.id))
            elif isinstance(message, Notification):
                self._sink.deliver(message)

    def _ended(self, errand: Errand) -> None:
        self._fail(BackendUnavailable(f"The server {self._spec.name} gave no answer."))

    def _fail(self, error: GateError) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)


@implementer(IMessageSink)
class _OneResult:
    """Waits for the result alone; see `IMessageSink`."""

    def __init__(self) -> None:
        self.taken_back: Callable[[], None] | None = None
        self.answered: Deferred[Response] = Deferred(self._given_up)

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        if isinstance(response, Response):
            self.answered.callback(response)
        elif isinstance(response, ErrorResponse):
            self.answered.errback(RefusedError(response))
        else:  # pragma: no cover - sinks are finished by answers alone
            self.answered.errback(Internal())

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self.answered.errback(error)

    def _given_up(self, _: object) -> None:
        if self.taken_back is not None:
            self.taken_back()


def _own_head(spec: ServerSpec) -> RequestHead:
    return RequestHead(
        method="POST",
        path=f"/{spec.name}/mcp".encode("ascii"),
        query=None,
        version=(1, 1),
        fields=Fields(),
    )
