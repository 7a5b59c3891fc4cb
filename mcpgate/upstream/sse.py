"""
Speaks to one HTTP+SSE server for one owner: over one event stream at a time, opened when needed.

The conversation over a stream is a `StdioUpstream`: ids, handshake and attribution are the same as
over pipes.  When the stream breaks so does the conversation, as if a child had died; the next call
opens another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate.errors import BackendDied, BackendTimeout, GateError
from mcpgate.interfaces import (
    IHTTPUpstream,
    IResponseReceiver,
    IStdioChannel,
    IUpstream,
    IUpstreamCall,
)
from mcpgate.model import Exit
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.upstream.sse_channel import Fields, SSEChannel, SSEPlace
from mcpgate.upstream.stdio import StdioUpstream

log = Logger()

# How long a server may take to name its endpoint.
ENDPOINT_S = 30.0

# How long the end of the process may lag behind that of its stream.
ENDING_S = 0.4


@implementer(IUpstream, IHTTPUpstream)
class SSEUpstream:
    """
    What the pool keeps beside an instance.  As an `IHTTPUpstream` it is for the relay.

    :param make: makes a conversation of a channel, what fires with the end of the instance, and
        a name that is unique.
    :param ended: fires when the instance has ended.
    :param is_process: the instance is of the gate's making: where a stream breaks, its end is
        waited for a moment, to tell how it ended.
    :param message_s: see `SSEChannel`.
    :ivar current: the conversation that is open; None when there is none.
    """

    def __init__(
        self,
        http: HTTPUpstream,
        place: SSEPlace,
        *,
        make: Callable[[IStdioChannel, Deferred[Exit], str], StdioUpstream],
        name: str,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        ended: Deferred[Exit],
        is_process: bool,
        message_s: float,
    ) -> None:
        self.current: StdioUpstream | None = None
        self._http = http
        self._place = place
        self._make = make
        self._name = name
        self._clock = clock
        self._wheel = wheel
        self._is_process = is_process
        self._message_s = message_s
        self._channel: SSEChannel | None = None
        self._over: Deferred[Exit] | None = None
        # Conversations whose stream broke, perhaps since the process ended.
        self._breaking: dict[Deferred[Exit], tuple[StdioUpstream, IDelayedCall]] = {}
        self._numbers = count(1)
        ended.addCallbacks(self._ended, self._lost).addErrback(
            lambda failure: log.failure("The end of {name} went wrong", failure, name=name)
        )

    def open(self, listen_fields: Fields, message_fields: Fields) -> StdioUpstream:
        """
        Give the conversation, begun if there is none.

        :param listen_fields: of the request for the stream, credentials among them.
        :param message_fields: of each message.
        :raises GateError: it can not be begun.
        """
        if self.current is not None:
            return self.current
        name = f"{self._name}.{next(self._numbers)}"
        channel = SSEChannel(
            self._http,
            self._place,
            listen_fields=listen_fields,
            message_fields=message_fields,
            pool=name,
            wheel=self._wheel,
            endpoint_s=ENDPOINT_S,
            message_s=self._message_s,
            ended=self._broken,
        )
        over: Deferred[Exit] = Deferred()
        conversation = self._make(channel, over, name)
        self.current, self._channel, self._over = conversation, channel, over
        try:
            channel.open()
        except GateError as error:
            channel.end(error)
            raise
        return conversation

    def _broken(self, error: GateError, unsent: list[bytes]) -> None:
        conversation, self.current = self.current, None
        over, self._over = self._over, None
        self._channel = None
        if conversation is None:
            return
        if isinstance(error, BackendDied):
            conversation.lost(unsent)
        if isinstance(error, BackendDied | BackendTimeout):
            # Whether any other call has reached the server is not known any more.
            error = type(error)(error.detail, data={**error.data, "sent": True})
        if over is not None and self._is_process and isinstance(error, BackendDied):
            due = self._clock.callLater(ENDING_S, self._give_up, over, error)
            self._breaking[over] = (conversation, due)
        else:
            conversation.close(error)

    def _give_up(self, over: Deferred[Exit], error: GateError) -> None:
        conversation, _ = self._breaking.pop(over)
        conversation.close(error)

    def _ended(self, exit: Exit) -> None:
        breaking, self._breaking = self._breaking, {}
        for broken, (_, due) in breaking.items():
            due.cancel()
            broken.callback(exit)
        over, self._over = self._over, None
        if over is not None:
            over.callback(exit)
        if self._channel is not None:
            self._channel.end(BackendDied())

    def _lost(self, failure: Failure) -> None:
        log.failure("The end of {name} is not known", failure, name=self._name)
        self._ended(Exit(reason="lost"))

    # --- IUpstream ------------------------------------------------------------------------------

    @property
    def heard_s(self) -> float:
        """See `IUpstream.heard_s`."""
        return self._http.heard_s

    @property
    def unreachable(self) -> bool:
        """See `IUpstream.unreachable`."""
        return self._http.unreachable

    def ask_alive(self, timeout_s: float) -> bool:
        """See `IUpstream.ask_alive`; within the conversation where there is one."""
        if self.current is not None and self.current.ask_alive(timeout_s):
            return True
        return self._http.ask_alive(timeout_s)

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`."""
        if self.current is not None:
            self.current.close(error)
        if self._channel is not None:
            self._channel.end(error)
        breaking, self._breaking = self._breaking, {}
        for conversation, due in breaking.values():
            due.cancel()
            conversation.close(error)
        self._http.close(error)

    # --- IHTTPUpstream --------------------------------------------------------------------------

    def send(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        *,
        pool: Hashable,
        length: int | None,
        timeout_s: float,
        stream: bool,
    ) -> IUpstreamCall:
        """See `IHTTPUpstream.send`."""
        call: IUpstreamCall = self._http.send(
            method,
            target,
            fields,
            body,
            receiver,
            pool=pool,
            length=length,
            timeout_s=timeout_s,
            stream=stream,
        )
        return call
