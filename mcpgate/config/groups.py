"""``[group:NAME]`` sections, and the address of all servers together."""

from __future__ import annotations

from typing import Any, Final

from mcpgate.config.model import GateSection
from mcpgate.config.problems import suggestion
from mcpgate.config.reading import Values
from mcpgate.config.servers import check_server_name
from mcpgate.model import Eras, Group, Isolation, Pinning, ServerSpec, Transport

#: The group of every server, at ``/mcp``; no server can have this name.
EVERY: Final = "mcp"


def groups(
    sections: list[Values], servers: tuple[ServerSpec, ...], gate: GateSection
) -> tuple[ServerSpec, ...]:
    """Make the groups, each as a server that runs nothing."""
    names = tuple(spec.name for spec in servers)
    made = [
        _spec(values.name, _group(values, names), gate, face=values.get("openapi_face", True))
        for values in sections
    ]
    if gate.aggregate and names:
        made.append(_spec(EVERY, Group(servers=names), gate))
    return tuple(made)


def _spec(name: str, group: Group, gate: GateSection, *, face: bool = True) -> ServerSpec:
    return ServerSpec(
        name=name,
        transport=Transport.GROUP,
        runtime="group",
        isolation=Isolation.SHARED,
        era=Eras.MODERN,
        relay=False,
        snapshot="off",
        tools_pinned=Pinning.OFF,  # Each of its servers' tools are looked at.
        max_body_bytes=gate.max_body_bytes,
        openapi_face=face,
        group=group,
    )


def _group(values: Values, names: tuple[str, ...]) -> Group:
    check_server_name(values)
    if values.name in names:
        values.problem("", f"there is a [server:{values.name}] as well", "Choose another name")
    fields: dict[str, Any] = {"servers": names, **values.fields()}
    for name in fields["servers"]:
        if name not in names:
            values.problem("servers", f"there is no [server:{name}]", suggestion(name, names))
    rename = values.opened.get("rename", {})
    twice = len(set(rename.values())) < len(rename)
    if twice:
        values.problem("", "two tools are given one name", "Give each a name of its own")
    return Group(**fields, rename=tuple(rename.items()))
