"""
The reference page of ``gate.ini``, made from the schema.

``python -m mcpgate.config.reference > docs/reference/configuration.rst`` writes it.
"""

from __future__ import annotations

import sys
from typing import Final

from mcpgate.config.schema import SECTIONS, Key, SectionSchema, every_key

_PREFACE: Final = r"""
.. Made by python -m mcpgate.config.reference; edit mcpgate/config/schema.py instead.

=============
Configuration
=============

The gate reads one file, ``gate.ini``.
``mcpgate check gate.ini`` tells whether it is right, and names every fault with its line.
The gate refuses to start, or to reload, with a file that is not.

Form of the file
================

- ``[section]`` and ``key = value``; a line indented deeper than its key goes on with the value.
- ``#`` or ``;`` as the first character of a line makes a comment.
  There are no comments behind values.
- A section or key that stands twice, or that is not known, is refused.
- Relative paths start at the directory of the file; ``~/`` is the home directory.
- The file is UTF-8 and at most 1 MiB.
- It belongs to root or to the user of the gate, and nobody else may write it.

Units
=====

duration
    A number and ``ms``, ``s``, ``min``, ``h``, ``d`` or ``w``: ``90s``, ``1h30min``.
    Only ``0`` needs no unit.
size
    A number and ``B``, ``KiB``, ``MiB`` or ``GiB``: ``256MiB``.
    ``kB``, ``MB`` and ``GB`` count by thousands.
rate
    A number per ``s``, ``min``, ``h`` or ``d``: ``20/s``. ``off`` where there may be no limit.
endpoint
    A Twisted endpoint string, such as ``tcp:8443:interface=127.0.0.1``,
    ``unix:/run/mcpgate/http.sock`` or ``systemd:domain=INET:index=0``.
    ``tls:`` or ``redirect:`` may stand in front.
    A colon inside an address is written ``\:``.

Values from elsewhere
=====================

``${NAME}``
    The environment variable.
``${file:PATH}``
    The contents of a file, at most 64 KiB, without the line end at its end.
``${credential:NAME}``
    A credential of systemd: the file ``NAME`` in ``$CREDENTIALS_DIRECTORY``.
``$$``
    A dollar sign.

They may stand anywhere in a value.
What is missing or empty is a fault.
What was put in is not read again.
In ``command`` only variables may stand, for arguments show in process lists.
"""


def as_rst() -> str:
    """Give the whole page."""
    lines = [_PREFACE.strip("\n")]
    for section in SECTIONS:
        title = f"[{section.name}]"
        lines += ["", title, "=" * len(title), "", section.intro]
        for key in section.keys:
            lines += ["", *_entry(section, key)]
    return "\n".join(lines) + "\n"


def _entry(section: SectionSchema, key: Key) -> list[str]:
    lines = [
        f".. _{section.name.replace(':', '-').lower()}-{key.name.replace('.', '-').lower()}:",
        "",
        f"``{key.name}``",
        f"    {key.effect}",
        "",
        f"    :Kind: {key.kind.label}",
        f"    :Default: {default_text(key)}",
    ]
    if key.only:
        stem = "type = " if section.name.startswith("auth") else ""
        what = ", ".join(f"``{stem}{variant}``" for variant in key.only.split())
        lines.append(f"    :Only with: {what}")
    lines.append(f"    :Since: {key.since}")
    return lines


def default_text(key: Key) -> str:
    """Tell the default in words for the page."""
    if key.default:
        return f"``{key.default}``"
    return key.default_note or "none"


def as_rows() -> list[dict[str, str]]:
    """Give the table for programs."""
    return [
        {
            "section": section.name,
            "key": key.name,
            "kind": key.kind.label,
            "default": key.default,
            "default_note": key.default_note,
            "only": key.only,
            "effect": key.effect,
            "since": key.since,
        }
        for section, key in every_key()
    ]


if __name__ == "__main__":
    sys.stdout.write(as_rst())
