"""
The servers and groups a gate serves now.

A reload swaps them whole; whoever keeps a `ServerSpec` of an earlier life goes on with that until
what it began is over.  An entry that did not change stays the very object it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mcpgate.model import ServerSpec


class Catalog:
    """
    See the module.

    :ivar servers: in the order of the configuration; ``groups`` likewise.
    """

    def __init__(
        self, servers: Iterable[ServerSpec] = (), groups: Iterable[ServerSpec] = ()
    ) -> None:
        self.servers: tuple[ServerSpec, ...] = ()
        self.groups: tuple[ServerSpec, ...] = ()
        self._by_name: dict[str, ServerSpec] = {}
        self._watchers: list[Callable[[], object]] = []
        self.replace(servers, groups)

    def find(self, name: str) -> ServerSpec | None:
        """Give the entry of a server; groups are none."""
        return self._by_name.get(name)

    def watch(self, changed: Callable[[], object]) -> None:
        """Have ``changed`` called after each `replace`."""
        self._watchers.append(changed)

    def replace(self, servers: Iterable[ServerSpec], groups: Iterable[ServerSpec]) -> None:
        """Serve these from now on; equal entries stay the objects they are."""
        known = {spec.name: spec for spec in (*self.servers, *self.groups)}

        def same(spec: ServerSpec) -> ServerSpec:
            old = known.get(spec.name)
            return old if old is not None and old == spec else spec

        self.servers = tuple(same(spec) for spec in servers)
        self.groups = tuple(same(spec) for spec in groups)
        self._by_name = {spec.name: spec for spec in self.servers}
        for changed in self._watchers:
            changed()
