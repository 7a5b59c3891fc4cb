"""
Metric families: what `mcpgate.telemetry.exposition` writes.

Only what a gate has: counters, gauges, histograms.  ``prometheus_client`` has the same and much
more, for which an idle gate would keep a MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    """One line: a name, labels, and the value they have now."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(slots=True, eq=False)
class Family:
    """
    Samples of one name.

    :ivar name: without the ending that a sample's kind adds.
    :ivar kind: ``counter``, ``gauge`` or ``histogram``.
    """

    name: str
    text: str
    kind: str
    labels: tuple[str, ...]
    samples: list[Sample]

    @property
    def shown(self) -> str:
        """The name in comments."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def add(self, values: Sequence[str], value: float) -> None:
        """Add the sample with these values of the labels; not of a histogram."""
        labels = dict(zip(self.labels, values, strict=True))
        self.samples.append(Sample(self.shown, labels, value))

    def add_buckets(
        self, values: Sequence[str], buckets: Iterable[tuple[str, float]], total: float
    ) -> None:
        """
        Add a histogram's samples.

        :param buckets: upper bound and count, cumulative; the last is ``+Inf``.
        :param total: sum of what was observed.
        """
        labels = dict(zip(self.labels, values, strict=True))
        count = 0.0
        for bound, count in buckets:
            self.samples.append(Sample(f"{self.name}_bucket", {**labels, "le": bound}, count))
        self.samples.append(Sample(f"{self.name}_count", labels, count))
        self.samples.append(Sample(f"{self.name}_sum", labels, total))


def counter(
    name: str, text: str, value: float | None = None, *, labels: Sequence[str] = ()
) -> Family:
    """Make a family of counters; with a value, of one without labels."""
    return _family(name, text, "counter", labels, value)


def gauge(
    name: str, text: str, value: float | None = None, *, labels: Sequence[str] = ()
) -> Family:
    """Make a family of gauges; with a value, of one without labels."""
    return _family(name, text, "gauge", labels, value)


def histogram(name: str, text: str, *, labels: Sequence[str] = ()) -> Family:
    """Make a family of histograms."""
    return _family(name, text, "histogram", labels, None)


def _family(name: str, text: str, kind: str, labels: Sequence[str], value: float | None) -> Family:
    family = Family(name, text, kind, tuple(labels), [])
    if value is not None:
        family.add((), value)
    return family
