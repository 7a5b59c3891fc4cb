"""
Which eras each server speaks, as far as that is known.

An era is a property of the server, never of the client that asks (``basic/versioning``): what was
found out once holds for everybody, until it has grown old or the server's entry has changed.
Here is the book alone; how it is found out is the business of those who speak to servers.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcpgate.model import Eras, ServerSpec

#: A verdict older than this is looked at again, in the background.
HORIZON_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What is known of one server.

    :ivar legacy: it answers ``initialize``; None when that was not tried.
    :ivar modern: it answers ``server/discover`` of 2026-07-28; None when that was not tried.
    :ivar seen_at: wall clock of the newest of both, seconds.
    :ivar pinned: the configuration says so: never doubted, never looked at again.
    """

    legacy: bool | None = None
    modern: bool | None = None
    seen_at: float = 0.0
    pinned: bool = False

    @property
    def modern_only(self) -> bool:
        """Tell whether legacy clients need the bridge."""
        return self.modern is True and self.legacy is False

    @property
    def words(self) -> str:
        """What to tell people."""
        if self.modern and self.legacy:
            return "dual"
        if self.modern:
            return "modern"
        return "legacy" if self.legacy else "unknown"


@dataclass(frozen=True, slots=True)
class _Noted:
    """A verdict, and the digest of the server's entry it was found with."""

    entry: str
    verdict: Verdict


_PINNED = {
    Eras.LEGACY: Verdict(legacy=True, modern=False, pinned=True),
    Eras.MODERN: Verdict(legacy=False, modern=True, pinned=True),
    Eras.DUAL: Verdict(legacy=True, modern=True, pinned=True),
}
_UNKNOWN = Verdict()


def entry_digest(spec: ServerSpec, key: bytes) -> str:
    """
    Give what changes when another program might answer.

    :param key: the entry may hold secrets: their digest must not be of use to a reader.
    """
    entry = (
        spec.transport.value,
        spec.runtime,
        spec.command,
        spec.cwd,
        spec.env,
        spec.files,
        spec.headers,
        spec.url,
        spec.mcp_path,
        spec.container,
    )
    return hmac.digest(key, repr(entry).encode("utf-8", "backslashreplace"), "sha256").hex()[:32]


class EraBook:
    """
    The verdicts by server.

    :param wall: the wall clock, seconds.
    :param key: secret, for digests of entries.
    :param changed: called when there is something new to keep; `kept` gives it.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        *,
        key: bytes = b"",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._wall = wall
        self._key = key
        self._changed = changed
        self._notes: dict[str, _Noted] = {}
        self._entries: dict[str, tuple[ServerSpec, str]] = {}

    def known(self, spec: ServerSpec) -> Verdict:
        """Give what is known of a server; what the configuration says is not doubted."""
        pinned = _PINNED.get(spec.era)
        if pinned is not None:
            return pinned
        noted = self._notes.get(spec.name)
        if noted is None or noted.entry != self._entry(spec):
            return _UNKNOWN
        return noted.verdict

    def is_old(self, spec: ServerSpec) -> bool:
        """Tell whether what is known should be looked at again."""
        verdict = self.known(spec)
        if verdict.pinned or verdict is _UNKNOWN:
            return False
        # A date in the future is a wall clock put back: as good as none.
        age_s = self._wall() - verdict.seen_at
        return not 0 <= age_s < HORIZON_S

    def note(
        self, spec: ServerSpec, *, legacy: bool | None = None, modern: bool | None = None
    ) -> None:
        """Write down what was found out; None leaves what was known."""
        old = self.known(spec)
        if old.pinned:
            return
        new = Verdict(
            legacy=old.legacy if legacy is None else legacy,
            modern=old.modern if modern is None else modern,
            seen_at=self._wall(),
        )
        same = (new.legacy, new.modern) == (old.legacy, old.modern)
        if same and not self.is_old(spec):
            return  # Said many times an hour; once a day is enough for the file.
        self._notes[spec.name] = _Noted(self._entry(spec), new)
        self._changed()

    def forget(self, spec: ServerSpec) -> None:
        """Know nothing of a server any more: it does not do what was known of it."""
        if self._notes.pop(spec.name, None) is not None:
            self._changed()

    def kept(self) -> list[dict[str, object]]:
        """Give everything that was found out, as plain values to keep."""
        return [
            {
                "server": name,
                "entry": noted.entry,
                "legacy": noted.verdict.legacy,
                "modern": noted.verdict.modern,
                "seen_at": noted.verdict.seen_at,
            }
            for name, noted in self._notes.items()
        ]

    def restore(self, rows: object) -> None:
        """Take what an earlier life of the gate kept; what can not be read is not known."""
        for row in rows if isinstance(rows, list) else []:
            noted = _noted(row)
            if noted is not None:
                self._notes[row["server"]] = noted

    def _entry(self, spec: ServerSpec) -> str:
        # Asked on every call: an entry is a value, its digest is made once.
        found = self._entries.get(spec.name)
        if found is None or found[0] is not spec:
            found = self._entries[spec.name] = (spec, entry_digest(spec, self._key))
        return found[1]


def _noted(row: object) -> _Noted | None:
    if not isinstance(row, dict) or not isinstance(row.get("server"), str):
        return None
    entry, seen_at = row.get("entry"), row.get("seen_at")
    legacy, modern = row.get("legacy"), row.get("modern")
    if not isinstance(entry, str) or not isinstance(seen_at, int | float):
        return None
    if not all(value is None or isinstance(value, bool) for value in (legacy, modern)):
        return None
    return _Noted(entry, Verdict(legacy=legacy, modern=modern, seen_at=float(seen_at)))
