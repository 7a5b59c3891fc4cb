"""
What is counted, declared once.

Rooms add to plain numbers here; nothing is formatted, locked or exported on the way.  The
exporter (`mcpgate.telemetry.metrics`) reads them when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Meters:
    """
    Counters of one gate.

    :ivar requests: answered requests by (server or ``-``, status).
    :ivar request_s: sum of seconds by server; ``request_buckets`` by (server, bucket index).
    :ivar events: anything else that happens, by event name (``http_reject``, ``slow_reader``,
        ``rate_limited``, ``session_created``, ``session_theft``, ``instance_started``,
        ``instance_stopped``, ``instance_crashed``, ``stdio_noise``, ``stray_reply``,
        ``auth_ok``, ``auth_refused``, ``auth_unavailable``, ``config_reload_failed`` ..).
    :ivar bytes_in: body bytes from clients; ``bytes_out``: to clients.
    :ivar connections: open client connections; ``streams``: open SSE and upgraded ones.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    request_s: Counter[str] = field(default_factory=Counter)
    request_buckets: Counter[tuple[str, int]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    connections: int = 0
    connections_total: int = 0
    streams: int = 0
    calls_in_work: int = 0
    longest_turn_s: float = 0.0
