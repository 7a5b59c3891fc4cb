"""Read ``gate.ini``: the one way from a file to a `Config`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mcpgate.config import ini, schema
from mcpgate.config.dialects import NotTakenError, read_servers
from mcpgate.config.dialects.writing import as_ini
from mcpgate.config.groups import groups
from mcpgate.config.interpolation import Interpolation, read_bounded
from mcpgate.config.kinds import Surroundings
from mcpgate.config.model import Config
from mcpgate.config.problems import BadValueError, ConfigError, Problem
from mcpgate.config.reading import Reading
from mcpgate.config.sections import (
    admin_section,
    auth_section,
    default_state_dir,
    docker_section,
    first_public,
    gate_section,
    limits_section,
    log_section,
    tls_section,
)
from mcpgate.config.servers import server_spec

_GATE_RULES: Final = "Set firewall = gate in [docker], or another egress"


def read_config(path: Path, environ: Mapping[str, str], *, uid: int | None = None) -> Config:
    """
    Read and check the whole file.

    Nothing is kept from it when anything is wrong, and everything that is wrong is told at once.
    Files named in it are read only for ``${file:..}`` and ``${credential:..}``; certificates are
    only looked for.  Blocks for as long as the disk does.

    :param environ: what ``${NAME}`` and the default of ``state_dir`` are taken from.
    :param uid: who else but root may own the file; None: the user of this process.
    :raises ConfigError: with every problem found.
    """
    text = _read_text(path, os.geteuid() if uid is None else uid)
    return parse_config(text, path, environ)


def parse_config(text: str, path: Path, environ: Mapping[str, str]) -> Config:
    """
    Do the same with a text in hand, as if it stood in the file ``path``.

    :raises ConfigError: with every problem found.
    """
    where = path.absolute()
    home = environ.get("HOME", "")
    around = Surroundings(where.parent, Path(home) if home else None)
    interpolation = Interpolation(environ, around.base)
    reading = Reading(str(path), interpolation, around)
    reading.read(text)
    notes = _include(reading, environ)

    gate = gate_section(reading.section(schema.GATE), default_state_dir(environ))
    admin = admin_section(reading.section(schema.ADMIN))
    limits = limits_section(reading.section(schema.LIMITS))
    sections = list(reading.sections(schema.SERVER))
    specs = [(values, server_spec(values, gate, limits, around)) for values in sections]
    served = tuple(
        spec for values, spec in specs if spec is not None and values.get("enabled", True)
    )
    config = Config(
        path=where,
        gate=gate,
        tls=tls_section(reading.section(schema.TLS), gate.listen + admin.listen),
        auth=auth_section(
            reading.section(schema.AUTH),
            list(reading.sections(schema.AUTH_SOURCE)),
            frozenset(values.name for values in (*sections, *reading.sections(schema.GROUP))),
            first_public(gate.listen),
        ),
        limits=limits,
        docker=docker_section(reading.section(schema.DOCKER)),
        admin=admin,
        log=log_section(reading.section(schema.LOG)),
        servers=served,
        groups=groups(list(reading.sections(schema.GROUP)), served, gate),
        sources=interpolation.sources,
        notes=notes,
    )
    for values, spec in specs:
        listed = spec is not None and spec.container.egress == "allow-list"
        if listed and config.docker.firewall != "gate":
            values.problem(
                "egress", "rules that are not the gate's can not follow a list", _GATE_RULES
            )
    for text_ in set(gate.listen) & set(admin.listen):
        reading.section(schema.ADMIN).problem(
            "listen", f"{text_} stands in [gate] as well", "Choose another port"
        )
    if reading.problems:
        raise ConfigError(reading.problems)
    return config


def _include(reading: Reading, environ: Mapping[str, str]) -> tuple[str, ...]:
    """
    Read the servers of the files that ``include`` names; give what they could not be taken for.

    They are held to the same owner and mode: they name programs too.
    """
    section = reading.section(schema.GATE)
    nothing: tuple[Path, ...] = ()
    notes: list[str] = []
    for path in section.get("include", nothing):
        try:
            taken = read_servers(_read_text(path, os.geteuid()), path.stem, environ)
        except ConfigError as error:
            for problem in error.problems:
                reading.complain(problem)
        except NotTakenError as error:
            section.problem("include", f"{path.name} can not be read", str(error))
        else:
            reading.read_made(as_ini(taken), str(path))
            notes += [f"{path.name}: {note}" for note in taken.notes]
            notes += [
                f"{path.name}: [server:{one.name}] {note}"
                for one in taken.servers
                for note in one.notes
            ]
    return tuple(notes)


def _read_text(path: Path, uid: int) -> str:
    def refuse(text: str, remedy: str, line: int = 0) -> ConfigError:
        return ConfigError([Problem(file=str(path), line=line, text=text, remedy=remedy)])

    try:
        content, status = read_bounded(path, ini.LIMIT_BYTES)
    except BadValueError as bad:
        raise refuse(bad.text, bad.remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise refuse(
            f"the file can not be read: {reason}", "Mend the path or the permissions"
        ) from None
    # Whoever can write the file can have any command run (R79).
    if status.st_uid not in (0, uid):
        raise refuse(
            f"the file belongs to another user (uid {status.st_uid})", f"Run: chown root {path}"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise refuse("others than its owner can write the file", f"Run: chmod go-w {path}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse("the line is not UTF-8", "Save the file as UTF-8", line) from None
