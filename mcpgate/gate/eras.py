"""
Which eras each server speaks, as far as that is known.

An era is a property of the server, never of the client that asks (``basic/versioning``): what was
found out once holds for everybody, until it has grown old.  Here is the book alone; how it is
found out is the business of those who speak to servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcpgate.model import Eras, ServerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What is known of one server.

    :ivar legacy: it answers ``initialize``; None when that was not tried.
    :ivar modern: it answers ``server/discover`` of 2026-07-28; None when that was not tried.
    :ivar seen_at: wall clock of the newest of both, seconds.
    """

    legacy: bool | None = None
    modern: bool | None = None
    seen_at: float = 0.0


_PINNED = {
    Eras.LEGACY: Verdict(legacy=True, modern=False),
    Eras.MODERN: Verdict(legacy=False, modern=True),
    Eras.DUAL: Verdict(legacy=True, modern=True),
}
_UNKNOWN = Verdict()


class EraBook:
    """
    The verdicts by server.

    :param wall: the wall clock, seconds.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._verdicts: dict[str, Verdict] = {}

    def known(self, spec: ServerSpec) -> Verdict:
        """Give what is known of a server; what the configuration says is not doubted."""
        pinned = _PINNED.get(spec.era)
        return pinned if pinned is not None else self._verdicts.get(spec.name, _UNKNOWN)

    def note(
        self, spec: ServerSpec, *, legacy: bool | None = None, modern: bool | None = None
    ) -> None:
        """Write down what was found out; None leaves what was known."""
        old = self._verdicts.get(spec.name, _UNKNOWN)
        self._verdicts[spec.name] = Verdict(
            legacy=old.legacy if legacy is None else legacy,
            modern=old.modern if modern is None else modern,
            seen_at=self._wall(),
        )
