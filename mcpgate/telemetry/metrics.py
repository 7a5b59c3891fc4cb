"""
The meters in Prometheus' text form.

Nothing is kept here and nothing happens per request: the collector reads the meters and asks for
gauges when somebody scrapes.  Every label value is a configured name or a literal of our own, so
the number of series is bounded; those that are known are there from the start, at 0, so that an
alert can be written before the first failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from typing_extensions import override

from mcpgate.model import InstanceState
from mcpgate.telemetry.meters import REQUEST_BUCKETS_S, Meters
from mcpgate.telemetry.views import CertificateView, InstanceView

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

#: Events that are shown at 0 before they first happen; others appear when they do.
KNOWN_EVENTS: Final = (
    *("auth_budget_spent", "auth_locked_out", "auth_ok", "auth_refused", "auth_unavailable"),
    *("certificate_reload_failed", "certificate_reloaded", "config_reload_failed"),
    *("connections_refused", "container_adopted", "container_oom", "container_started"),
    *("engine_timeout", "fd_low", "http_reject", "instance_adopted", "instance_crashed"),
    *(
        "instance_started",
        "instance_stopped",
        "overloaded",
        "proxy_header_refused",
        "rate_limited",
        "reactor_stall",
    ),
    *("session_created", "session_ended", "session_theft", "slow_reader", "stdio_noise"),
    *(
        "stdio_unattributed",
        "stray_removed",
        "stray_reply",
        "tls_handshake_failed",
        "tls_handshake_late",
    ),
    *("tls_handshakes_full", "upstream_bad_answer", "upstream_connect_failed"),
    "upstream_connected",
)


class GateCollector(Collector):
    """
    Turns one gate's meters into metric families.

    :param servers: names of the configured servers.
    :param instances: what exists now; ``sessions``: live sessions by server.
    :param certificates: those presented to clients.
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
        gauges: Mapping[str, tuple[str, Callable[[], float]]] | None = None,
    ) -> None:
        self._meters = meters
        self._version = version
        self._servers = servers
        self._instances = instances
        self._sessions = sessions
        self._certificates = certificates
        self._gauges = dict(gauges or {})

    @override
    def collect(self) -> Iterable[Metric]:
        meters = self._meters
        servers = sorted(self._servers())
        build = GaugeMetricFamily("mcpgate_build_info", "1, with the version.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        yield from self._traffic(servers)
        events = CounterMetricFamily("mcpgate_events", "Events by name.", labels=["event"])
        for event in sorted({*KNOWN_EVENTS, *meters.events}):
            events.add_metric([event], meters.events.get(event, 0))
        yield events
        yield from self._population(servers)
        expiry = GaugeMetricFamily(
            "mcpgate_certificate_expiry_timestamp_seconds",
            "When a certificate ends, Unix time.",
            labels=["name"],
        )
        for certificate in self._certificates():
            expiry.add_metric([certificate.name], certificate.expires_at)
        yield expiry
        yield GaugeMetricFamily(
            "mcpgate_reactor_longest_turn_seconds",
            "Longest time the reactor answered nobody.",
            meters.longest_turn_s,
        )
        for name, (text, reading) in sorted(self._gauges.items()):
            yield GaugeMetricFamily(f"mcpgate_{name}", text, reading())

    def _traffic(self, servers: list[str]) -> Iterable[Metric]:
        meters = self._meters
        requests = CounterMetricFamily(
            "mcpgate_requests", "Answered requests.", labels=["server", "status"]
        )
        counts = {(server, 200): 0 for server in servers} | dict(meters.requests)
        for (server, status), count in sorted(counts.items()):
            requests.add_metric([server, str(status)], count)
        yield requests
        duration = HistogramMetricFamily(
            "mcpgate_request_duration_seconds",
            "From a request's head to the end of its answer.",
            labels=["server"],
        )
        for server in sorted({*servers, *meters.request_s}):
            total, buckets = 0, []
            for index, bound in enumerate((*REQUEST_BUCKETS_S, None)):
                total += meters.request_buckets.get((server, index), 0)
                buckets.append(("+Inf" if bound is None else str(bound), total))
            duration.add_metric([server], buckets, meters.request_s.get(server, 0.0))
        yield duration
        for name, text, value in (
            ("received_body_bytes", "Body bytes from clients.", meters.bytes_in),
            ("sent_body_bytes", "Body bytes to clients.", meters.bytes_out),
            ("connections_accepted", "Client connections accepted.", meters.connections_total),
        ):
            yield CounterMetricFamily(f"mcpgate_{name}", text, value)
        for name, text, value in (
            ("connections", "Open client connections.", meters.connections),
            ("streams", "Open event streams and upgraded connections.", meters.streams),
            ("calls_in_work", "Calls not answered yet.", meters.calls_in_work),
        ):
            yield GaugeMetricFamily(f"mcpgate_{name}", text, value)

    def _population(self, servers: list[str]) -> Iterable[Metric]:
        instances = GaugeMetricFamily(
            "mcpgate_instances", "Instances by state.", labels=["server", "state"]
        )
        shown = [state.value for state in InstanceState if state is not InstanceState.ABSENT]
        counts = {(server, state): 0 for server in servers for state in shown}
        memory = dict.fromkeys(servers, 0)
        for view in self._instances():
            key = (view.server, view.state)
            counts[key] = counts.get(key, 0) + 1
            memory[view.server] = memory.get(view.server, 0) + (view.memory_bytes or 0)
        for (server, state), count in sorted(counts.items()):
            instances.add_metric([server, state], count)
        yield instances
        used = GaugeMetricFamily(
            "mcpgate_instances_memory_bytes",
            "Memory of all instances of a server.",
            labels=["server"],
        )
        for server, amount in sorted(memory.items()):
            used.add_metric([server], amount)
        yield used
        sessions = GaugeMetricFamily("mcpgate_sessions", "Live sessions.", labels=["server"])
        for server, count in sorted(
            ({server: 0 for server in servers} | dict(self._sessions())).items()
        ):
            sessions.add_metric([server], count)
        yield sessions


class Metrics:
    """
    What ``/metrics`` answers: one gate's own registry, with the figures of its process.

    The ``process_*`` names are those every exporter uses.
    """

    def __init__(self, collector: GateCollector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Give the exposition; a few milliseconds."""
        return generate_latest(self._registry)
