"""Sections of ``gate.ini`` for what was taken from another file."""

from __future__ import annotations

from collections.abc import Collection

from mcpgate.config.dialects.entries import Server, Taken


def as_ini(
    taken: Taken, *, extra: Collection[tuple[str, str]] = (), with_gate: bool = False
) -> str:
    """
    Write the servers, each with its notes as comments.

    :param extra: keys that every server gets.
    :param with_gate: begin with what was found for ``[gate]``.
    """
    parts: list[str] = []
    if with_gate and taken.gate:
        parts.append("[gate]\n" + "".join(_line(key, value) for key, value in taken.gate))
    parts += [_section(server, extra) for server in taken.servers]
    return "\n".join(parts)


def _section(server: Server, extra: Collection[tuple[str, str]]) -> str:
    # Notes name what stands in a foreign file; no line break of it may end the comment.
    lines = [f"# {' '.join(note.split())}\n" for note in server.notes]
    lines.append(f"[server:{server.name}]\n")
    given = {key for key, _ in server.keys}
    lines += [_line(key, value) for key, value in server.keys]
    lines += [_line(key, value) for key, value in extra if key not in given]
    return "".join(lines)


def _line(key: str, value: str) -> str:
    if "\n" not in value:
        return f"{key} = {value}\n"
    return f"{key} =\n" + "".join(f"    {line}\n" for line in value.split("\n"))
