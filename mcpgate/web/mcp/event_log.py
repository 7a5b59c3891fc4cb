"""
What was said on the event streams of one session, for a client that lost its connection.

Only streams the gate makes itself are kept (answers of stdio servers and bridges, and the standing
stream): events of HTTP servers carry ids of their own, and asking for them again is passed on.
An id names its stream and the session's log, so nothing but the rest of exactly that stream is
ever replayed (R73), and ids of an earlier life of the gate replay nothing.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from mcpgate.errors import MethodNotAllowed
from mcpgate.interfaces import IInbound
from mcpgate.mcp.framing import sse_event
from mcpgate.model import MIB
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.web.mcp.answer import STREAM_FIELDS
from mcpgate.web.refusal import refuse_message

LOG_BYTES: Final = 1 * MIB
ALL_LOGS_BYTES: Final = 64 * MIB
MOST_STREAMS: Final = 128
# How long what was said last is kept after a stream is complete (R38).
KEPT_S: Final = 60.0
RETRY_MS: Final = 1000
STANDING: Final = 0

_ALLOWED: Final = ((b"allow", b"POST, DELETE"),)


class EventBudget:
    """
    Bytes all logs together may hold.

    :ivar taken: what they hold now.
    """

    def __init__(self, most: int = ALL_LOGS_BYTES) -> None:
        self.taken = 0
        self._most = most

    def take(self, size: int) -> bool:
        """Take so many bytes; False when there are not enough."""
        if self.taken + size > self._most:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        self.taken -= size


class LoggedStream:
    """
    One stream: the answer to a POST, or the standing one.

    :ivar over: all was said.
    :ivar last: number of the newest event; they count from 1.
    :ivar first: events from this number on are kept.
    """

    # Each session has one, and most of them say nothing: it is to be small.
    __slots__ = (
        "_log",
        "_outlet",
        "_release",
        "deadline",
        "events",
        "first",
        "last",
        "number",
        "over",
    )

    def __init__(self, log: EventLog, number: int, outlet: IInbound | None) -> None:
        self.number = number
        self.over = False
        self.last = 0
        self.first = 1
        self.events: deque[tuple[int, bytes]] | None = None
        self.deadline: Deadline | None = None
        self._log = log
        self._outlet = outlet
        self._release: Callable[[], None] = _nothing

    # --- For whoever speaks -----------------------------------------------------------------------

    def primed(self) -> bytes:
        """Give an event without data, so that a client has an id before anything is said."""
        self.last += 1
        self.first = self.last + 1
        return sse_event(b"", event="", id=self._id(), retry_ms=RETRY_MS)

    def framed(self, data: bytes) -> bytes:
        """Make an event of a message, and keep it."""
        self.last += 1
        event = sse_event(data, id=self._id())
        self._log.keep(self, event)
        return event

    def write(self, data: bytes) -> None:
        """Write what was framed, or a comment, to the client if there is one."""
        if self._outlet is not None:
            self._outlet.write(data)

    def finish(self) -> None:
        """End the stream."""
        self.over = True
        self._end_outlet()
        self._log.finished(self)

    # --- For whoever missed something -------------------------------------------------------------

    def missed(self, after: int, before: int | None = None) -> Iterator[bytes]:
        """Give the events after one, up to another."""
        for number, event in self.events or ():
            if number > after and (before is None or number < before):
                yield event

    def attach(self, inbound: IInbound, after: int, release: Callable[[], None]) -> None:
        """Go on for another connection of the client; an older one is ended."""
        self._end_outlet()
        self._outlet, self._release = inbound, release
        inbound.on_gone(lambda: self._gone(inbound))
        inbound.start(200, list(STREAM_FIELDS), None)
        for event in self.missed(after):
            inbound.write(event)
        if self.over:
            self._end_outlet()

    def detach(self) -> None:
        """End the connection of a client that took the stream up again; the stream goes on."""
        if self._release is not _nothing:
            self._end_outlet()

    def _end_outlet(self) -> None:
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.finish()
            self._gone(outlet)

    def _gone(self, inbound: IInbound) -> None:
        if self._outlet is inbound or self._outlet is None:
            self._outlet = None
            release, self._release = self._release, _nothing
            release()

    def _id(self) -> str:
        return f"{self._log.tag}-{self.number:x}-{self.last:x}"


class EventLog:
    """
    The streams of one session.

    :param budget: of all logs.
    :ivar tag: begins every id; of this log alone.
    :ivar standing: the stream of the session's GET.
    """

    __slots__ = ("_budget", "_newest", "_over", "_size", "_streams", "_wheel", "standing", "tag")

    def __init__(self, wheel: DeadlineWheel, budget: EventBudget) -> None:
        self.tag = secrets.token_urlsafe(9)
        self.standing = LoggedStream(self, STANDING, None)
        self._wheel = wheel
        self._budget = budget
        self._size = 0
        self._streams = {STANDING: self.standing}
        self._newest = STANDING
        self._over = False

    def begin(self, inbound: IInbound) -> LoggedStream:
        """Begin the stream that answers a POST."""
        self._newest += 1
        stream = LoggedStream(self, self._newest, inbound)
        if not self._over:
            self._streams[self._newest] = stream
            if len(self._streams) > MOST_STREAMS:
                over = next((known for known in self._streams.values() if known.over), None)
                if over is not None:
                    self._forget(over)
        return stream

    def resume(self, inbound: IInbound, event_id: str, release: Callable[[], None]) -> bool:
        """
        Answer a GET with ``Last-Event-ID``.

        :param release: called when what was taken up has ended, or was refused.
        :return: False when it is the standing stream that is wanted.
        """
        number, after = self._read(event_id)
        if number == STANDING:
            return False
        stream = self._streams.get(number) if number is not None and after is not None else None
        if (
            stream is None
            or after is None
            or not stream.first <= after + 1 <= stream.last + 1
            or (stream.over and after == stream.last)
        ):
            # 405 is what clients take for "go on without": anything else is asked again.
            error = MethodNotAllowed("There is nothing to hear.", fields=_ALLOWED)
            refuse_message(inbound, error, None, live=False)
            release()
        else:
            stream.attach(inbound, after, release)
        return True

    def standing_after(self, event_id: str) -> int | None:
        """Tell after which event of the standing stream a client wants to hear; None: from now."""
        number, after = self._read(event_id)
        return after if number == STANDING else None

    def detach(self) -> None:
        """End the connections of streams that were taken up again: the key was revoked."""
        for stream in tuple(self._streams.values()):
            stream.detach()

    def clear(self, reason: str = "") -> None:
        """Forget everything: the session is over, for whatever reason."""
        self._over = True
        for stream in tuple(self._streams.values()):
            stream.detach()
            self._forget(stream)

    # --- For the streams --------------------------------------------------------------------------

    def keep(self, stream: LoggedStream, event: bytes) -> None:
        """Keep the newest event of a stream, at the cost of the oldest ones."""
        size = len(event)
        while self._size + size > LOG_BYTES and self._drop_oldest():
            pass
        if self._over or self._size + size > LOG_BYTES or not self._budget.take(size):
            # A hole: what is before it can not be replayed either.
            while stream.events:
                self._drop(stream)
            stream.first = stream.last + 1
            return
        self._size += size
        if stream.events is None:
            stream.events = deque()
        stream.events.append((stream.last, event))

    def finished(self, stream: LoggedStream) -> None:
        """Keep a stream that is complete for a while."""
        if stream.number in self._streams:
            stream.deadline = self._wheel.arm(KEPT_S, lambda: self._forget(stream))

    def _drop_oldest(self) -> bool:
        with_events = [stream for stream in self._streams.values() if stream.events]
        if not with_events:
            return False
        self._drop(min(with_events, key=lambda stream: (not stream.over, stream.number)))
        return True

    def _drop(self, stream: LoggedStream) -> None:
        assert stream.events
        number, event = stream.events.popleft()
        stream.first = number + 1
        self._size -= len(event)
        self._budget.give_back(len(event))

    def _forget(self, stream: LoggedStream) -> None:
        self._streams.pop(stream.number, None)
        if stream.deadline is not None:
            stream.deadline.cancel()
            stream.deadline = None
        while stream.events:
            self._drop(stream)

    def _read(self, event_id: str) -> tuple[int | None, int | None]:
        """Read an id; the event's number is None where it is of another log."""
        tag, _, rest = event_id.rpartition("-")[0].rpartition("-")
        try:
            number, after = int(rest, 16), int(event_id.rpartition("-")[2], 16)
        except ValueError:
            return None, None
        return number, after if tag == self.tag else None


def _nothing() -> None:
    """Release nothing."""
