"""
Durations, sizes and rates as people write them: ``15min``, ``256MiB``, ``20/s``.

A number without a unit is refused (only 0 has none): what it means is never guessed.  ``m`` is
refused as well, being minutes to some and months or mebi to others.
"""

from __future__ import annotations

import re
from typing import Final

from mcpgate.config.problems import BadValueError
from mcpgate.model import Rate

DURATION_UNITS: Final = {
    "ms": 0.001,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
SIZE_UNITS: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_RATE_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

# Bounded digits: what is longer is no figure anybody means, and floats would lose it.
_NUMBER: Final = r"[0-9]{1,12}(?:\.[0-9]{1,6})?"
_DURATION_PART: Final = re.compile(rf"({_NUMBER})\s*([A-Za-z]+)\s*", re.ASCII)
_SIZE: Final = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)", re.ASCII)
_RATE: Final = re.compile(rf"({_NUMBER})\s*/\s*([A-Za-z]+)", re.ASCII)
_PLAIN: Final = re.compile(_NUMBER, re.ASCII)

_DURATION_HINT: Final = "Write a number and ms, s, min, h, d or w, such as 90s, 15min or 1h30min"
_SIZE_HINT: Final = "Write a number and B, KiB, MiB or GiB, such as 256MiB"
_RATE_HINT: Final = "Write a number per s, min, h or d, such as 20/s"


def parse_duration(text: str) -> float:
    """
    Give the seconds of ``90s``, ``15min``, ``1h30min``, ``500ms``, ``7d`` or ``0``.

    :raises BadValueError: it is none of these.
    """
    if text == "0":
        return 0.0
    if _PLAIN.fullmatch(text):
        raise BadValueError("a duration needs a unit", f"Write {text}s or {text}min")
    total, position, smallest = 0.0, 0, float("inf")
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            raise BadValueError("this is not a duration", _DURATION_HINT)
        number, unit = match.groups()
        if unit not in DURATION_UNITS:
            raise BadValueError("this is not a unit of time", _DURATION_HINT)
        factor = DURATION_UNITS[unit]
        if factor >= smallest:
            raise BadValueError(
                "the units of a duration go from large to small, each once", _DURATION_HINT
            )
        total, position, smallest = total + float(number) * factor, match.end(), factor
    if not text:
        raise BadValueError("a duration is missing", _DURATION_HINT)
    return total


def parse_size(text: str) -> int:
    """
    Give the bytes of ``256MiB``, ``64 KiB``, ``10MB`` (ten million) or ``0``.

    :raises BadValueError: it is none of these, or no whole number of bytes.
    """
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BadValueError("this is not a size", _SIZE_HINT)
    number, unit = match.groups()
    if not unit:
        raise BadValueError("a size needs a unit", f"Write {number}B or {number}MiB")
    if unit not in SIZE_UNITS:
        raise BadValueError("this is not a unit of size", _SIZE_HINT)
    size = float(number) * SIZE_UNITS[unit] if "." in number else int(number) * SIZE_UNITS[unit]
    if size != int(size):
        raise BadValueError("this is not a whole number of bytes", _SIZE_HINT)
    return int(size)


def parse_throughput(text: str) -> int:
    """
    Give the bytes per second of ``1KiB/s`` or ``0``.

    :raises BadValueError: it is neither.
    """
    if text == "0":
        return 0
    size, slash, unit = text.partition("/")
    if not slash or unit.strip() != "s":
        raise BadValueError("this is not a speed", "Write a size per second, such as 1KiB/s")
    return parse_size(size.strip())


def parse_rate(text: str) -> tuple[float, float]:
    """
    Give number and period in seconds of ``20/s``, ``200/min``, ``0.5/s``.

    :raises BadValueError: it is no such thing, or nothing at all would be let through.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        if _PLAIN.fullmatch(text):
            raise BadValueError("a rate needs a unit", f"Write {text}/s or {text}/min")
        raise BadValueError("this is not a rate", _RATE_HINT)
    number, unit = match.groups()
    if unit not in _RATE_UNITS:
        raise BadValueError("this is not a unit of time", _RATE_HINT)
    if float(number) == 0:
        raise BadValueError("a rate of 0 lets nothing through", "Write off for no limit")
    return float(number), _RATE_UNITS[unit]


def parse_per_s(text: str) -> float:
    """
    Give the times per second of a rate.

    :raises BadValueError: see `parse_rate`.
    """
    number, period = parse_rate(text)
    return number / period


def parse_budget(text: str) -> Rate:
    """
    Give a rate whose bucket holds one period's worth: ``20/min`` is 20 at once, then 20 a minute.

    :raises BadValueError: see `parse_rate`.
    """
    number, period = parse_rate(text)
    if number < 1:
        raise BadValueError(
            "less than one in the period would never be granted",
            "Name a longer period, such as 1/h",
        )
    return Rate(number / period, number)


def format_duration(seconds: float) -> str:
    """Give the shortest exact form `parse_duration` reads, to the millisecond."""
    left = round(seconds * 1000)
    parts = []
    for unit in ("d", "h", "min", "s", "ms"):
        count, left = divmod(left, round(DURATION_UNITS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0"


def format_size(size: int) -> str:
    """Give the shortest exact form `parse_size` reads, in binary units."""
    if size == 0:
        return "0"
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def format_rate(rate: Rate | None) -> str:
    """Give a readable form: ``20/s burst 40``, ``20/min burst 20`` or ``off``."""
    if rate is None:
        return "off"
    for unit, period in _RATE_UNITS.items():
        number = rate.per_s * period
        if number >= 1 and abs(number - round(number)) < 1e-6:
            return f"{round(number)}/{unit} burst {rate.burst:g}"
    return f"{rate.per_s:g}/s burst {rate.burst:g}"
