"""
Draw the life of an instance from the machine in the code.

    python docs/make_diagrams.py            write docs/explanation/instance_life.rst
    python docs/make_diagrams.py --check    exit status 1 when that file is not current

The places of the states on the drawing are chosen here by hand; which states and arrows there are
is read from ``mcpgate.runtime.instance``.  A new state without a place is an error.
"""

import argparse
import sys
from html import escape
from math import hypot
from pathlib import Path

from mcpgate.runtime.instance import mermaid, transitions

TARGET = Path(__file__).parent / "explanation" / "instance_life.rst"

PLACES = {
    "Absent": (100, 60),
    "Starting": (420, 140),
    "Running": (860, 60),
    "Recreating": (250, 200),
    "Failed": (420, 260),
    "Restarting": (640, 300),
    "Stopping": (860, 300),
    "Removing": (100, 440),
    "Stopped": (640, 440),
}
WIDTH, HEIGHT = 960, 500
HALF_WIDTH, HALF_HEIGHT = 56, 20
#: Two arrows between the same states run side by side.
APART = 9


def arrows() -> dict[tuple[str, str], list[str]]:
    """Give the inputs that lead from one state to another, by pair of states."""
    found: dict[tuple[str, str], list[str]] = {}
    for old, name, new in transitions():
        if old != new:
            found.setdefault((old, new), []).append(name.lstrip("_"))
    return found


def border(x: float, y: float, dx: float, dy: float) -> tuple[float, float]:
    """Give where a ray from a box's middle leaves the box."""
    scale = min(
        HALF_WIDTH / abs(dx) if dx else float("inf"), HALF_HEIGHT / abs(dy) if dy else float("inf")
    )
    return x + dx * scale, y + dy * scale


def arrow(old: str, new: str, names: list[str], both_ways: bool) -> list[str]:
    """Draw one arrow and its label."""
    (x1, y1), (x2, y2) = PLACES[old], PLACES[new]
    length = hypot(x2 - x1, y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    shift = APART if both_ways else 0
    x1, x2, y1, y2 = x1 - dy * shift, x2 - dy * shift, y1 + dx * shift, y2 + dx * shift
    start, end = border(x1, y1, dx, dy), border(x2, y2, -dx, -dy)
    at = 0.42 if both_ways else 0.5
    label_x = start[0] + (end[0] - start[0]) * at
    label_y = start[1] + (end[1] - start[1]) * at + 4
    return [
        f'<line x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" y2="{end[1]:.0f}" '
        'marker-end="url(#head)"/>',
        f'<text class="label" x="{label_x:.0f}" y="{label_y:.0f}">'
        f"{escape(', '.join(names))}</text>",
    ]


def drawing() -> list[str]:
    """Draw the machine as SVG, in the colours of the page it stands on."""
    found = arrows()
    lines = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img" '
        'aria-label="States of an instance and what leads from one to another" '
        'style="max-width: 100%; height: auto">',
        "<style>",
        ".life line, .life rect { stroke: currentColor; stroke-width: 1.5; fill: none; }",
        ".life text { fill: currentColor; font: 15px sans-serif; text-anchor: middle; }",
        ".life .label { font-size: 13px; paint-order: stroke;"
        " stroke: var(--color-background-primary, white); stroke-width: 6px; }",
        "</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto-start-reverse">'
        '<path d="M 0 0 L 10 5 L 0 10 z" fill="currentColor"/></marker></defs>',
        '<g class="life">',
    ]
    drawn = [
        arrow(old, new, names, (new, old) in found) for (old, new), names in sorted(found.items())
    ]
    lines += [line for line, _ in drawn]
    lines += [label for _, label in drawn]
    for state, (x, y) in sorted(PLACES.items()):
        lines.append(
            f'<rect x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}" width="{2 * HALF_WIDTH}" '
            f'height="{2 * HALF_HEIGHT}" rx="8"/>'
        )
        lines.append(f'<text x="{x}" y="{y + 5}">{escape(state)}</text>')
    return [*lines, "</g>", "</svg>"]


def table() -> list[str]:
    """List every state, every input and what follows; what changes nothing is in one cell."""
    states: dict[str, dict[str, list[str]]] = {}
    for old, name, new in transitions():
        states.setdefault(old, {}).setdefault(new, []).append(f"``{name.lstrip('_')}``")
    lines = [".. list-table:: Every input in every state", "   :header-rows: 1", ""]
    lines += [
        "   * - State",
        "     - Inputs that lead elsewhere",
        "     - Inputs that change nothing",
    ]
    for state, nexts in sorted(states.items()):
        leading = [f"{', '.join(n)} → {new}" for new, n in sorted(nexts.items()) if new != state]
        staying = nexts.get(state, [])
        lines += [f"   * - {state}", f"     - {'; '.join(leading)}", f"     - {', '.join(staying)}"]
    return lines


def page() -> str:
    """Make the whole file."""
    states = {state for old, _, new in transitions() for state in (old, new)}
    if states != set(PLACES):
        raise SystemExit(f"PLACES does not fit the machine: {sorted(states ^ set(PLACES))}")
    lines = [".. Made by python docs/make_diagrams.py from mcpgate/runtime/instance.py.", ""]
    lines += [".. raw:: html", "", *(f"   {line}" for line in drawing()), ""]
    lines += [*table(), "", "The same for tools that read Mermaid:", ""]
    lines += [".. code-block:: text", "", *(f"   {line}" for line in mermaid().splitlines()), ""]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the life of an instance.")
    parser.add_argument("--check", action="store_true")
    made = page()
    if parser.parse_args().check:
        return int(not TARGET.exists() or TARGET.read_text(encoding="utf-8") != made)
    TARGET.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
