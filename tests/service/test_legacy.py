"""Tests of mcpgate.service.legacy."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.eras import EraBook
from mcpgate.http.forwarding import Forwarding
from mcpgate.model import ServerSpec, Transport
from mcpgate.service.legacy import make_speakers
from mcpgate.web.mcp.event_log import EventBudget
from mcpgate.web.mcp.speaking import SpeakerBase
from tests.web.endpoint_kit import World, caller_of
from tests.web.fake_inbound import FakeInbound

MODERN = ServerSpec(name="modern", transport=Transport.HTTP)


class SpeakersTests(SynchronousTestCase):
    """The speakers of all transports, put together."""

    def test_one_budget_for_all(self) -> None:
        """What clients may ask for again is bounded over all transports and eras."""
        world = World()
        unused: Any = None
        pool: Any = world.pool
        book = EraBook(world.clock.seconds, key=b"k")
        book.note(MODERN, legacy=False, modern=True)
        budget = EventBudget()
        speaker = make_speakers(
            world.clock,
            pool=pool,
            sessions=world.sessions,
            wheel=world.wheel,
            forwarding=Forwarding(),
            book=book,
            asker=unused,
            probe=unused,
            keepalive_s=15.0,
            charge_start=lambda caller: None,
            cold=unused,
            budget=budget,
        )
        kinds = (Transport.STDIO, Transport.HTTP, Transport.SSE)
        specs = [ServerSpec(name=f"of-{kind.value}", transport=kind) for kind in kinds]
        kept = 0
        for spec in (*specs, MODERN):
            session = world.sessions.create(
                caller_of("k1").principal, spec.name, b"{}", "2025-11-25", {}
            )
            log = cast(SpeakerBase, speaker(spec)).event_log(session)
            assert log is not None
            kept += len(log.begin(FakeInbound()).framed(b"{}"))
            self.assertEqual(budget.taken, kept)
