"""
What a worker tells the owner on its standard output, and hears on its standard input.

Lines of JSON, both ways.  The end of the input is the end of the owner, and so of the worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.web.workers.entries import write_entry
from mcpgate.web.workers.passing import PASSED

# Of a log message; the owner cuts it once more.
MESSAGE_CHARS: Final = 2000
# An owner that does not read is busy: what it is told then is lost, never held without end.
# Entries of requests that were served here are kept for it: more are not served then.
MOST_ENTRIES: Final = 5000
#: Entries in one line: it is to stay well below what the owner reads of one.
ENTRIES: Final = 100


class OwnerLine(LineOnlyReceiver):
    """
    The line to the owner.

    :param told: called with each message.
    :param gone: called when the owner is no more.
    :param wall: seconds since the epoch.
    """

    delimiter = b"\n"
    # A grant holds what a server's entry says of fields.
    MAX_LENGTH = 1 << 20

    def __init__(
        self,
        told: Callable[[dict[str, Any]], None],
        gone: Callable[[], None],
        wall: Callable[[], float],
    ) -> None:
        self._told = told
        self._gone = gone
        self._wall = wall
        self._full = False
        self._entries: list[list[Any]] = []

    transport: Any

    @override
    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """The owner does not read: say no more."""
        self._full = True

    def resumeProducing(self) -> None:
        """It reads again."""
        self._full = False
        self.flush()

    def stopProducing(self) -> None:
        """`connectionLost` tells."""

    @override
    def lineReceived(self, line: bytes) -> None:
        self._told(json.loads(line))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, unless the owner is too busy to read."""
        if self.transport is not None and not self._full:
            self.sendLine(json.dumps(message).encode("ascii"))

    @property
    def has_room(self) -> bool:
        """Tell whether the owner keeps up with what it is told of requests."""
        return len(self._entries) < MOST_ENTRIES

    def record(self, entry: AccessEntry) -> None:
        """
        Tell of a request that the owner never saw, soon: `flush` does it.

        Served here, a breach of HTTP, a client too slow.
        """
        if PASSED in entry.notes or not self.has_room:
            return
        self._entries.append(write_entry(entry, self._wall()))
        if len(self._entries) == ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Send what waits; for a ticker, and at the end."""
        while self._entries and not self._full and self.transport is not None:
            told, self._entries = self._entries[:ENTRIES], self._entries[ENTRIES:]
            self.tell({"entries": told})


@implementer(ILogObserver)
class OwnerObserver:
    """Has the owner write this worker's log lines."""

    def __init__(self, line: OwnerLine) -> None:
        self._line = line

    def __call__(self, event: LogEvent) -> None:
        """Take an event; never fails."""
        level = event.get("log_level") or LogLevel.info
        if level is LogLevel.debug:
            return
        try:
            text = formatEvent(event) or str(event.get("log_text", ""))
            failure = event.get("log_failure")
            if failure is not None:
                text = f"{text}\n{failure.getTraceback(detail='default')}"
        except Exception:
            text = "a log event could not be formatted"
        self._line.tell({"log": level.name, "text": text[:MESSAGE_CHARS]})
