"""What differs between two configurations: what can be taken over at once, and what can not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from mcpgate.config.model import Config
from mcpgate.model import ServerSpec

# Sections whose values are built into what runs; keys of static sources are read again anyway.
_FIXED: Final = ("gate", "tls", "auth", "limits", "docker", "admin", "log")
# ``aggregate`` only decides whether there is a group; ``tools_pinned`` is in each server's entry.
_TAKEN_OVER: Final = {"gate": {"aggregate": True, "tools_pinned": "warn"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """
    See the module.

    :ivar added: names of servers and groups; ``removed``, ``changed`` likewise.
    :ivar fixed: ``[section] key`` that count after a restart only.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return bool(self.added or self.removed or self.changed or self.fixed)

    def words(self) -> list[str]:
        """Say it, a line each."""
        lines = [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("added", self.added),
                ("removed", self.removed),
                ("changed", self.changed),
            )
            if names
        ]
        if self.fixed:
            lines.append(f"after a restart only: {', '.join(self.fixed)}")
        return lines or ["nothing changed"]


def compare(old: Config, new: Config) -> Changes:
    """Tell what taking over ``new`` in place of ``old`` means."""
    before = _named((*old.servers, *old.groups))
    after = _named((*new.servers, *new.groups))
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(
            name for name, spec in after.items() if name in before and before[name] != spec
        ),
        fixed=tuple(_fixed(old, new)),
    )


def _named(specs: Iterable[ServerSpec]) -> dict[str, ServerSpec]:
    # The group of every server changes with each of them: not worth a word.
    return {spec.name: spec for spec in specs if spec.name != "mcp"}


def _fixed(old: Config, new: Config) -> Iterable[str]:
    for name in _FIXED:
        taken: dict[str, Any] = _TAKEN_OVER.get(name, {})
        one, two = (replace(getattr(config, name), **taken) for config in (old, new))
        if one != two:
            for field in fields(one):
                if getattr(one, field.name) != getattr(two, field.name):
                    yield f"[{name}] {field.name.removesuffix('_s').removesuffix('_bytes')}"
    if not any(spec.runtime == "docker" for spec in old.servers) and any(
        spec.runtime == "docker" for spec in new.servers
    ):
        yield "the first server with an image"
