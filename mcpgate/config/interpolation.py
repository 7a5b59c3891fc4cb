"""
``${NAME}``, ``${file:PATH}`` and ``${credential:NAME}`` in values, and nothing else.

One pass: what is put in is never read again, has no defaults, no commands and no nesting (R80).
``$$`` is a dollar.  What is missing or empty is a fault, never an empty text.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mcpgate.config.model import SecretSource
from mcpgate.config.problems import BadValueError
from mcpgate.model import KIB, Secret

SECRET_LIMIT_BYTES: Final = 64 * KIB

_REFERENCE: Final = re.compile(r"\$(?:(\$)|\{([^{}$]*)\})?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_FORMS: Final = "Use ${NAME}, ${file:PATH} or ${credential:NAME}; write $$ for a dollar"


def read_bounded(path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """
    Read a regular file of at most ``limit_bytes``, without waiting for anybody.

    :raises BadValueError: it is larger or no regular file.
    :raises OSError: it can not be read.
    """
    # O_NONBLOCK: a named pipe opens at once instead of waiting for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadValueError("it is not a regular file", "Name a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise BadValueError(f"it is larger than {limit_bytes // KIB} KiB", "Name a smaller file")
    return content, status


class Interpolation:
    """
    Puts values in place and remembers which.

    :param environ: variables; ``CREDENTIALS_DIRECTORY`` leads to the credentials of systemd.
    :param base: directory that relative paths start from.
    """

    def __init__(self, environ: Mapping[str, str], base: Path) -> None:
        self._environ = environ
        self._base = base
        self._seen: dict[tuple[str, str], SecretSource] = {}

    @property
    def sources(self) -> tuple[SecretSource, ...]:
        """Give what was put in as a secret, once each."""
        return tuple(self._seen.values())

    def fill(self, text: str, *, secret: bool = True, shown: bool = False) -> str:
        """
        Give the text with every reference replaced.

        :param secret: variables are remembered as secrets (files and credentials always are).
        :param shown: the value will be visible to others, so only variables may stand in it.
        :raises BadValueError: a reference is malformed, missing, empty or not allowed here.
        """
        if "$" not in text:
            return text
        return _REFERENCE.sub(lambda match: self._one(match, secret, shown), text)

    def _one(self, match: re.Match[str], secret: bool, shown: bool) -> str:
        if match[1]:
            return "$"
        if match[2] is None:
            raise BadValueError("a dollar sign begins no reference here", _FORMS)
        kind, colon, name = match[2].partition(":")
        # ${env:NAME} is none of the forms, so it must not look like one.
        kind, name = (kind if kind != "env" else "", name) if colon else ("env", kind)
        if kind != "env" and shown:
            raise BadValueError(
                "the contents of a secret file would be visible to everybody on this machine",
                "Pass it with env.NAME or file.NAME",
            )
        if kind == "env" and _VARIABLE.fullmatch(name):
            value = self._variable(name)
        elif kind == "file" and name:
            value = self._file(self._base / name, f"the file of ${{file:{name}}}")
        elif kind == "credential" and _CREDENTIAL.fullmatch(name):
            value = self._credential(name)
        else:
            raise BadValueError("the reference is malformed", _FORMS)
        if secret or kind != "env":
            self._seen.setdefault(
                (kind, name), SecretSource(kind=kind, name=name, value=Secret(value))
            )
        return value

    def _variable(self, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise BadValueError(
                f"the environment variable {name} is not set",
                f"Set {name}, for systemd with Environment= or EnvironmentFile=",
            )
        if not value:
            raise BadValueError(
                f"the environment variable {name} is empty", f"Set {name} or remove the key"
            )
        return value

    def _credential(self, name: str) -> str:
        directory = self._environ.get("CREDENTIALS_DIRECTORY", "")
        if not directory:
            raise BadValueError(
                "there are no systemd credentials: CREDENTIALS_DIRECTORY is not set",
                f"Put LoadCredential={name}:PATH into the unit",
            )
        return self._file(Path(directory) / name, f"the credential {name}")

    def _file(self, path: Path, what: str) -> str:
        try:
            content, _ = read_bounded(path, SECRET_LIMIT_BYTES)
            value = content.decode("utf-8")
        except BadValueError as problem:
            raise BadValueError(f"{what} can not be used: {problem.text}", problem.remedy) from None
        except UnicodeDecodeError:
            raise BadValueError(f"{what} is not UTF-8", "Write it as plain text") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BadValueError(
                f"{what} can not be read: {reason}", "Create it or mend its permissions"
            ) from None
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise BadValueError(f"{what} is empty", "Write the secret into it")
        if "\0" in value:
            raise BadValueError(f"{what} holds a NUL character", "Write it as plain text")
        return value
