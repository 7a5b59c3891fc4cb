"""Text of others made safe to show: short, on one line, without control or bidi characters."""

from __future__ import annotations

from typing import Final

#: Longest value shown in a log line or on a page (R83).
VALUE_CHARS: Final = 256


def escape(text: str) -> str:
    r"""
    Write what a terminal or a log reader might obey as ``\xNN`` or ``\uNNNN``.

    That is everything Unicode calls not printable: C0, C1, DEL, line separators (U+2028),
    bidirectional overrides, zero-width characters, lone surrogates, unassigned code points.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def clean(text: str, limit: int = VALUE_CHARS) -> str:
    """Escape, and cut to ``limit`` characters; the last one tells that something was cut."""
    # Nothing behind the limit is looked at: a megabyte costs what a line costs.
    shown = escape(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def text_of(value: object) -> str:
    """Give any value as text, whatever its ``str`` does; bytes byte by byte."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, int) and value.bit_length() > 128:
        return hex(value)
    try:
        return str(value)
    except Exception:
        # A foreign ``__str__`` must never cost us the log line.
        return f"<{type(value).__name__} that can not be shown>"
