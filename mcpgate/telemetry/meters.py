"""
What is counted, declared once.

Rooms add to plain numbers here; nothing is formatted, locked or exported on the way.  The
exporter (`mcpgate.telemetry.metrics`) reads them when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Final

#: Upper bounds of the latency histogram, seconds; index ``len(REQUEST_BUCKETS_S)`` is the rest.
REQUEST_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


#: Upper bounds of how late timers came, seconds; the last index is the rest.
TURN_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


ENGINE_OUTCOMES: Final = ("ok", "refused", "failed", "timeout")
"""What may become of a call to the container engine."""


def _none() -> float:
    return 0.0


@dataclass(slots=True)
class Meters:
    """
    Counters of one gate.

    :ivar requests: answered requests by (server or ``-``, status).
    :ivar request_s: sum of seconds by server; ``request_buckets`` by (server, index of the first
        of `REQUEST_BUCKETS_S` that is not smaller).
    :ivar events: anything else that happens, by event name (``http_reject``, ``slow_reader``,
        ``rate_limited``, ``session_created``, ``session_theft``, ``instance_started``,
        ``instance_stopped``, ``instance_crashed``, ``stdio_noise``, ``stray_reply``,
        ``auth_ok``, ``auth_refused``, ``auth_unavailable``, ``config_reload_failed`` ..).
    :ivar starts: instances that became ready, by server; ``exits``: instances that ended, by
        (server, reason of `mcpgate.model.Exit`).
    :ivar cpu_s: processor time of instances by server, those that are gone included; up to their
        last reading, which may be a sweep before their end.
    :ivar oom_kills: times the kernel killed something in a container for want of memory, by
        server.
    :ivar engine_calls: calls to the container engine by outcome: ``ok``, ``refused`` (it said no,
        or knows no such thing), ``failed`` (it could not be reached), ``timeout``.
    :ivar bytes_in: body bytes from clients; ``bytes_out``: to clients.
    :ivar connections: open client connections; ``streams``: open SSE and upgraded ones.
    :ivar longest_turn_s: for so long at most the reactor answered nobody; ``recent_turn_s`` tells
        it of the last minute.
    :ivar lag_s: how late the last tick of the stall probe came; ``lags_s`` of all together, and
        ``lag_buckets`` by index of `TURN_BUCKETS_S`.
    :ivar longest_collection_s: of the whole memory by the garbage collector.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    request_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    request_buckets: Counter[tuple[str, int]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    exits: Counter[tuple[str, str]] = field(default_factory=Counter)
    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    oom_kills: Counter[str] = field(default_factory=Counter)
    engine_calls: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0
    connections_total: int = 0
    streams: int = 0
    calls_in_work: int = 0
    longest_turn_s: float = 0.0
    recent_turn_s: Callable[[], float] = _none
    lag_s: float = 0.0
    lags_s: float = 0.0
    lag_buckets: list[int] = field(default_factory=lambda: [0] * (len(TURN_BUCKETS_S) + 1))
    longest_collection_s: float = 0.0

    def copy(self) -> Meters:
        """Give meters that stand still."""
        recent_turn_s = self.recent_turn_s()
        told = Meters(**{one.name: copy(getattr(self, one.name)) for one in fields(self)})
        told.recent_turn_s = lambda: recent_turn_s
        return told

    def turns_over(self, seconds: float) -> int:
        """Count the ticks that came later than this, one of `TURN_BUCKETS_S`."""
        return sum(self.lag_buckets[TURN_BUCKETS_S.index(seconds) + 1 :])

    def answered(self, server: str, status: int, duration_s: float) -> None:
        """Count one answered request; ``server`` is a configured name or ``-``, never user text."""
        self.requests[server, status] += 1
        self.request_s[server] += duration_s
        self.request_buckets[server, bisect_left(REQUEST_BUCKETS_S, duration_s)] += 1
