"""Modern clients on legacy servers, put together: sessions the gate holds, parked calls."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from twisted.internet.interfaces import IReactorTime

from mcpgate.config.model import GateSection
from mcpgate.gate.sessions import SessionTable
from mcpgate.model import ServerSpec
from mcpgate.stores.memory import MemoryStore
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.on_legacy.bridge import LegacyBridge
from mcpgate.web.mcp.on_legacy.request_state import Seal
from mcpgate.web.mcp.on_legacy.session import Desk
from mcpgate.web.mcp.post import Speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class OnLegacy:
    """
    The bridge, and the sessions it holds.

    They are in a table of their own, so that none of them ever takes the place of a session of a
    client's; it has the same bounds, and is not kept over a restart.
    """

    bridge: LegacyBridge
    sessions: SessionTable


def make_on_legacy(
    clock: IReactorTime,
    config: GateSection,
    *,
    secret: bytes,
    wheel: DeadlineWheel,
    meters: Meters,
    speakers: Callable[[SessionTable], Callable[[ServerSpec], Speaker]],
) -> OnLegacy:
    """
    Put it together.

    :param secret: of the state directory.
    :param speakers: makes the speakers for a table of sessions.
    """
    sessions = SessionTable(
        MemoryStore(),
        clock=clock,
        wall=time.time,
        make_id=lambda: secrets.token_urlsafe(16),
        meters=meters,
        idle_s=config.session_idle_s,
        per_principal=config.sessions_per_key,
        total=config.sessions_total,
    )
    desk = Desk(
        clock=clock,
        wheel=wheel,
        keepalive_s=config.sse_keepalive_s,
        sessions=sessions,
        speaker=speakers(sessions),
        mint=count(1).__next__,
    )
    bridge = LegacyBridge(
        desk,
        seal=Seal(secret, wall=time.time, random_bytes=os.urandom),
        make_handle=lambda: secrets.token_urlsafe(16),
    )
    return OnLegacy(bridge=bridge, sessions=sessions)
