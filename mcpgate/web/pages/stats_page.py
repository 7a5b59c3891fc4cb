"""The statistics as a page for people: no script, nothing loaded, every value escaped (R82)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from html import escape as escape_html
from typing import Any, Final

from mcpgate.telemetry.escaping import clean, text_of

_STYLE: Final = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:80em;color:#222;background:#fff}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin:1.6em 0 .4em}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.2em .8em .2em 0;border-bottom:1px solid #ddd}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".bad{color:#a00}.none{color:#777}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}"
    "th,td{border-color:#444}.bad{color:#f66}}"
)
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()

#: The page's Content-Security-Policy: its one style block and nothing else.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_KIB: Final = 1024
_ROWS: Final = 200


def shown(value: object) -> str:
    """Make any value safe to stand between tags."""
    return escape_html(clean(text_of(value)), quote=True)


def size(value: object) -> str:
    """Write bytes for people."""
    if not isinstance(value, int | float):
        return "-"
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < _KIB:
            return f"{amount:.0f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} GiB"


def duration(value: object) -> str:
    """Write seconds for people."""
    if not isinstance(value, int | float):
        return "-"
    seconds = int(value)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def _day(at: float) -> str:
    """Write a moment of the wall clock, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "-"


def _table(columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[object]]) -> str:
    heads = "".join(
        f'<th class="n" scope="col">{shown(title)}</th>'
        if number
        else f'<th scope="col">{shown(title)}</th>'
        for title, number in columns
    )
    lines = [
        "<tr>"
        + "".join(
            f'<td class="n">{shown(value)}</td>' if number else f"<td>{shown(value)}</td>"
            for value, (_, number) in zip(row, columns, strict=True)
        )
        + "</tr>"
        for row in rows
    ]
    if not lines:
        return '<p class="none">None.</p>'
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _columns(*titles: str) -> list[tuple[str, bool]]:
    """Name columns; a title that begins with ``#`` is one of numbers."""
    return [(title.removeprefix("#"), title.startswith("#")) for title in titles]


def render_page(told: Mapping[str, Any]) -> bytes:
    """
    Draw the page.

    :param told: what `mcpgate.web.pages.admin.statistics` made.
    """
    process, traffic, sessions = told["process"], told["traffic"], told["sessions"]
    reactor = told["reactor"]
    state = (
        "<p>Ready.</p>"
        if told["ready"]
        else f'<p class="bad">Not ready: {shown(", ".join(told["reasons"]))}.</p>'
    )
    summary = _table(
        _columns("", "#"),
        [
            ("Up", duration(told["uptime_s"])),
            ("Memory of the gate", size(process["memory_bytes"])),
            ("Processor time of the gate", duration(process["cpu_s"])),
            ("Open files", "-" if process["open_files"] is None else process["open_files"]),
            ("Connections", f"{traffic['connections']} of {traffic['connections_total']} so far"),
            ("Streams", traffic["streams"]),
            ("Calls in work", traffic["calls_in_work"]),
            ("Received", size(traffic["bytes_in"])),
            ("Sent", size(traffic["bytes_out"])),
            ("Longest turn of the reactor", f"{reactor['longest_turn_s'] * 1000:.0f} ms"),
            (
                "Longest turn in the last minute",
                f"{reactor['longest_turn_last_minute_s'] * 1000:.0f} ms",
            ),
            (
                "Turns over 50 ms, 250 ms, 1 s",
                ", ".join(str(count) for count in reactor["turns_over"].values()),
            ),
            *(
                (f"Answers {family}", count)
                for family, count in sorted(traffic["requests"].items())
            ),
        ],
    )
    instances = _table(
        _columns(
            "Server", "Key", "User", "State", "#Up", "#Idle", "#Heard", "#Calls", "#Memory", "#CPU"
        ),
        [
            (
                *(one["server"], one["owner"], one["user"], one["state"]),
                *(duration(one["uptime_s"]), duration(one["idle_s"])),
                *(duration(one.get("heard_s")), one["calls"]),
                *(size(one["memory_bytes"]), duration(one["cpu_s"])),
            )
            for one in told["instances"][:_ROWS]
        ],
    )
    images = _table(
        _columns("Image", "State", "Digest", "#Size", "Used by", "Progress"),
        [
            (
                *(one["name"], one["state"], one["digest"][:19], size(one["size_bytes"])),
                *(", ".join(one["servers"]), one["progress"] or one["error"]),
            )
            for one in told["images"][:_ROWS]
        ],
    )
    eras = _table(
        _columns("Server", "Era", "Known from"),
        [
            (
                *(one["server"], one["era"]),
                "configuration" if one["pinned"] else _day(one["seen_at"]),
            )
            for one in told["eras"][:_ROWS]
        ],
    )
    tools = _table(
        _columns("Server", "Pinned", "#Trusted", "Since", "Added", "Changed", "Removed"),
        [
            (
                *(one["server"], one["mode"], one["tools"], _day(one["pinned_at"])),
                *(", ".join(one[kind]) for kind in ("added", "changed", "removed")),
            )
            for one in told["tools"][:_ROWS]
        ],
    )
    engine = told["engine"]
    if engine is not None:
        calls = ", ".join(f"{count} {name}" for name, count in engine["calls"].items())
        state_of_engine = "answers" if engine["answering"] else "does not answer"
        images = f"<p>The engine {state_of_engine}; calls: {shown(calls)}.</p>{images}"
    users = _table(
        _columns("Key", "User", "#Sessions", "#Instances", "#Last used"),
        [
            (one["key"], one["user"], one["sessions"], one["instances"], duration(one["idle_s"]))
            for one in told["users"][:_ROWS]
        ],
    )
    listed = _table(
        _columns("Session", "Server", "Key", "User", "Revision", "#Age", "#Last used", "#In use"),
        [
            (
                *(one["label"], one["server"], one["owner"], one["user"], one["revision"]),
                *(duration(one["age_s"]), duration(one["idle_s"]), one["in_use"]),
            )
            for one in sessions["list"][:_ROWS]
        ],
    )
    certificates = _table(
        _columns("Name", "#Days left"),
        [(one["name"], one["days_left"]) for one in told["certificates"]],
    )
    events = _table(_columns("Event", "#Count"), told["events"].items())
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>mcpgate</title>'
        f"<style>{_STYLE}</style></head><body><h1>mcpgate {shown(told['version'])}</h1>{state}"
        f"<h2>Gate</h2>{summary}"
        f"<h2>Instances: {len(told['instances'])}</h2>{instances}"
        f"<h2>Eras of servers</h2>{eras}"
        f"<h2>Tools of servers</h2>{tools}"
        f"<h2>Images</h2>{images}"
        f"<h2>Users: {len(told['users'])}</h2>{users}"
        f"<h2>Sessions: {shown(sessions['total'])}</h2>{listed}"
        f"<h2>Certificates</h2>{certificates}<h2>Events</h2>{events}</body></html>"
    ).encode()
