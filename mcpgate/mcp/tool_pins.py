"""
What a server's tools were when they were trusted, and how those it lists now differ from that.

A tool is known by a fingerprint of all that a model or a user is shown of it.  Values only: who
trusts what, where it is kept and what becomes of a tool that differs is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from mcpgate.mcp.to_legacy import object_schema
from mcpgate.mcp.to_modern import without_annotations

PARTS: Final = ("title", "description", "inputSchema", "outputSchema", "annotations")
"""What is looked at of a tool beside its name.  ``_meta`` and icons may differ from day to day."""

_OUTPUT: Final = PARTS.index("outputSchema")

NAME_CHARS: Final = 200
ABOUT_CHARS: Final = 1000
#: Ways in which one tool may show itself, for servers that list other tools for other callers.
MOST_FACES: Final = 8
MOST_TOOLS: Final = 2000


@dataclass(frozen=True, slots=True)
class Face:
    """
    How one tool shows itself, to clients of whichever era.

    :ivar fingerprint: SHA-256 of the name and `PARTS` as canonical JSON, hexadecimal.
    :ivar parts: that of each of `PARTS`; empty: absent.
    :ivar about: the description, cut.
    """

    name: str
    fingerprint: str
    parts: tuple[str, ...]
    about: str

    @classmethod
    def of(cls, tool: object) -> Face | None:
        """Look at an item of a list; None where it is no tool."""
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            return None
        name: str = tool["name"]
        about = tool.get("description")
        shown = _shown(tool)
        return cls(
            name=pinned_name(name),
            fingerprint=_digest({**shown, "name": name}),
            parts=tuple(_digest(shown[part]) if part in shown else "" for part in PARTS),
            about=about[:ABOUT_CHARS] if isinstance(about, str) else "",
        )


def _shown(tool: Mapping[str, object]) -> dict[str, object]:
    """Give what is looked at, in a form that is the same on both sides of the bridges."""
    shown = {part: tool[part] for part in PARTS if tool.get(part) is not None}
    schema = tool.get("inputSchema")
    plain = without_annotations(schema)
    shown["inputSchema"] = object_schema(plain if isinstance(plain, dict) else {})
    output = tool.get("outputSchema")
    if isinstance(output, dict) and output.get("type") == "object":
        shown["outputSchema"] = object_schema(output)
    return shown


_TOOL: Final = {name.casefold(): name for name in ("name", *PARTS)}
_RESULT: Final = {"tools": "tools"}


def unambiguous(result: Mapping[str, object], tools: Iterable[object]) -> dict[str, object]:
    """
    Give a result with these tools that every client reads alike.

    Some (Go's ``encoding/json``) match members without regard to case: ``Tools`` beside ``tools``
    would be to them what was never looked at.
    """
    return {
        **_exact(result, _RESULT),
        "tools": [_exact(one, _TOOL) if isinstance(one, dict) else one for one in tools],
    }


def _exact(members: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    return {
        name: value for name, value in members.items() if names.get(name.casefold(), name) == name
    }


def pinned_name(name: str) -> str:
    """Give the name a tool is kept under: its own, or of a long one the beginning and a digest."""
    if len(name) <= NAME_CHARS:
        return name
    return f"{name[: NAME_CHARS // 2]}~{_digest(name)}"


def _digest(value: object) -> str:
    # Half a surrogate pair is no UTF-8; escaped it is ASCII like everything else.
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


Faces = dict[str, dict[str, Face]]
"""By name of the tool, then by fingerprint."""


@dataclass(slots=True, kw_only=True)
class Pin:
    """
    What is known of one server's tools.

    :ivar server: its name.
    :ivar trusted: those that were trusted.
    :ivar differing: those listed since that are not among them.
    :ivar missing: names of trusted ones that a whole list did not hold.
    :ivar pinned_at: wall clock of when the first was trusted, or all of them were accepted.
    :ivar growing: the first list has not been seen to its end.
    :ivar build: what the server was built as then, as far as it was known.
    """

    server: str
    pinned_at: float
    trusted: Faces = field(default_factory=dict)
    differing: Faces = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    growing: bool = True
    build: str = ""

    @property
    def fingerprint(self) -> str:
        """Give one of the whole list: SHA-256 over the tools', sorted."""
        return _digest(sorted(one for faces in self.trusted.values() for one in faces))

    def trusts(self, face: Face) -> bool:
        """Tell whether a tool is as it was trusted; clients of old are shown no output schema."""
        known = self.trusted.get(face.name)
        if known is None:
            return False
        if face.fingerprint in known or face.parts[_OUTPUT]:
            return face.fingerprint in known
        return any(_without_output(one.parts) == face.parts for one in known.values())

    def encoded(self) -> bytes:
        """Put it down as JSON."""
        told = {
            "server": self.server,
            "pinned_at": self.pinned_at,
            "growing": self.growing,
            "build": self.build,
            "trusted": _put_down(self.trusted),
            "differing": _put_down(self.differing),
            "missing": sorted(self.missing),
        }
        return json.dumps(told, separators=(",", ":")).encode()


def _without_output(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (*parts[:_OUTPUT], "", *parts[_OUTPUT + 1 :])


def _put_down(faces: Faces) -> list[list[object]]:
    return [
        [face.name, face.fingerprint, list(face.parts), face.about]
        for known in faces.values()
        for face in known.values()
    ]


def decoded(data: bytes) -> Pin | None:
    """Read what `Pin.encoded` put down; None when it is something else."""
    try:
        told = json.loads(data)
        return Pin(
            server=str(told["server"]),
            pinned_at=float(told["pinned_at"]),
            trusted=_read(told["trusted"]),
            differing=_read(told["differing"]),
            missing={str(name) for name in told["missing"]},
            growing=told["growing"] is True,
            build=str(told["build"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(told: Iterable[tuple[str, str, list[str], str]]) -> Faces:
    faces: Faces = {}
    for name, fingerprint, parts, about in told:
        face = Face(str(name), str(fingerprint), tuple(map(str, parts)), str(about))
        faces.setdefault(face.name, {})[face.fingerprint] = face
    return faces


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    One tool that is not as it was trusted.

    :ivar kind: ``added``, ``changed`` or ``removed``.
    :ivar parts: names of `PARTS` that are others than before.
    :ivar before: the description when it was trusted, cut; ``now``: the present one.
    """

    name: str
    kind: str
    parts: tuple[str, ...] = ()
    before: str = ""
    now: str = ""


def differences(pin: Pin | None, tools: Iterable[object], *, whole: bool) -> list[Change]:
    """
    Tell how a list differs from what was trusted.

    :param whole: tools that are not in it count as removed.
    """
    trusted = {} if pin is None else pin.trusted
    found: dict[str, Change] = {}
    names = set()
    for tool in tools:
        face = Face.of(tool)
        if face is None:
            continue
        names.add(face.name)
        if pin is None or not pin.trusts(face):
            found[face.fingerprint] = change(face, trusted.get(face.name, {}))
    if whole:
        for name in trusted.keys() - names:
            (*_, last) = trusted[name].values()
            found[name] = Change(name=name, kind="removed", before=last.about)
    order = ("added", "changed", "removed")
    return sorted(found.values(), key=lambda one: (order.index(one.kind), one.name))


def change(face: Face, trusted: Mapping[str, Face]) -> Change:
    """Tell how a tool differs from the last of its faces that were trusted."""
    if not trusted:
        return Change(name=face.name, kind="added", now=face.about)
    (*_, last) = trusted.values()
    parts = tuple(
        part for part, one, two in zip(PARTS, last.parts, face.parts, strict=False) if one != two
    )
    return Change(name=face.name, kind="changed", parts=parts, before=last.about, now=face.about)
