"""
The standing event stream of a session: what a client's GET opens.

The stream is the gate's own: it outlives the server's instance, says something at least every
keep-alive interval, and a newer one of the same session replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mcpgate.interfaces import IInbound
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.event_stream import KEEPALIVE
from mcpgate.web.mcp.answer import STREAM_FIELDS


class Source(Protocol):
    """What feeds a stream, and can be made to wait."""

    def pause(self) -> None:
        """Feed no more for now."""

    def resume(self) -> None:
        """Go on."""


class StandingStream:
    """
    One GET answered with an event stream that stays open.

    :param ended: called once when the client has gone or the stream was closed.
    :param first: what the stream begins with.
    :param drained: called when a client that read too slowly has caught up.
    :ivar over: it has ended.
    :ivar paused: the client reads too slowly.
    :ivar source: what is paused and resumed with the client; None when nothing feeds the stream.
    """

    __slots__ = (
        "_deadline",
        "_drained",
        "_ended",
        "_inbound",
        "_keepalive_s",
        "_wheel",
        "paused",
        "source",
    )

    def __init__(
        self,
        inbound: IInbound,
        *,
        wheel: DeadlineWheel,
        keepalive_s: float,
        ended: Callable[[StandingStream], None],
        drained: Callable[[], None] = lambda: None,
        first: bytes = b": open\n\n",
    ) -> None:
        self._inbound = inbound
        self._wheel = wheel
        self._keepalive_s = keepalive_s
        self._ended: Callable[[StandingStream], None] | None = ended
        self._drained = drained
        self._deadline: Deadline | None = None
        self.paused = False
        self.source: Source | None = None
        inbound.start(200, list(STREAM_FIELDS), None)
        # Some clients and proxies wait for the first byte of the body.
        inbound.write(first)
        self._rearm()
        inbound.register_flow(self._pause, self._resume)
        inbound.on_gone(self._end)

    @property
    def over(self) -> bool:
        """Tell whether it has ended."""
        return self._ended is None

    def send(self, events: bytes) -> bool:
        """
        Write whole events; False when nothing was written.

        A stream without a source takes nothing while the client reads too slowly.
        """
        if self._ended is None or (self.paused and self.source is None):
            return False
        self._inbound.write(events)
        self._rearm()
        return True

    def close(self) -> None:
        """End the stream politely."""
        if self._ended is not None:
            self._inbound.finish()
            self._end()

    def _pause(self) -> None:
        self.paused = True
        if self.source is not None:
            self.source.pause()

    def _resume(self) -> None:
        self.paused = False
        if self.source is not None:
            self.source.resume()
        self._drained()

    def _rearm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._wheel.arm(self._keepalive_s, self._quiet)

    def _quiet(self) -> None:
        if self._inbound.finished:
            self._end()
            return
        if not self.paused:
            self._inbound.write(KEEPALIVE)
        self._rearm()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if ended is not None:
            ended(self)
