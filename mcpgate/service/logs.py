"""Where log lines go, put together from ``[log]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogPublisher

from mcpgate.config.model import Config, LogSection
from mcpgate.telemetry.access_log import AccessEntry, AccessLog
from mcpgate.telemetry.logs import EventLimit, LineFormat, LineObserver, LogService
from mcpgate.telemetry.redaction import Redactor
from mcpgate.telemetry.spool import Spool, make_sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """
    The log of a gate that runs as a program of its own.

    :ivar observer: to be made the application's log observer.
    :ivar service: runs the threads that write; first to start, last to stop.
    :ivar record: takes access entries.
    :ivar flush: writes the access entries that wait.
    :ivar degraded: why lines do not get out, or nothing.
    :ivar dropped: lines lost since the start.
    """

    observer: LineObserver
    service: LogService
    redactor: Redactor
    record: Callable[[AccessEntry], None]
    flush: Callable[[], None]
    degraded: Callable[[], str]
    dropped: Callable[[], int]


def make_logs(clock: IReactorTime, wall: Callable[[], float], config: Config) -> Logs:
    """Make the log; nothing is opened before the service starts."""
    section: LogSection = config.log
    redactor = Redactor(config.secrets)
    spool = Spool(make_sink(section.to))
    spools = [spool]
    observer = LineObserver(
        spool, LineFormat(redactor, section.format), EventLimit(clock), section.level
    )
    record: Callable[[AccessEntry], None] = ignore
    flush: Callable[[], None] = _nothing
    if section.access != "off":
        access_spool = spool
        if section.access != "on":
            access_spool = Spool(make_sink(section.access))
            spools.append(access_spool)
        access = AccessLog(access_spool, redactor, wall=wall, kind=section.format)
        record, flush = access, access.flush
    # twistd hands events to the application's observer; the service only runs the threads.
    service = LogService(observer, tuple(spools), LogPublisher())
    return Logs(
        observer=observer,
        service=service,
        redactor=redactor,
        record=record,
        flush=flush,
        degraded=lambda: next((one.degraded for one in spools if one.degraded), ""),
        dropped=lambda: sum(one.dropped for one in spools),
    )


def ignore(entry: AccessEntry) -> None:
    """No access log is wanted."""


def _nothing() -> None:
    """Nothing waits."""
