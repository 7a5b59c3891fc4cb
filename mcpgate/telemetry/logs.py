"""
Log events as lines: text for people, JSON for machines; secrets out, length bounded (R83, R84).

Rooms log with `twisted.logger`.  An event with a field ``ev`` has a name; of one name at most ten
a second are written, since refusals come as fast as somebody sends nonsense.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogPublisher,
    formatEvent,
    globalLogPublisher,
)
from typing_extensions import override
from zope.interface import implementer

from mcpgate.telemetry.escaping import clean, escape, text_of
from mcpgate.telemetry.redaction import HIDDEN, Redactor, is_secret_name
from mcpgate.telemetry.spool import Spool

MESSAGE_CHARS: Final = 1024
TRACEBACK_CHARS: Final = 8192
#: How much of a text is looked at; hiding secrets shortens it, so more than is shown.
LOOK_CHARS: Final = 4096
EVENTS_PER_S: Final = 10

_LEVELS: Final = {"debug": 0, "info": 1, "warn": 2, "error": 3, "critical": 4}
_SEVERITIES: Final = (7, 6, 4, 3, 2)
#: What `twisted.python.log` adds to its events.
_LEGACY: Final = frozenset(
    {"format", "failure", "isError", "logLevel", "message", "printed", "system", "time", "why"}
)
_RESERVED: Final = frozenset({"level", "logger", "message", "suppressed", "time", "traceback"})

Scalar = str | int | float | bool | None


def timestamp(seconds: float) -> str:
    """Write a wall clock reading as ISO 8601 in UTC, milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventLimit:
    """
    At most ``per_s`` events of one name in a second; the rest is counted.

    :param clock: monotonic.
    """

    def __init__(self, clock: IReactorTime, per_s: int = EVENTS_PER_S) -> None:
        self._clock = clock
        self._per_s = per_s
        self._windows: dict[str, list[float]] = {}

    def admit(self, name: str) -> int:
        """Tell how many were suppressed before this one, or -1: this one is, too."""
        now = self._clock.seconds()
        window = self._windows.get(name)
        if window is None:
            if len(self._windows) >= 256:
                # Names are literals in our own code; this many are a bug, not a reason to grow.
                self._windows.clear()
            window = self._windows[name] = [now, 0, 0]
        if not 0 <= now - window[0] < 1.0:
            window[0], window[1] = now, 0
        if window[1] >= self._per_s:
            window[2] += 1
            return -1
        window[1] += 1
        suppressed, window[2] = int(window[2]), 0
        return suppressed


