"""
Which tools of which server are trusted, and what becomes of others (R66).

The tools of the first list that is seen of a server are trusted; whatever is listed later is held
against them.  There is one pin for each server, whoever calls: a server that turns on a new user
is found out, too.  It stays when the server's image or entry is changed, for that is how tools are
turned; only an operator's word (`PinBook.accept`) changes it.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Final, Protocol, TypeVar

from twisted.logger import Logger

from mcpgate.errors import ToolWithheld
from mcpgate.mcp.tool_pins import (
    MOST_FACES,
    MOST_TOOLS,
    Change,
    Face,
    Faces,
    Pin,
    change,
    decoded,
    differences,
    pinned_name,
)
from mcpgate.model import MIB, Pinning, Principal, ServerSpec
from mcpgate.telemetry.escaping import clean
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import PinView

log = Logger()

T = TypeVar("T")

MAX_BYTES: Final = 16 * MIB
"""Of what is kept of one server."""

GROWING_S: Final = 3600.0
"""A first list of several pages that nobody reads to its end is the whole list after this long."""

_TOTAL: Final = 2000
SHOWN: Final = 20
"""Names shown of one kind."""

_VIEWERS: Final = 10_000
_LOGGED: Final = 20_000
_NAME_CHARS: Final = 80


_Viewer = tuple[str, str]
"""A server, and whom it told a list; empty where it tells everybody the same."""


class Kept(Protocol):
    """Where pins outlive the gate: `mcpgate.stores.snapshot_files.SnapshotFiles`."""

    def put(self, name: str, data: bytes) -> None:
        """Keep this, soon."""

    def delete(self, name: str) -> None:
        """Forget this, soon."""


class PinBook:
    """
    The pins of one gate.

    :param wall: wall clock, seconds.
    :param build_of: gives what a server was built as (the id of its image), as far as it is
        known; empty when it is not.
    """

    def __init__(
        self,
        kept: Kept,
        *,
        wall: Callable[[], float],
        build_of: Callable[[ServerSpec], str],
        meters: Meters,
    ) -> None:
        self._kept = kept
        self._wall = wall
        self._build_of = build_of
        self._meters = meters
        self._pins: OrderedDict[str, Pin] = OrderedDict()
        # By server: its entry when this was worked out, and whether it lists alike.
        self._alike: dict[str, tuple[ServerSpec, bool]] = {}
        # By server and viewer: trusted names that were listed differently to that one.
        self._turned: OrderedDict[_Viewer, set[str]] = OrderedDict()
        # Likewise: the cursor that goes on with a list, and the names on its pages so far; and
        # what the last whole list held, where the pin can not tell what one viewer misses.
        self._walks: OrderedDict[_Viewer, tuple[object, set[str]]] = OrderedDict()
        self._held: OrderedDict[_Viewer, set[str]] = OrderedDict()
        # Likewise: digests of the last list, where nothing in it was bad.
        self._clean: OrderedDict[_Viewer, bytes] = OrderedDict()
        self._logged: set[tuple[str, str]] = set()
        # Files that could not be read: their servers' tools are not trusted until accepted.
        self._broken: set[str] = set()

    def load(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Take what an earlier life kept."""
        for name, data in files:
            pin = decoded(data)
            if pin is None or file_name(pin.server) != name:
                # Trusting whatever comes next would be what an attacker wants.
                log.error("What is trusted of a server ({name}) can not be read", name=name)
                self._broken.add(name)
                continue
            self._pins[pin.server] = pin

    # --- Lists and calls ----------------------------------------------------------------------

    def told(
        self,
        spec: ServerSpec,
        principal: Principal,
        tools: Sequence[object],
        *,
        cursor: object = None,
        more: object = None,
        fresh: bool = True,
    ) -> Sequence[object]:
        """
        Take a page of a server's list of tools; give what may be shown of it.

        :param principal: whom the server tells it.
        :param cursor: of this page; None: the first.
        :param more: of the next page; None: this is the last.
        :param fresh: the server said it now; what it said earlier is no sign that it is well.
        :return: the same object where nothing is left out.
        """
        if spec.tools_pinned is Pinning.OFF:
            return tools
        pin = self._pins.get(spec.name)
        if pin is None:
            broken = file_name(spec.name) in self._broken
            if not broken and not (tools and fresh):
                return tools  # That is no list to hold others against.
            pin = Pin(
                server=spec.name,
                pinned_at=self._wall(),
                build=self._build_of(spec),
                growing=not broken,
            )
            self._pins[spec.name] = pin
            self._trim()
        viewer = (spec.name, self._viewer(spec, principal))
        if not fresh:
            return self._of_old(spec, pin, viewer, tools)
        same = _digest(tools) if cursor is None and more is None and not pin.growing else b""
        if same and same == self._clean.get(viewer):
            return tools
        before = (pin.growing, set(pin.differing), set(pin.missing))
        grows = pin.growing = self._grows(pin)
        good, bad, new, shown = self._judged(pin, tools)
        pin.growing = grows and more is not None
        gone = self._walked(spec, pin, viewer, good | bad, cursor, more)
        self._settle(spec, pin, viewer, good - bad, bad)
        if new or gone:
            self._say(spec, pin, new, gone)
        if grows or new or before != (pin.growing, set(pin.differing), pin.missing):
            self._keep(pin)
        _put(self._clean, viewer, b"" if bad else same)
        return tools if len(shown) == len(tools) or spec.tools_pinned is Pinning.WARN else shown

    def check_call(self, spec: ServerSpec, principal: Principal, name: object) -> None:
        """
        Refuse a call of a tool that is withheld.

        :raises ToolWithheld: it is none of those that were trusted.
        """
        pin = self._pins.get(spec.name)
        if pin is None or not isinstance(name, str):
            return
        name = pinned_name(name)
        known = name in pin.trusted or self._grows(pin)
        # Who was not told a list since the gate started may not call what was another for anybody.
        turned = self._turned.get((spec.name, self._viewer(spec, principal)), pin.differing)
        if known and name not in turned:
            return
        self._meters.events["tool_refused"] += 1
        raise ToolWithheld(
            f"The tool {clean(name, _NAME_CHARS)} is "
            + ("not as it was when it was trusted" if known else "none of those that are trusted")
            + f": an administrator can look with 'mcpgate tools {spec.name} --diff' and accept it "
            f"with 'mcpgate tools {spec.name} --accept'."
        )

    # --- For operators --------------------------------------------------------------------------

    def compare(self, spec: ServerSpec, tools: Sequence[object]) -> list[Change]:
        """Tell how a whole list differs from what is trusted."""
        return differences(self._pins.get(spec.name), tools, whole=self._lists_alike(spec))

    def accept(self, spec: ServerSpec, tools: Sequence[object]) -> list[Change]:
        """
        Trust the tools of a whole list from now on; tell what that changes.

        Where a server is told who calls, what is trusted already stays trusted: others may be
        told that.
        """
        changes = self.compare(spec, tools)
        old, alike = self._pins.get(spec.name), self._lists_alike(spec)
        trusted: Faces = {}
        if old is not None and not alike:
            trusted = {name: dict(faces) for name, faces in old.trusted.items()}
        for face in filter(None, map(Face.of, tools)):
            if face.name in trusted or len(trusted) < MOST_TOOLS:
                _add(trusted, face)
        pin = Pin(
            server=spec.name,
            pinned_at=self._wall(),
            trusted=trusted,
            growing=False,
            build=self._build_of(spec),
        )
        if old is not None and not alike:
            for faces in old.differing.values():
                for face in faces.values():
                    if not pin.trusts(face):
                        _add(pin.differing, face)
        self._pins[spec.name] = pin
        self._clean.clear()
        for key, names in self._turned.items():
            if key[0] == spec.name:
                names.intersection_update(pin.differing)
        self._logged = {one for one in self._logged if one[0] != spec.name}
        self._trim()
        self._keep(pin)
        log.info(
            "The tools of {server} were accepted by an operator: {count} are trusted",
            server=spec.name,
            count=len(trusted),
        )
        return changes

    def view(self, spec: ServerSpec) -> PinView:
        """Tell how a server's tools are."""
        pin = self._pins.get(spec.name)
        if pin is None:
            return PinView(server=spec.name, mode=spec.tools_pinned.value)
        added = sorted(pin.differing.keys() - pin.trusted.keys())
        changed = sorted(pin.differing.keys() & pin.trusted.keys())
        removed = sorted(pin.missing)
        return PinView(
            server=spec.name,
            mode=spec.tools_pinned.value,
            tools=len(pin.trusted),
            pinned_at=pin.pinned_at,
            fingerprint=pin.fingerprint,
            added=tuple(added[:SHOWN]),
            changed=tuple(changed[:SHOWN]),
            removed=tuple(removed[:SHOWN]),
            differing=len(added) + len(changed) + len(removed),
        )

    # --- Within ---------------------------------------------------------------------------------

    def _grows(self, pin: Pin) -> bool:
        return pin.growing and self._wall() - pin.pinned_at <= GROWING_S

    def _of_old(
        self, spec: ServerSpec, pin: Pin, viewer: _Viewer, tools: Sequence[object]
    ) -> Sequence[object]:
        """Give what may be shown of a list that was kept."""
        if spec.tools_pinned is not Pinning.BLOCK or self._grows(pin):
            return tools
        turned = self._turned.get(viewer, pin.differing)
        faces = [(tool, Face.of(tool)) for tool in tools]
        shown = [
            tool
            for tool, face in faces
            if face is not None and pin.trusts(face) and face.name not in turned
        ]
        return tools if len(shown) == len(tools) else shown

    def _judged(
        self, pin: Pin, tools: Sequence[object]
    ) -> tuple[set[str], set[str], list[Change], list[object]]:
        """Give names of good and of bad tools, changes nobody was told of, and the good tools."""
        good: set[str] = set()
        bad: set[str] = set()
        new: list[Change] = []
        shown: list[object] = []
        for tool in tools:
            face = Face.of(tool)
            if face is None:
                continue
            if not pin.trusts(face):
                fresh = face.name not in pin.trusted and len(pin.trusted) < MOST_TOOLS
                if not (pin.growing and fresh):
                    bad.add(face.name)
                    if self._noted(pin, face):
                        new.append(change(face, pin.trusted.get(face.name, {})))
                    continue
                _add(pin.trusted, face)
            good.add(face.name)
            shown.append(tool)
        return good, bad, new, shown

    def _noted(self, pin: Pin, face: Face) -> bool:
        """Take note of what is not trusted; True where that is worth a word."""
        faces = pin.differing.get(face.name)
        if faces is None and len(pin.differing) >= MOST_TOOLS:
            return False
        if faces is not None and face.fingerprint not in faces and len(faces) >= MOST_FACES:
            return False  # One that is another every time was told of often enough.
        _add(pin.differing, face)
        return self._is_news(pin.server, face.fingerprint)

    def _is_news(self, server: str, what: str) -> bool:
        """Tell whether something was not told yet: clients with other lists may take turns."""
        mark = (server, what)
        if mark in self._logged:
            return False
        if len(self._logged) >= _LOGGED:
            self._logged.clear()
        self._logged.add(mark)
        return True

    def _walked(
        self,
        spec: ServerSpec,
        pin: Pin,
        viewer: _Viewer,
        names: set[str],
        cursor: object,
        more: object,
    ) -> list[Change]:
        """Follow a list over its pages; at its end tell which tools are newly missing."""
        expected, before = self._walks.pop(viewer, (None, set()))
        if cursor is not None:
            if cursor != expected:
                return []  # Somebody else's pages came between.
            names = names | before
        if more is not None:
            if len(names) <= MOST_TOOLS:
                _put(self._walks, viewer, (more, names))
            return []
        if self._lists_alike(spec):
            for name in pin.differing.keys() - names:
                del pin.differing[name]
            missing = pin.trusted.keys() - names
            newly, pin.missing = missing - pin.missing, missing
        else:
            newly = self._held.pop(viewer, set()) - names
            _put(self._held, viewer, names)
        return [
            Change(name=name, kind="removed")
            for name in sorted(newly)
            if self._is_news(pin.server, f"-{name}")
        ]

    def _settle(
        self, spec: ServerSpec, pin: Pin, viewer: _Viewer, good: set[str], bad: set[str]
    ) -> None:
        """Take note of which tools are turned for one viewer, and which are as they were again."""
        turned = (self._turned.pop(viewer, set()) - good) | (bad & pin.trusted.keys())
        _put(self._turned, viewer, turned)
        if self._lists_alike(spec):
            for name in good & pin.differing.keys():
                del pin.differing[name]

    def _say(self, spec: ServerSpec, pin: Pin, new: Sequence[Change], gone: list[Change]) -> None:
        self._meters.events["tools_changed"] += 1
        build = self._build_of(spec)
        log.warn(
            "The tools of {server} have changed: added {added}, removed {removed}, described "
            "anew {described}; {done}. Look with 'mcpgate tools {server} --diff'",
            ev="tools_changed",
            server=spec.name,
            added=_names(new, "added"),
            removed=_names(gone, "removed"),
            described=_names(new, "changed"),
            done="withheld" if spec.tools_pinned is Pinning.BLOCK else "shown all the same",
            image_changed=bool(build and pin.build and build != pin.build),
        )

    def _viewer(self, spec: ServerSpec, principal: Principal) -> str:
        return "" if self._lists_alike(spec) else principal.key_digest

    def _lists_alike(self, spec: ServerSpec) -> bool:
        known = self._alike.get(spec.name)
        if known is None or known[0] is not spec:
            known = self._alike[spec.name] = (spec, not spec.told_caller)
        return known[1]

    def _trim(self) -> None:
        while len(self._pins) > _TOTAL:
            server, _ = self._pins.popitem(last=False)
            self._kept.delete(file_name(server))

    def _keep(self, pin: Pin) -> None:
        data = pin.encoded()
        if len(data) <= MAX_BYTES:
            self._kept.put(file_name(pin.server), data)


@lru_cache(maxsize=_TOTAL)
def file_name(server: str) -> str:
    """Name the file of a server's pin."""
    return sha256(server.encode()).hexdigest()[:32]


def _digest(tools: Sequence[object]) -> bytes:
    """Tell one list from others: in memory, and many times faster than looking at each tool."""
    return blake2b(marshal.dumps(list(tools), 2), digest_size=16).digest()


def _add(faces: Faces, face: Face) -> None:
    """Add a face of a tool as its newest; the oldest go when there are too many."""
    known = faces.setdefault(face.name, {})
    known.pop(face.fingerprint, None)
    known[face.fingerprint] = face
    while len(known) > MOST_FACES:
        del known[next(iter(known))]


def _put(book: OrderedDict[_Viewer, T], viewer: _Viewer, value: T) -> None:
    """Keep something of a viewer; what was not touched for longest goes."""
    book[viewer] = value
    while len(book) > _VIEWERS:
        book.popitem(last=False)


def _names(changes: Iterable[Change], kind: str) -> str:
    """Name a few, for the log."""
    found = sorted({one.name for one in changes if one.kind == kind})
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (", ".join(clean(name, _NAME_CHARS) for name in found[:SHOWN]) or "none") + more
