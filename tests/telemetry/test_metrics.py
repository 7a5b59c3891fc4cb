"""Tests of the Prometheus exposition."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.exposition import exposition
from mcpgate.telemetry.families import counter, gauge, histogram
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.metrics import KNOWN_EVENTS, GateCollector, Metrics
from mcpgate.telemetry.views import CertificateView, EngineView, ImageView, InstanceView


class MetricsTests(SynchronousTestCase):
    """What a scrape gets."""

    def setUp(self) -> None:
        """Make metrics over empty meters and one server."""
        self.meters = Meters()
        self.instances: list[InstanceView] = []
        self.sessions: dict[str, int] = {}
        self.images: list[ImageView] = []
        self.engine: EngineView | None = None
        self.metrics = Metrics(
            GateCollector(
                self.meters,
                version="1.2",
                servers=lambda: ["files"],
                instances=lambda: self.instances,
                sessions=lambda: self.sessions,
                certificates=lambda: [CertificateView(name="gate.example", expires_at=9.0)],
                images=lambda: self.images,
                engine=lambda: self.engine,
                gauges={"log_lines_dropped": ("Log lines lost.", lambda: 4)},
            )
        )

    def read(self, name: str, /, **labels: str) -> float | None:
        """Scrape, and give one sample."""
        text = self.successResultOf(self.metrics.render()).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    def test_there_before_anything_happened(self) -> None:
        """Known series are at 0 from the start, so that alerts can be written."""
        self.assertEqual(self.read("mcpgate_requests_total", server="files", status="200"), 0)
        for event in KNOWN_EVENTS:
            self.assertEqual(self.read("mcpgate_events_total", event=event), 0)
        for state in ("starting", "running", "stopping", "stopped", "failed", "unresponsive"):
            self.assertEqual(self.read("mcpgate_instances", server="files", state=state), 0)
        self.assertEqual(self.read("mcpgate_sessions", server="files"), 0)
        self.assertEqual(self.read("mcpgate_build_info", version="1.2"), 1)

    def test_requests(self) -> None:
        """Requests are counted by server and status, their time in cumulative buckets."""
        for seconds in (0.0004, 0.003, 0.003, 700.0):
            self.meters.answered("files", 200, seconds)
        self.meters.answered("-", 404, 0.002)
        self.assertEqual(self.read("mcpgate_requests_total", server="files", status="200"), 4)
        self.assertEqual(self.read("mcpgate_requests_total", server="-", status="404"), 1)
        name = "mcpgate_request_duration_seconds"
        self.assertEqual(self.read(f"{name}_bucket", server="files", le="0.001"), 1)
        self.assertEqual(self.read(f"{name}_bucket", server="files", le="0.005"), 3)
        self.assertEqual(self.read(f"{name}_bucket", server="files", le="60.0"), 3)
        self.assertEqual(self.read(f"{name}_bucket", server="files", le="+Inf"), 4)
        self.assertEqual(self.read(f"{name}_count", server="files"), 4)
        self.assertAlmostEqual(self.read(f"{name}_sum", server="files") or 0, 700.0064)

    def test_gauges(self) -> None:
        """What is open now, what it holds, and when certificates end."""
        self.meters.connections, self.meters.streams = 7, 3
        self.meters.calls_in_work, self.meters.longest_turn_s = 2, 0.5
        self.meters.bytes_in, self.meters.bytes_out = 10, 20
        self.meters.events["session_theft"] += 1
        self.meters.events["something_new"] += 2
        self.instances += [
            InstanceView(server="files", owner="aa", state="running", memory_bytes=100),
            InstanceView(server="files", owner="bb", state="running", memory_bytes=50),
            InstanceView(server="gone", owner="bb", state="stopping"),
        ]
        self.sessions["files"] = 5
        for name, value in (
            ("connections", 7),
            ("streams", 3),
            ("calls_in_work", 2),
            ("reactor_longest_turn_seconds", 0.5),
            ("received_body_bytes_total", 10),
            ("sent_body_bytes_total", 20),
            ("log_lines_dropped", 4),
        ):
            self.assertEqual(self.read(f"mcpgate_{name}"), value, name)
        self.assertEqual(self.read("mcpgate_events_total", event="session_theft"), 1)
        self.assertEqual(self.read("mcpgate_events_total", event="something_new"), 2)
        self.assertEqual(self.read("mcpgate_instances", server="files", state="running"), 2)
        self.assertEqual(self.read("mcpgate_instances", server="gone", state="stopping"), 1)
        self.assertEqual(self.read("mcpgate_instances_memory_bytes", server="files"), 150)
        self.assertEqual(self.read("mcpgate_sessions", server="files"), 5)
        self.assertEqual(
            self.read("mcpgate_certificate_expiry_timestamp_seconds", name="gate.example"), 9.0
        )

    def test_lives(self) -> None:
        """Starts, ends, kills and processor time by server count also what is gone."""
        self.assertEqual(self.read("mcpgate_instance_starts_total", server="files"), 0)
        labels = {"server": "files", "reason": "oom_killed"}
        self.assertEqual(self.read("mcpgate_instance_exits_total", **labels), 0)
        self.meters.starts["files"] += 3
        self.meters.exits["files", "oom_killed"] += 2
        self.meters.cpu_s["files"] += 1.5
        self.meters.oom_kills["gone"] += 1
        self.instances.append(
            InstanceView(
                server="files", owner="aa", state="running", processes=4, memory_limit_bytes=500
            )
        )
        self.assertEqual(self.read("mcpgate_instance_starts_total", server="files"), 3)
        self.assertEqual(self.read("mcpgate_instance_exits_total", **labels), 2)
        self.assertEqual(self.read("mcpgate_instance_cpu_seconds_total", server="files"), 1.5)
        self.assertEqual(self.read("mcpgate_instance_oom_kills_total", server="gone"), 1)
        self.assertEqual(self.read("mcpgate_instances_processes", server="files"), 4)
        self.assertEqual(self.read("mcpgate_instances_memory_limit_bytes", server="files"), 500)

    def test_engine(self) -> None:
        """The engine and its images are there when some server needs them."""
        self.assertIsNone(self.read("mcpgate_engine_up"))
        self.engine = EngineView(answering=False, waiting=0, calls={"ok": 7, "timeout": 1})
        self.images = [
            ImageView(name="a:1", servers=("files", "notes"), state="present"),
            ImageView(name="b:1", servers=("clock",), state="missing"),
            ImageView(name="c:1", servers=("later",)),
        ]
        self.assertEqual(self.read("mcpgate_engine_up"), 0)
        self.assertEqual(self.read("mcpgate_engine_calls_total", outcome="timeout"), 1)
        self.assertEqual(self.read("mcpgate_image_present", server="notes"), 1)
        self.assertEqual(self.read("mcpgate_image_present", server="clock"), 0)
        self.assertIsNone(self.read("mcpgate_image_present", server="later"))

    def test_process(self) -> None:
        """Memory, processor time and descriptors of the gate's process are there."""
        self.assertGreater(self.read("process_resident_memory_bytes") or 0, 0)
        self.assertGreater(self.read("process_open_fds") or 0, 0)
        self.assertIsNotNone(self.read("process_cpu_seconds_total"))

    def test_two_gates(self) -> None:
        """Two gates in one process do not share a registry."""
        other = Metrics(
            GateCollector(Meters(), version="2", servers=list, instances=list, sessions=dict)
        )
        self.assertNotIn(b'version="1.2"', self.successResultOf(other.render()))

    def test_what_is_scraped_stands_still(self) -> None:
        """The text is made elsewhere of what was true when it was asked for."""
        asked: list[tuple[Callable[[], bytes], Deferred[bytes]]] = []

        def apart(work: Callable[[], bytes]) -> Deferred[bytes]:
            asked.append((work, Deferred()))
            return asked[-1][1]

        sessions = {"files": 3}
        meters = Meters()
        metrics = Metrics(
            GateCollector(
                meters,
                version="1",
                servers=lambda: ["files"],
                instances=lambda: self.instances,
                sessions=lambda: sessions,
                gauges={"x": ("X.", lambda: len(sessions))},
            ),
            apart,
        )
        waiting = metrics.render()
        self.assertNoResult(waiting)
        meters.answered("files", 200, 0.1)
        sessions["mail"] = 1
        ((work, told),) = asked
        told.callback(work())
        text = self.successResultOf(waiting)
        self.assertIn(b'mcpgate_requests_total{server="files",status="200"} 0.0\n', text)
        self.assertIn(b'mcpgate_sessions{server="files"} 3.0\n', text)
        self.assertNotIn(b"mail", text)
        self.assertIn(b"mcpgate_x 1.0\n", text)


