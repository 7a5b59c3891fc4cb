"""
What the gate is meant to reach, as ratios within one run: ``shared/performance.md``, section 4.

`judge` holds each against what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.lab.figures import Outcome
from bench.lab.lab import GATE

Outcomes = Mapping[str, Outcome]
_PEERS: Final = ("PyPI mcp-proxy", "npm mcp-proxy", "supergateway", "FastMCP")


@dataclass(frozen=True)
class Target:
    """
    One target.

    :ivar case: the case it is measured in.
    :ivar at_least: more is better; otherwise less.
    :ivar measure: finds the value; None when a part of it was not measured.
    """

    work: str
    case: str
    bound: float
    unit: str
    at_least: bool
    measure: Callable[[Outcome], float | None]

    @property
    def is_ratio(self) -> bool:
        """Tell whether it compares two programs in one run."""
        return self.unit.startswith("x ")

    @property
    def wanted(self) -> str:
        """What is wanted, in words."""
        return f"{'>=' if self.at_least else '<='} {self.bound:g} {self.unit}"


@dataclass(frozen=True)
class Verdict:
    """
    What became of a target.

    :ivar value: what was measured, or why nothing was.
    :ivar met: None when nothing was measured.
    """

    target: Target
    value: str
    met: bool | None


def judge(outcomes: Outcomes) -> list[Verdict]:
    """Hold every target against what was measured."""
    verdicts = []
    for target in TARGETS:
        outcome = outcomes.get(target.case)
        value = None
        reason = "not measured"
        if outcome is not None:
            value = target.measure(outcome)
            reason = outcome.skipped or "not measured: a contender is missing"
        if value is None:
            verdicts.append(Verdict(target, reason, None))
            continue
        met = value >= target.bound if target.at_least else value <= target.bound
        shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
        verdicts.append(Verdict(target, shown, met))
    return verdicts


def text(outcomes: Outcomes) -> str:
    """Give the targets as text."""
    words = {True: "met", False: "MISSED", None: "-"}
    rows = [("target", "wanted", "measured", "")]
    rows += [(v.target.work, v.target.wanted, v.value, words[v.met]) for v in judge(outcomes)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["== targets"]
    for row in rows:
        first = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"   {first}  {row[3]}".rstrip())
    return "\n".join([*lines, ""])


def _against(work: str, kind: str, theirs: str) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.ratio(work, kind, GATE, theirs)


def _of_gate(work: str, kind: str, contender: str = GATE) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.median(work, contender, kind)


def _best_peer(outcome: Outcome, work: str) -> str | None:
    """Find the fastest peer at a work."""
    rates = {name: outcome.median(work, name, "rate") for name in _PEERS}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _against_best(work: str, kind: str) -> Callable[[Outcome], float | None]:
    def measure(outcome: Outcome) -> float | None:
        best = _best_peer(outcome, work)
        return None if best is None else outcome.ratio(work, kind, GATE, best)

    return measure


def _longest(outcome: Outcome) -> float | None:
    values = [value for row in outcome.rows if (value := row.median("turn_cpu_ms")) is not None]
    return max(values) if values else None


def _workers(work: str) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.ratio(
        work, "capacity", f"{GATE}, two workers", f"{GATE}, one process"
    )


TARGETS: Final = (
    Target(
        "relay, small JSON, in clear",
        "relay",
        0.5,
        "x nginx",
        True,
        _against("32 connections", "rate", "nginx"),
    ),
    Target(
        "relay, small JSON, in clear",
        "relay",
        12.0,
        "x Klein + treq",
        True,
        _against("32 connections", "rate", "Klein + treq"),
    ),
    Target(
        "relay, small JSON, TLS kept alive",
        "relay-tls",
        0.35,
        "x nginx",
        True,
        _against("kept alive", "rate", "nginx"),
    ),
    Target(
        "tools/call, shared stdio server, 32 clients",
        "stdio",
        3.0,
        "x best peer",
        True,
        _against_best("32 clients", "rate"),
    ),
    Target(
        "tools/call, shared stdio server, 32 clients, p99",
        "stdio",
        0.5,
        "x best peer",
        False,
        _against_best("32 clients", "p99_ms"),
    ),
    Target(
        "added latency of a warm call, HTTP server",
        "latency",
        0.3,
        "ms",
        False,
        _of_gate("HTTP server", "added_ms"),
    ),
    Target(
        "added latency of a warm call, stdio server",
        "latency",
        0.3,
        "ms",
        False,
        _of_gate("stdio server", "added_ms"),
    ),
    Target(
        "stream of 1 000 events",
        "events",
        0.5,
        "x nginx",
        True,
        _against("1 000 events", "events", "nginx"),
    ),
    Target(
        "10 000 idle streams, in clear, memory of each",
        "idle-streams",
        10.0,
        "KB",
        False,
        _of_gate("in clear", "kb_each"),
    ),
    Target(
        "10 000 idle streams, TLS, memory of each",
        "idle-streams",
        28.0,
        "KB",
        False,
        _of_gate("TLS", "kb_each"),
    ),
    Target(
        "10 000 idle streams, in clear, processor",
        "idle-streams",
        3.0,
        "%",
        False,
        _of_gate("in clear", "cpu_percent"),
    ),
    Target(
        "100 MB down through the relay",
        "bodies",
        0.5,
        "x nginx",
        True,
        _against("100 MB down", "mb_s", "nginx"),
    ),
    Target(
        "100 MB up through the relay",
        "bodies",
        0.5,
        "x nginx",
        True,
        _against("100 MB up", "mb_s", "nginx"),
    ),
    Target(
        "100 MB down, memory it takes meanwhile",
        "bodies",
        8.0,
        "MiB",
        False,
        _of_gate("100 MB down", "grown_mib"),
    ),
    Target("idle gate, memory", "cold-start", 60.0, "MiB", False, _of_gate("1 server", "rss_mib")),
    Target(
        "memory of a session", "scale", 4.0, "KB", False, _of_gate("10 000 sessions", "kb_each")
    ),
    Target(
        "cold start to listening, 100 servers",
        "cold-start",
        600.0,
        "ms",
        False,
        _of_gate("100 servers", "time_ms"),
    ),
    Target(
        "reload with 100 servers, longest stall of others",
        "reload",
        50.0,
        "ms",
        False,
        _of_gate("100 servers", "stall_ms"),
    ),
    Target(
        "longest turn of the reactor, 100 000 sessions",
        "turns",
        50.0,
        "ms of CPU",
        False,
        _longest,
    ),
    *(
        Target(
            f"two workers on two cores, by their CPU time: {work}",
            "workers",
            1.8,
            "x one",
            True,
            _workers(work),
        )
        for work in ("relay, in clear", "relay, TLS")
    ),
)
