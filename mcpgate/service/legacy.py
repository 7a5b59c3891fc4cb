"""The legacy era, put together: who carries sessions to servers, of whichever era those are."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from mcpgate.gate.eras import EraBook
from mcpgate.gate.sessions import SessionTable
from mcpgate.http.forwarding import Forwarding
from mcpgate.model import Caller, ServerSpec, Transport
from mcpgate.runtime.pool import InstancePool
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.cold.answers import ColdAnswers
from mcpgate.web.mcp.event_log import EventBudget
from mcpgate.web.mcp.modern.post import ModernAsker
from mcpgate.web.mcp.on_modern.era_switch import EraSwitch
from mcpgate.web.mcp.on_modern.era_watch import EraWatch, Probe
from mcpgate.web.mcp.on_modern.sessions import BridgedSpeaker
from mcpgate.web.mcp.over_http.sessions import HTTPSpeaker
from mcpgate.web.mcp.over_sse.sessions import SSESpeaker
from mcpgate.web.mcp.over_stdio.sessions import StdioSpeaker
from mcpgate.web.mcp.post import Speaker


def make_speakers(
    clock: IReactorTime,
    *,
    pool: InstancePool,
    sessions: SessionTable,
    wheel: DeadlineWheel,
    forwarding: Forwarding,
    book: EraBook,
    asker: ModernAsker,
    probe: Probe,
    keepalive_s: float,
    charge_start: Callable[[Caller], None],
    cold: ColdAnswers,
    budget: EventBudget,
) -> Callable[[ServerSpec], Speaker]:
    """
    Give what chooses the speaker of a server: by its transport, or the bridge.

    :param book: says which servers speak the modern era alone.
    :param budget: one for the speakers of every table.
    """
    watch = EraWatch(clock, book, probe, pool.stop)

    def bridge() -> BridgedSpeaker:
        return bridged

    switch = EraSwitch(book, pool, bridge, watch, probe)
    common: dict[str, Any] = {
        "clock": clock,
        "pool": pool,
        "sessions": sessions,
        "wheel": wheel,
        "keepalive_s": keepalive_s,
        "forget": pool.forget,
        "budget": budget,
        "charge_start": charge_start,
    }
    bridged = BridgedSpeaker(
        **common,
        asker=asker,
        eras=book,
        watch=watch,
        make_tag=lambda: secrets.token_hex(4),
        stop=pool.stop,
    )
    stdio = StdioSpeaker(**common, cold=cold, switch=switch)
    http = HTTPSpeaker(**common, forwarding=forwarding, cold=cold, switch=switch)
    old = SSESpeaker(**common, forwarding=forwarding, cold=cold)
    speakers: dict[Transport, Speaker] = {
        Transport.STDIO: stdio,
        Transport.HTTP: http,
        Transport.SSE: old,
    }

    def speaker(spec: ServerSpec) -> Speaker:
        return bridged if book.known(spec).modern_only else speakers[spec.transport]

    return speaker
