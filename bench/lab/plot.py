"""Bars of how fast each contender was, as an SVG drawing that fits light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from bench.lab.figures import KINDS, Outcome
from bench.lab.lab import GATE

# Case, work, and the figure that is drawn; more is better in each.
DRAWN: Final = (
    ("relay", "32 connections", "rate", "Relay, small JSON, in clear"),
    ("relay-tls", "kept alive", "rate", "Relay, small JSON, TLS kept alive"),
    ("stdio", "32 clients", "rate", "tools/call, shared stdio server, 32 clients"),
    ("eras", "modern client, HTTP server", "rate", "tools/call, HTTP server, 32 clients"),
    ("events", "1 000 events", "events", "Streams of 1 000 events"),
    ("bodies", "100 MB down", "mb_s", "100 MB down"),
    ("websocket", "8 connections", "rate", "WebSocket messages"),
)
# The server without a proxy is no contender, and would make all others look alike.
_LEFT_OUT: Final = ("direct",)
_WIDTH, _LABEL, _ROOM = 760, 130, 130
_TITLE, _BAR, _GAP = 26, 20, 14


def draw(outcomes: Mapping[str, Outcome]) -> str:
    """Draw what was measured; empty when nothing of it was."""
    lines: list[str] = []
    y = 4
    for case, work, kind, title in DRAWN:
        outcome = outcomes.get(case)
        if outcome is None:
            continue
        found = {
            row.contender: value
            for row in outcome.rows
            if row.work == work and row.contender not in _LEFT_OUT
            if (value := row.median(kind)) is not None
        }
        if GATE not in found:
            continue
        lines.append(f'<text x="0" y="{y + 16}" font-weight="bold">{escape(title)}</text>')
        y += _TITLE
        for name, value in sorted(found.items(), key=lambda pair: -pair[1]):
            lines += _bar(y, name, value, max(found.values()), KINDS[kind].label)
            y += _BAR
        y += _GAP
    if not lines:
        return ""
    head = (
        f'<svg viewBox="0 0 {_WIDTH} {y}" xmlns="http://www.w3.org/2000/svg" role="img" '
        'aria-label="How fast each contender was, by case" '
        'style="max-width: 100%; height: auto">'
    )
    style = '<g font-family="sans-serif" font-size="13" fill="currentColor">'
    return "\n".join([head, style, *lines, "</g>", "</svg>"])


def _bar(y: int, name: str, value: float, most: float, unit: str) -> list[str]:
    width = max(1.0, value / most * (_WIDTH - _LABEL - _ROOM))
    ours = name == GATE
    weight = ' font-weight="bold"' if ours else ""
    told = f"{value:,.0f}".replace(",", " ")
    return [
        f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end"{weight}>{escape(name)}</text>',
        f'<rect x="{_LABEL}" y="{y + 2}" width="{width:.0f}" height="{_BAR - 6}" rx="2" '
        + ('fill="#d9822b"/>' if ours else 'opacity="0.45"/>'),
        f'<text x="{_LABEL + width + 6:.0f}" y="{y + 13}"{weight}>{told} {escape(unit)}</text>',
    ]
