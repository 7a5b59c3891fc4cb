"""
Digests of credentials: what maps, logs and statistics know a key by.

A keyed hash, so that nobody who reads a log or a session store can try keys against it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from mcpgate.model import Secret

SECRET_NAME: Final = "secret.key"  # noqa: S105 - the file's name
SECRET_BYTES: Final = 32


class SecretFileError(Exception):
    """The secret file can not be used; the text says which, why and what to do."""


class KeyDigest:
    """
    Keyed BLAKE2b of a credential, 32 hex digits; called once per request.  Kept with the secret.

    :param secret: 32 random bytes that stay the same over restarts, see `load_secret`.
    """

    __slots__ = ("_start",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the digest secret must have {SECRET_BYTES} bytes")
        self._start = blake2b(key=secret, digest_size=16, person=b"mcpgate key")

    def __call__(self, credential: Secret) -> str:
        """Give the digest."""
        known = credential.digest
        if known is not None and known[0] is self:
            return known[1]
        state = self._start.copy()
        state.update(credential.reveal().encode("utf-8", "surrogatepass"))
        digest = state.hexdigest()
        credential.digest = (self, digest)
        return digest


def load_secret(
    state_dir: Path, random_bytes: Callable[[int], bytes], name: str = SECRET_NAME
) -> bytes:
    """
    Read the secret of this state directory; make it on first use.

    Two gates that start at once end up with the same one: the file appears complete or not at
    all, and who comes second reads what is there.

    :raises SecretFileError: it is unreadable, of the wrong size, or open to other users.
    """
    path = state_dir / name
    try:
        with suppress(FileNotFoundError):
            return _read(path)
        _make(path, random_bytes(SECRET_BYTES))
        return _read(path)
    except OSError as error:
        raise SecretFileError(
            f"{path}: can not be read or made: {error.strerror or 'unknown error'}"
        ) from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        secret = file.read(SECRET_BYTES + 1)
    if mode & 0o077:
        raise SecretFileError(
            f"{path}: other users may read or write it (mode {mode:04o}); chmod 600 it"
        )
    if len(secret) != SECRET_BYTES:
        raise SecretFileError(
            f"{path}: has not {SECRET_BYTES} bytes; restore it, or remove it to have a new one made"
        )
    return secret


def _make(path: Path, secret: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces the secret somebody else has just made.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
