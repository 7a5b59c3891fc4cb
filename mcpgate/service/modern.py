"""The modern era, put together: who asks servers, who answers clients, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from mcpgate.gate.eras import EraBook
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.results import ResultCache
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import IInstancePool
from mcpgate.model import Caller, ServerSpec
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.modern.ask import Asker
from mcpgate.web.mcp.modern.choice import EraProbe, ModernChoice
from mcpgate.web.mcp.modern.endpoint import ModernEndpoint
from mcpgate.web.mcp.modern.exchange import Carrier
from mcpgate.web.mcp.modern.listen import Listens
from mcpgate.web.mcp.modern.post import ModernSpeaker
from mcpgate.web.mcp.modern.relay import ModernRelay
from mcpgate.web.mcp.pinned.speakers import Desk, PinnedModernSpeaker
from mcpgate.web.mcp.rest.asker import RESTAsker
from mcpgate.web.mcp.together.aggregate import Aggregate
from mcpgate.web.mcp.together.member import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Modern:
    """
    What serves modern clients.

    :ivar members: asks one server, of either era, or a group.
    :ivar bare: the same, and shows tools that are withheld.
    :ivar asker: puts modern requests to servers, for the relay and for bridges.
    :ivar listens: the subscriptions that are open.
    :ivar results: what servers allow to be kept.
    :ivar rest: the REST services.
    """

    endpoint: ModernEndpoint
    members: Members
    bare: Members
    asker: Asker
    listens: Listens
    results: ResultCache
    rest: RESTAsker


def make_asker(
    clock: IReactorTime,
    *,
    pool: IInstancePool,
    wheel: DeadlineWheel,
    forwarding: Forwarding,
    keepalive_s: float,
    charge_start: Callable[[Caller], None],
) -> Asker:
    """Make what puts modern requests to servers, for the relay and for bridges."""
    carrier = Carrier(
        clock=clock,
        pool=pool,
        wheel=wheel,
        forwarding=forwarding,
        keepalive_s=keepalive_s,
        charge_start=charge_start,
    )
    return Asker(carrier)


def make_modern(
    clock: IReactorTime,
    *,
    asker: Asker,
    probe: EraProbe,
    gate: Gate,
    meters: Meters,
    book: EraBook,
    streams_per_key: int,
    servers: Callable[[str], ServerSpec | None],
    bridge: ModernSpeaker | None = None,
    used: Callable[[ServerSpec, Caller], None] = lambda spec, caller: None,
    pins: Desk,
) -> Modern:
    """
    Put it together.

    :param servers: gives the entry of a server, for groups of them.
    :param bridge: carries modern requests to legacy servers.
    :param used: looks again at the era of a server where what is known has grown old.
    :param pins: what lists of tools are held against.
    """
    results = ResultCache(clock, meters)
    listens = Listens()

    def not_modern(spec: ServerSpec) -> None:
        book.note(spec, modern=False)

    relay = ModernRelay(asker, results, listens, not_modern=not_modern)
    choice = ModernChoice(book, probe, relay=relay, bridge=bridge, used=used)
    watched = PinnedModernSpeaker(pins, choice)
    members = Members(watched)
    asker.together = Aggregate(
        members,
        servers,
        running=asker.carrier.runs,
        clock=clock,
        wheel=asker.carrier.wheel,
    )
    asker.rest = rest = RESTAsker(asker.carrier, servers)
    endpoint = ModernEndpoint(
        gate=gate, speaker=lambda spec: watched, streams_per_key=streams_per_key
    )
    return Modern(
        endpoint=endpoint,
        members=members,
        bare=Members(choice),
        asker=asker,
        listens=listens,
        results=results,
        rest=rest,
    )