class LineFormat:
    """
    Makes one line of one event.

    :param kind: ``text`` or ``json``.
    """

    def __init__(self, redactor: Redactor, kind: str = "text") -> None:
        if kind not in ("text", "json"):
            raise ValueError(f"log format is text or json, not {kind!r}")
        self._redactor = redactor
        self._json = kind == "json"

    def line(self, event: LogEvent, suppressed: int = 0) -> bytes:
        """Format an event; in text form a traceback follows on lines of its own, indented."""
        level = event.get("log_level")
        level_name = level.name if level is not None else "info"
        logger = clean(text_of(event.get("log_namespace", "-")), 64)
        fields = {
            name: self.value(name, value)
            for name, value in event.items()
            if not name.startswith("log_") and name not in _LEGACY
        }
        message = self._message(event, fields)
        when = timestamp(float(event.get("log_time", 0.0)))
        traceback = self._traceback(event)
        if self._json:
            told: dict[str, Scalar] = {
                "time": when,
                "level": level_name,
                "logger": logger,
                "message": message,
            }
            for name, value in fields.items():
                told[clean(name + "_" if name in _RESERVED else name, 64)] = value
            if suppressed:
                told["suppressed"] = suppressed
            if traceback:
                told["traceback"] = escape(traceback)
            return json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        more = f" (and {suppressed} like it)" if suppressed else ""
        lines = [f"{when} {level_name:5} {logger} {message}{more}"]
        lines += ["    | " + escape(line) for line in traceback.split("\n") if line]
        return "\n".join(lines).encode("utf-8", "backslashreplace")

    def value(self, name: str, value: object) -> Scalar:
        """Give a field's value as it may be shown; numbers stay numbers."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float) and isfinite(value):
            return value
        if isinstance(value, int) and value.bit_length() <= 64:
            return value
        if is_secret_name(name):
            return HIDDEN
        return self.shown(text_of(value))

    def shown(self, text: str, limit: int = 256) -> str:
        """Take secrets out of a text, escape it and cut it."""
        return clean(self._redactor.text(text, stop=LOOK_CHARS), limit)

    def _message(self, event: LogEvent, fields: dict[str, Scalar]) -> str:
        # Fields are put in as they may be shown, so that a megabyte is never formatted; other
        # objects stay themselves for the sake of formats such as {failure.value}.
        safe = dict(event)
        for name, value in fields.items():
            if value == HIDDEN or isinstance(event[name], str | bytes):
                safe[name] = value
        try:
            message = formatEvent(safe)
        except Exception:
            message = text_of(event.get("log_format", ""))
        return self.shown(message, MESSAGE_CHARS)

    def _traceback(self, event: LogEvent) -> str:
        failure = event.get("log_failure")
        if failure is None:
            return ""
        try:
            # "default" names frames and source lines; only "verbose" would show locals.
            text = failure.getTraceback(detail="default").rstrip("\n")
        except Exception:
            text = text_of(getattr(failure, "type", failure))
        if len(text) > TRACEBACK_CHARS:
            half = TRACEBACK_CHARS // 2
            begin = self._redactor.text(text, stop=half)
            return f"{begin}\n...\n{self._redactor.text(text, len(text) - half)}"
        return self._redactor.text(text)


@implementer(ILogObserver)
class LineObserver:
    """
    Sends every event at or above a level to a spool.

    :param level: ``debug``, ``info``, ``warn``, ``error`` or ``critical``.
    """

    def __init__(
        self, spool: Spool, line_format: LineFormat, limit: EventLimit, level: str = "info"
    ) -> None:
        self._spool = spool
        self._format = line_format
        self._limit = limit
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """
        Change what is written from now on.

        :raises ValueError: there is no such level.
        """
        if level not in _LEVELS:
            raise ValueError(f"log level is one of {', '.join(_LEVELS)}, not {level!r}")
        self._level = _LEVELS[level]

    def __call__(self, event: LogEvent) -> None:
        """Take an event; never fails."""
        level = event.get("log_level") or LogLevel.info
        rank = _LEVELS[level.name]
        if rank < self._level:
            return
        suppressed = 0
        name = event.get("ev")
        if isinstance(name, str):
            suppressed = self._limit.admit(name)
            if suppressed < 0:
                return
        try:
            line = self._format.line(event, suppressed)
        except Exception:
            # Whatever an event holds, the reader shall know that there was one.
            line = b"a log event could not be formatted"
        self._spool.put(line, _SEVERITIES[rank])


class LogService(Service):
    """
    The log while the gate runs: first to start, last to stop.

    :param observer: gets every event of ``publisher``.
    :param spools: their threads run while the service does.
    """

    def __init__(
        self,
        observer: ILogObserver,
        spools: tuple[Spool, ...],
        publisher: LogPublisher = globalLogPublisher,
    ) -> None:
        self.setName("log")
        self._observer = observer
        self._spools = spools
        self._publisher = publisher

    @override
    def startService(self) -> None:
        super().startService()
        for spool in self._spools:
            spool.start()
        self._publisher.addObserver(self._observer)

    @override
    def stopService(self) -> None:
        """Write what waits; a sink that blocks is left behind after a second."""
        super().stopService()
        self._publisher.removeObserver(self._observer)
        for spool in self._spools:
            spool.stop()

    def reopen(self) -> None:
        """Open log files anew: SIGHUP."""
        for spool in self._spools:
            spool.reopen()
