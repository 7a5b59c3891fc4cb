"""
What every dialect is made into: servers as keys of ``[server:NAME]``, and notes for the reader.

A note says what was left out or changed, and what to do about it.  It never repeats a value that
may be a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mcpgate.config import ini
from mcpgate.config.schema import RESERVED_SERVERS

LIMIT_BYTES: Final = 256 * 1024
LIMIT_SERVERS: Final = 500

_NAME_CHARS: Final = 40
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# ${NAME}, ${env:NAME}, ${NAME:-default}, ${input:ID}; $$ stays a dollar.
_REFERENCE: Final = re.compile(r"\$\{([^{}]*)\}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class NotTakenError(Exception):
    """The file names no server in any form we know; the text says why and what to do."""


@dataclass(slots=True)
class Server:
    """
    One server.

    :ivar name: a legal one.
    :ivar keys: keys and values of its section, ``$`` and references in our form already.
    :ivar notes: what its user should know.
    """

    name: str
    keys: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def set(self, key: str, value: str) -> None:
        """Set a key, unless it or its value can not be written."""
        if not ini.KEY.fullmatch(key):
            # A name of a foreign file; with a line break it would be a line of its own.
            self.notes.append(f"{key}: left out, keys of gate.ini hold letters, digits, _, - and .")
        elif not _can_stand(value):
            self.notes.append(
                f"{key}: a value with line breaks or outer blanks can not stand in gate.ini; "
                "put it into a file and use ${file:PATH}"
            )
        elif not value:
            self.notes.append(f"{key}: left out, it is empty")
        else:
            self.keys.append((key, value))


def _can_stand(value: str) -> bool:
    """Tell whether gate.ini gives a value back as it was."""
    lines = value.split("\n")
    return not _CONTROL.search(value) and all(
        line == line.strip() and (len(lines) == 1 or (line and line[0] not in "#;"))
        for line in lines
    )


@dataclass(slots=True)
class Taken:
    """
    A whole file.

    :ivar dialect: whose form it has, for people.
    :ivar gate: keys that belong into ``[gate]``, as a suggestion.
    """

    dialect: str
    servers: list[Server] = field(default_factory=list)
    gate: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Names:
    """Makes legal names of servers, each once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def legal(self, wanted: str) -> str:
        """Give the nearest legal name that is not taken."""
        low = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:_NAME_CHARS].strip("-")
        stem = low or "server"
        if stem in RESERVED_SERVERS:
            stem += "-server"
        name, number = stem, 1
        while name in self._given:
            number += 1
            name = f"{stem[: _NAME_CHARS - 4]}-{number}"
        self._given.add(name)
        return name

    def server(self, wanted: str) -> Server:
        """Make a server of that name, with a note where it had to be changed."""
        made = Server(self.legal(wanted))
        if made.name != wanted:
            made.notes.append(f"named {made.name}: names hold a-z, 0-9 and - only, each once")
        return made


def our_text(server: Server, key: str, text: str, environ: Mapping[str, str]) -> str:
    """
    Give a text of another program as a value of ours: references in our form, ``$`` doubled.

    ``${NAME:-default}`` is decided now, since values of ours have no defaults.
    """

    def one(match: re.Match[str]) -> str:
        inner = match[1]
        name, dash, default = inner.partition(":-")
        name = name.removeprefix("env:")
        if not _VARIABLE.fullmatch(name):
            server.notes.append(
                f"{key}: {match[0]} is nothing the gate can fill in; put a value in its place"
            )
            return "$$" + match[0][1:]
        if dash and not environ.get(name):
            server.notes.append(f"{key}: {name} is not set, so its default was written")
            return default.replace("$", "$$")
        return f"${{{name}}}"

    out: list[str] = []
    end = 0
    for match in _REFERENCE.finditer(text):
        out += [text[end : match.start()].replace("$", "$$"), one(match)]
        end = match.end()
    out.append(text[end:].replace("$", "$$"))
    return "".join(out)


def set_command(server: Server, words: Iterable[str], environ: Mapping[str, str]) -> None:
    """Set what is run."""
    ours = [our_text(server, "command", word, environ) for word in words]
    server.set("command", shlex.join(ours))


def set_all(server: Server, stem: str, values: object, environ: Mapping[str, str]) -> None:
    """Set ``env.NAME`` or ``header.NAME`` for each member of an object."""
    if values is None:
        return
    if not isinstance(values, dict):
        server.notes.append(f"{stem}: left out, it is no object")
        return
    for name, value in values.items():
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, str | int | float):
            text = str(value)
        else:
            server.notes.append(f"{stem}.{name}: left out, it is no text")
            continue
        key = f"{stem}.{name}"
        server.set(key, our_text(server, key, text, environ))