class ExpositionTests(SynchronousTestCase):
    """Our writer against that of ``prometheus_client``."""

    def test_same_meaning(self) -> None:
        """Both write what reads the same, whatever stands in labels."""
        odd = 'a"b\\c\nd\u00e4,}{='
        numbers = [float("inf"), float("-inf"), 0.1, -7]
        buckets = [("0.1", 2.0), ("+Inf", 5.0)]
        ours = [
            counter("a_thing", "Help\\ of\nit.", labels=["one", "two"]),
            gauge("b", "B.", labels=["one"]),
            histogram("c", "C.", labels=["server"]),
            gauge("d", "D.", float("nan")),
            gauge("e", "E.", labels=["one"]),
            counter("f", "F.", 3),
        ]
        ours[0].add([odd, ""], 3)
        ours[0].add(["x", odd], 1e21)
        for number, value in enumerate(numbers):
            ours[1].add([str(number)], value)
        ours[2].add_buckets([odd], buckets, 7.5)
        theirs = [
            things := CounterMetricFamily("a_thing", "Help\\ of\nit.", labels=["one", "two"]),
            many := GaugeMetricFamily("b", "B.", labels=["one"]),
            spread := HistogramMetricFamily("c", "C.", labels=["server"]),
            GaugeMetricFamily("d", "D.", float("nan")),
            GaugeMetricFamily("e", "E.", labels=["one"]),
            CounterMetricFamily("f", "F.", 3),
        ]
        things.add_metric([odd, ""], 3)
        things.add_metric(["x", odd], 1e21)
        for number, value in enumerate(numbers):
            many.add_metric([str(number)], value)
        spread.add_metric([odd], buckets, 7.5)

        class All(Collector):
            def collect(self) -> list[Metric]:
                return theirs

        registry = CollectorRegistry(auto_describe=False)
        registry.register(All())

        def read(text: bytes) -> list[str]:
            told = []
            for family in text_string_to_metric_families(text.decode()):
                told.append(f"{family.name} {family.type} {family.documentation}")
                for sample in family.samples:
                    told.append(f"{sample.name} {list(sample.labels.items())} {sample.value}")
            return told

        self.assertEqual(read(exposition(ours)), read(generate_latest(registry)))
