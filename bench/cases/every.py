"""Every case there is, in the order they run."""

from __future__ import annotations

from typing import Final

from bench.cases import (
    bodies,
    cold_start,
    containers,
    eras,
    events,
    idle_streams,
    latency,
    limiter,
    reactors,
    relay,
    relay_tls,
    reload,
    scale,
    stdio,
    together,
    turns,
    websocket,
    workers,
)
from bench.lab.lab import Case

CASES: Final[tuple[Case, ...]] = tuple(
    module.CASE
    for module in (
        relay,
        relay_tls,
        stdio,
        eras,
        latency,
        together,
        events,
        idle_streams,
        bodies,
        websocket,
        cold_start,
        containers,
        scale,
        limiter,
        reload,
        turns,
        workers,
        reactors,
    )
)
