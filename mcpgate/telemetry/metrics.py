"""
The meters in Prometheus' text form.

Nothing is kept here and nothing happens per request: when somebody scrapes, the meters are copied,
gauges are asked, and the text is made of that on a thread: with many servers it takes long.
Every label value is a configured name or a literal of our own, so the number of series is bounded;
those that are known are there from the start, at 0, so that an alert can be written before the
first failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred

from mcpgate.model import InstanceState
from mcpgate.telemetry.exposition import exposition
from mcpgate.telemetry.families import Family, counter, gauge, histogram
from mcpgate.telemetry.meters import REQUEST_BUCKETS_S, TURN_BUCKETS_S, Meters
from mcpgate.telemetry.process_metrics import process_families
from mcpgate.telemetry.views import (
    UNRESPONSIVE,
    CertificateView,
    EngineView,
    ImageView,
    InstanceView,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Events that are shown at 0 before they first happen; others appear when they do.
KNOWN_EVENTS: Final = (
    *("auth_budget_spent", "auth_locked_out", "auth_ok", "auth_refused", "auth_unavailable"),
    *("certificate_reload_failed", "certificate_reloaded", "config_reload_failed"),
    "config_reloaded",
    *("document_changed", "document_failed"),
    *("connections_refused", "container_adopted", "container_oom", "container_started"),
    *("engine_timeout", "fd_low", "health_missed", "health_replaced", "health_shut"),
    *("http_reject", "instance_adopted", "instance_crashed"),
    *(
        "instance_started",
        "instance_stopped",
        "overloaded",
        "proxy_header_refused",
        "rate_limited",
        "reactor_stall",
    ),
    "memory_low",
    "result_cache_hit",
    "streams_shed",
    *("session_created", "session_ended", "session_theft", "slow_reader", "stdio_noise"),
    *("snapshot_answer", "snapshot_outdated", "snapshot_taken"),
    *("instance_prestarted", "spare_started", "spare_taken"),
    *(
        "stdio_unattributed",
        "stray_removed",
        "stray_reply",
        "tool_refused",
        "tools_changed",
        "tls_handshake_failed",
        "tls_handshake_late",
    ),
    *("tls_handshakes_full", "upstream_bad_answer", "upstream_connect_failed"),
    *("upstream_connected", "worker_replaced"),
)


_EXITS: Final = ("exited", "killed", "lost", "oom_killed", "stopped")


class GateCollector:
    """
    Turns one gate's meters into metric families.

    :param servers: names of the configured servers.
    :param instances: what exists now; ``sessions``: live sessions by server.
    :param certificates: those presented to clients.
    :param images: those of servers in containers; ``engine``: None when there are no such servers.
    :param gauges: further gauges by name without prefix: help text and reading.
    """

    def __init__(
        self,
        meters: Meters,
        *,
        version: str,
        servers: Callable[[], Iterable[str]],
        instances: Callable[[], Iterable[InstanceView]],
        sessions: Callable[[], Mapping[str, int]],
        certificates: Callable[[], Iterable[CertificateView]] = tuple,
        images: Callable[[], Iterable[ImageView]] = tuple,
        engine: Callable[[], EngineView | None] = lambda: None,
        gauges: Mapping[str, tuple[str, Callable[[], float]]] | None = None,
    ) -> None:
        self._meters = meters
        self._version = version
        self._servers = servers
        self._instances = instances
        self._sessions = sessions
        self._certificates = certificates
        self._images = images
        self._engine = engine
        self._gauges = dict(gauges or {})

    def frozen(self) -> GateCollector:
        """Give one that goes on telling what is true now, and can be asked on any thread."""
        servers, instances = tuple(self._servers()), tuple(self._instances())
        sessions = dict(self._sessions())
        certificates, images = tuple(self._certificates()), tuple(self._images())
        engine = self._engine()
        gauges = {
            name: (text, partial(float, reading()))
            for name, (text, reading) in self._gauges.items()
        }
        return GateCollector(
            self._meters.copy(),
            version=self._version,
            servers=lambda: servers,
            instances=lambda: instances,
            sessions=lambda: sessions,
            certificates=lambda: certificates,
            images=lambda: images,
            engine=lambda: engine,
            gauges=gauges,
        )

    def collect(self) -> Iterable[Family]:
        """Give every family."""
        meters = self._meters
        servers = sorted(self._servers())
        build = gauge("mcpgate_build_info", "1, with the version.", labels=["version"])
        build.add([self._version], 1)
        yield build
        yield from self._traffic(servers)
        events = counter("mcpgate_events", "Events by name.", labels=["event"])
        for event in sorted({*KNOWN_EVENTS, *meters.events}):
            events.add([event], meters.events.get(event, 0))
        yield events
        yield from self._population(servers)
        yield from self._lives(servers)
        yield from self._containers()
        expiry = gauge(
            "mcpgate_certificate_expiry_timestamp_seconds",
            "When a certificate ends, Unix time.",
            labels=["name"],
        )
        for certificate in self._certificates():
            expiry.add([certificate.name], certificate.expires_at)
        yield expiry
        yield from self._reactor()
        for name, (text, reading) in sorted(self._gauges.items()):
            yield gauge(f"mcpgate_{name}", text, reading())

    def _traffic(self, servers: list[str]) -> Iterable[Family]:
        meters = self._meters
        requests = counter("mcpgate_requests", "Answered requests.", labels=["server", "status"])
        counts = {(server, 200): 0 for server in servers} | dict(meters.requests)
        for (server, status), count in sorted(counts.items()):
            requests.add([server, str(status)], count)
        yield requests
        duration = histogram(
            "mcpgate_request_duration_seconds",
            "From a request's head to the end of its answer.",
            labels=["server"],
        )
        for server in sorted({*servers, *meters.request_s}):
            total, buckets = 0, []
            for index, bound in enumerate((*REQUEST_BUCKETS_S, None)):
                total += meters.request_buckets.get((server, index), 0)
                buckets.append(("+Inf" if bound is None else str(bound), total))
            duration.add_buckets([server], buckets, meters.request_s.get(server, 0.0))
        yield duration
        for name, text, value in (
            ("received_body_bytes", "Body bytes from clients.", meters.bytes_in),
            ("sent_body_bytes", "Body bytes to clients.", meters.bytes_out),
            ("connections_accepted", "Client connections accepted.", meters.connections_total),
        ):
            yield counter(f"mcpgate_{name}", text, value)
        for name, text, value in (
            ("connections", "Open client connections.", meters.connections),
            ("streams", "Open event streams and upgraded connections.", meters.streams),
            ("calls_in_work", "Calls not answered yet.", meters.calls_in_work),
        ):
            yield gauge(f"mcpgate_{name}", text, value)

    def _reactor(self) -> Iterable[Family]:
        meters = self._meters
        for name, text, value in (
            (
                "reactor_longest_turn_seconds",
                "Longest time the reactor answered nobody.",
                meters.longest_turn_s,
            ),
            (
                "reactor_longest_turn_last_minute_seconds",
                "Longest time the reactor answered nobody in the last minute.",
                meters.recent_turn_s(),
            ),
            ("reactor_lag_seconds", "How late the reactor is now.", meters.lag_s),
            (
                "gc_longest_pause_seconds",
                "Longest full garbage collection.",
                meters.longest_collection_s,
            ),
        ):
            yield gauge(f"mcpgate_{name}", text, value)
        lateness = histogram(
            "mcpgate_reactor_lateness_seconds",
            "How late a timer came that is due every 50 ms.",
        )
        total, buckets = 0, []
        for count, bound in zip(meters.lag_buckets, (*TURN_BUCKETS_S, None), strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else str(bound), total))
        lateness.add_buckets([], buckets, meters.lags_s)
        yield lateness

    def _population(self, servers: list[str]) -> Iterable[Family]:
        instances = gauge("mcpgate_instances", "Instances by state.", labels=["server", "state"])
        shown = [state.value for state in InstanceState if state is not InstanceState.ABSENT]
        shown.append(UNRESPONSIVE)
        counts = {(server, state): 0 for server in servers for state in shown}
        memory, limits, processes = (dict.fromkeys(servers, 0) for _ in range(3))
        for view in self._instances():
            name, key = view.server, (view.server, view.state)
            counts[key] = counts.get(key, 0) + 1
            memory[name] = memory.get(name, 0) + (view.memory_bytes or 0)
            processes[name] = processes.get(name, 0) + (view.processes or 0)
            if view.state in (InstanceState.RUNNING.value, UNRESPONSIVE):
                limits[name] = limits.get(name, 0) + view.memory_limit_bytes
        for (server, state), count in sorted(counts.items()):
            instances.add([server, state], count)
        yield instances
        for name, text, amounts in (
            ("memory_bytes", "Memory of all instances of a server.", memory),
            ("memory_limit_bytes", "Memory all running instances of a server may use.", limits),
            ("processes", "Processes and threads of all instances of a server.", processes),
        ):
            used = gauge(f"mcpgate_instances_{name}", text, labels=["server"])
            for server, amount in sorted(amounts.items()):
                used.add([server], amount)
            yield used
        sessions = gauge("mcpgate_sessions", "Live sessions.", labels=["server"])
        for server, count in sorted(
            ({server: 0 for server in servers} | dict(self._sessions())).items()
        ):
            sessions.add([server], count)
        yield sessions

    def _lives(self, servers: list[str]) -> Iterable[Family]:
        """What became of instances, by server: counted, so that those gone still count."""
        meters = self._meters
        for name, text, counts in (
            ("starts", "Instances that became ready.", meters.starts),
            ("cpu_seconds", "Processor time of instances.", meters.cpu_s),
            ("oom_kills", "Kills in containers for want of memory.", meters.oom_kills),
        ):
            family = counter(f"mcpgate_instance_{name}", text, labels=["server"])
            for server in sorted({*servers, *counts}):
                family.add([server], counts.get(server, 0))
            yield family
        exits = counter(
            "mcpgate_instance_exits", "Instances that ended.", labels=["server", "reason"]
        )
        shown = {(server, reason) for server in servers for reason in _EXITS}
        for server, reason in sorted({*shown, *meters.exits}):
            exits.add([server, reason], meters.exits.get((server, reason), 0))
        yield exits

    def _containers(self) -> Iterable[Family]:
        engine = self._engine()
        up = gauge("mcpgate_engine_up", "1 while the container engine answers.")
        calls = counter(
            "mcpgate_engine_calls", "Calls to the container engine.", labels=["outcome"]
        )
        if engine is not None:
            up.add([], engine.answering)
            for outcome, count in sorted(engine.calls.items()):
                calls.add([outcome], count)
        yield up
        yield calls
        present = gauge(
            "mcpgate_image_present",
            "1 when the image of a server is there, 0 when not.",
            labels=["server"],
        )
        for image in self._images():
            for server in image.servers if image.state != "unknown" else ():
                present.add([server], image.state == "present")
        yield present


Apart = Callable[[Callable[[], bytes]], Deferred[bytes]]


def _here(work: Callable[[], bytes]) -> Deferred[bytes]:
    return maybeDeferred(work)


class Metrics:
    """
    What ``/metrics`` answers: one gate's own figures, and those of its process.

    The ``process_*`` names are those every exporter uses.

    :param apart: does the long part on another thread.
    """

    def __init__(self, collector: GateCollector, apart: Apart = _here) -> None:
        self._collector = collector
        self._apart = apart

    def render(self) -> Deferred[bytes]:
        """Give the exposition of this moment."""
        frozen = self._collector.frozen()
        return self._apart(lambda: exposition((*frozen.collect(), *process_families())))
