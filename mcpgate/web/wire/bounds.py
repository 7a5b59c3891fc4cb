"""
Every number the front door holds a client to.

Seconds and bytes; the R numbers are the requirements they come from.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field

from mcpgate.http.strictness import WireBounds
from mcpgate.model import KIB, MIB


def connections_allowed() -> int:
    """Give half of what the limit on open files leaves after 256 for ourselves (R28)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    return max(16, (soft - 256) // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """
    What one connection, and all of them, may use.  A count of 0 means no limit.

    :ivar wire: sizes of heads, chunk extensions and trailers (R05, R10).
    :ivar head_s: from the first byte (or the accept, for the first request) to a complete head;
        then 408 (R24).
    :ivar body_grace_s: a body may be as slow as it likes for this long (R25).
    :ivar body_rate: bytes per second a body must bring on average after that, else 408 (R25).
    :ivar body_s: a body that is collected must be complete after this long, else 408 (R25).
    :ivar body_check_s: how often the rate is looked at after the grace.
    :ivar bodies_bytes: held at once by all bodies that are being collected; beyond: 503 (R16).
    :ivar answers_bytes: waiting at once for all clients to read; beyond, clients for whom more than
        ``queue_bytes`` waits are cut off (R26).
    :ivar queue_bytes: of an answer, waiting for the client to read (R26).
    :ivar stalled_s: a client that takes nothing of a waiting answer for this long is cut off (R26).
    :ivar idle_s: a connection without a request for this long is closed (R27).
    :ivar requests: on one connection (R27).
    :ivar lifetime_s: of a connection; the answer after that closes it, never in a call (R27).
    :ivar connections: open at once, all clients together (R28).
    :ivar connections_per_address: open at once from one address (R28).
    :ivar overflow: connections being told 503 at once; beyond, they are closed unheard (R28).
    :ivar linger_s: after the last answer, until the connection is cut; the deadline wheel may add
        one tick (R12: gone within 1 s).
    :ivar drain_idle_s: while draining, an idle connection may still send a request for this long.
    :ivar probe_s: after a client closed its sending side: how soon it is found out whether it is
        still there (R37, R38).
    """

    wire: WireBounds = field(default_factory=WireBounds)
    head_s: float = 10.0
    body_grace_s: float = 5.0
    body_rate: float = 1024.0
    body_s: float = 60.0
    body_check_s: float = 1.0
    bodies_bytes: int = 64 * MIB
    answers_bytes: int = 32 * MIB
    queue_bytes: int = 256 * KIB
    stalled_s: float = 30.0
    idle_s: float = 75.0
    requests: int = 1000
    lifetime_s: float = 3600.0
    connections: int = field(default_factory=connections_allowed)
    connections_per_address: int = 64
    overflow: int = 64
    linger_s: float = 0.5
    drain_idle_s: float = 0.3
    probe_s: float = 0.05
