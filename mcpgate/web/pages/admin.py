"""
What statistics are made of.

`AdminView` is all that the pages know of the gate; the composition root fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from twisted.internet.defer import Deferred, succeed

from mcpgate.gate.sessions import SessionView
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import (
    CertificateView,
    EngineView,
    EraView,
    ImageView,
    InstanceView,
    PinView,
    WorkerView,
)

#: Sessions listed on a page; all are counted.
LISTED: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """What the gate's own process uses."""

    memory_bytes: int | None = None
    cpu_s: float | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """
    What the pages may ask.  Every callable but ``metrics`` answers at once.

    :ivar started_at: wall clock, seconds; ``wall`` reads it.
    :ivar unready: why the gate should get no traffic (``starting``, ``draining``, ``log sink
        blocked`` ..); empty when it is ready.
    :ivar sessions: most recently used first, at most so many; ``session_counts``: all, by server.
    :ivar images: those of servers in containers; ``engine``: None when there are no such servers.
    :ivar eras: of every server, which eras of MCP it speaks; ``pins``: how its tools are to those
        that were trusted.
    :ivar workers: processes that take connections; empty when this one does it itself.
    :ivar metrics: the Prometheus exposition.
    """

    version: str
    started_at: float
    wall: Callable[[], float]
    meters: Meters
    unready: Callable[[], Sequence[str]] = tuple
    instances: Callable[[], Sequence[InstanceView]] = tuple
    sessions: Callable[[int], Sequence[SessionView]] = lambda _: ()
    session_counts: Callable[[], Mapping[str, int]] = dict
    certificates: Callable[[], Sequence[CertificateView]] = tuple
    images: Callable[[], Sequence[ImageView]] = tuple
    engine: Callable[[], EngineView | None] = lambda: None
    eras: Callable[[], Sequence[EraView]] = tuple
    pins: Callable[[], Sequence[PinView]] = tuple
    process: Callable[[], ProcessView] = ProcessView
    workers: Callable[[], Sequence[WorkerView]] = tuple
    metrics: Callable[[], Deferred[bytes]] = lambda: succeed(b"")


def statistics(view: AdminView) -> dict[str, object]:
    """Put together what ``/stats`` shows, as JSON values; no key, no session id."""
    now = view.wall()
    meters = view.meters
    instances = view.instances()
    sessions = view.sessions(LISTED)
    counts = dict(view.session_counts())
    unready = list(view.unready())
    engine = view.engine()
    answered: dict[str, int] = {}
    for (_, status), count in meters.requests.items():
        family = f"{status // 100}xx" if status else "gone"
        answered[family] = answered.get(family, 0) + count
    return {
        "version": view.version,
        "uptime_s": round(max(0.0, now - view.started_at), 1),
        "ready": not unready,
        "reasons": unready,
        "process": asdict(view.process()),
        "workers": [asdict(worker) for worker in view.workers()],
        "traffic": {
            "requests": answered,
            "bytes_in": meters.bytes_in,
            "bytes_out": meters.bytes_out,
            "connections": meters.connections,
            "connections_total": meters.connections_total,
            "streams": meters.streams,
            "calls_in_work": meters.calls_in_work,
            "longest_turn_s": round(meters.longest_turn_s, 4),
        },
        "reactor": {
            "longest_turn_s": round(meters.longest_turn_s, 4),
            "longest_turn_last_minute_s": round(meters.recent_turn_s(), 4),
            "lag_s": round(meters.lag_s, 4),
            "turns_over": {
                f"{bound_s:g}s": meters.turns_over(bound_s) for bound_s in (0.05, 0.25, 1.0)
            },
            "longest_collection_s": round(meters.longest_collection_s, 4),
        },
        "events": dict(sorted(meters.events.items())),
        "instances": [asdict(instance) for instance in instances],
        "engine": None if engine is None else asdict(engine),
        "images": [asdict(image) for image in view.images()],
        "servers": _servers(meters),
        "eras": [asdict(era) for era in view.eras()],
        "tools": [asdict(pin) for pin in view.pins()],
        "sessions": {
            "total": sum(counts.values()),
            "by_server": dict(sorted(counts.items())),
            "list": [asdict(session) for session in sessions],
        },
        "users": _users(instances, sessions),
        "certificates": [
            {"name": one.name, "days_left": round((one.expires_at - now) / 86400, 1)}
            for one in view.certificates()
        ],
    }


def _servers(meters: Meters) -> dict[str, dict[str, object]]:
    """Tell by server what became of its instances since the gate started."""
    exits: dict[str, dict[str, int]] = {}
    for (server, reason), count in sorted(meters.exits.items()):
        exits.setdefault(server, {})[reason] = count
    names = sorted({*meters.starts, *meters.cpu_s, *exits})
    return {
        name: {
            "starts": meters.starts[name],
            "cpu_s": round(meters.cpu_s.get(name, 0.0), 2),
            "oom_kills": meters.oom_kills[name],
            "exits": exits.get(name, {}),
        }
        for name in names
    }


def _users(
    instances: Sequence[InstanceView], sessions: Sequence[SessionView]
) -> list[dict[str, object]]:
    """Sum up by the key's fingerprint who uses what."""
    found: dict[str, dict[str, object]] = {}

    def of(fingerprint: str, user: str) -> dict[str, object]:
        entry = found.setdefault(
            fingerprint,
            {"key": fingerprint, "user": "", "sessions": 0, "instances": 0, "idle_s": None},
        )
        entry["user"] = entry["user"] or user
        return entry

    def used(entry: dict[str, object], what: str, idle_s: float | None) -> None:
        count, idle = entry[what], entry["idle_s"]
        assert isinstance(count, int)
        entry[what] = count + 1
        if idle_s is not None and (not isinstance(idle, float) or idle_s < idle):
            entry["idle_s"] = float(idle_s)

    for session in sessions:
        used(of(session.owner, session.user), "sessions", session.idle_s)
    for instance in instances:
        if instance.owner not in ("shared", "warm"):
            used(of(instance.owner, instance.user), "instances", instance.idle_s)
    return sorted(found.values(), key=lambda entry: str(entry["key"]))
