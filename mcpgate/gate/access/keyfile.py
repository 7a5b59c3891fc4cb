"""
The file of static keys: its lines, and changing it safely.

One key per line, seven parts joined by colons; blank lines and lines that begin with ``#`` are
kept as they are::

    NAME:ID:blake2b:SALT:HASH:CREATED:SERVERS

``NAME`` is the user, ``ID`` eight hex digits (of an imported key ``own-`` and eight hex digits),
``SALT`` 32 and ``HASH`` 64 hex digits, ``CREATED`` a UTC time like ``20261120T123000Z``, and
``SERVERS`` the servers the key may use, joined by commas, or ``*`` for all.  The key itself is
not in the file.  A key made here reads ``mg_ID_SECRET`` and is found by its id; an imported one
by trying each salt.

The hash is a fast one on purpose: secrets made here have 256 random bits, which no guessing
reaches, and imported keys must have 16 characters at least.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Final

from mcpgate.model import MIB, Secret

FILE_LIMIT: Final = 4 * MIB
KEYS_LIMIT: Final = 20_000
IMPORTED_LIMIT: Final = 1_000
IMPORTED_MIN: Final = 16
IMPORTED_MAX: Final = 4096
ALGORITHM: Final = "blake2b"
MADE_PREFIX: Final = "mg_"

_PARTS: Final = 7
_SALT_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_OWN: Final = "own-"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}").fullmatch
_ID: Final = re.compile(r"(?:own-)?[0-9a-f]{8}").fullmatch
_MADE: Final = re.compile(r"mg_([0-9a-f]{8})_[\x21-\x7e]{16,}").fullmatch
_SALT: Final = re.compile(r"[0-9a-f]{32}").fullmatch
_HASH: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_SERVER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}").fullmatch
_CREATED: Final = "%Y%m%dT%H%M%SZ"


class KeyFileError(Exception):
    """The file can not be used; the text names file, line and remedy, and no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """
    One line.

    :ivar servers: names of the servers it may use; None means every server.
    """

    name: str
    key_id: str
    salt: str
    hashed: str
    created: str
    servers: frozenset[str] | None = None

    @property
    def imported(self) -> bool:
        """Tell whether the key does not show its id, so that its salt must be tried."""
        return self.key_id.startswith(_OWN)

    def matches(self, key: Secret) -> bool:
        """Compare in constant time."""
        return compare_digest(_hash(key, self.salt), self.hashed)

    def line(self) -> str:
        """Write it as it stands in the file."""
        servers = "*" if self.servers is None else ",".join(sorted(self.servers))
        parts = (self.name, self.key_id, ALGORITHM, self.salt, self.hashed, self.created, servers)
        return ":".join(parts)


def made_id(key: Secret) -> str | None:
    """Give the id a key made by a gate shows; None for any other key."""
    match = _MADE(key.reveal())
    return match[1] if match else None


def make_key(random_bytes: Callable[[int], bytes], key_id: str) -> Secret:
    """Make a key: its id, then 64 hex digits."""
    return Secret(f"{MADE_PREFIX}{key_id}_{random_bytes(_SECRET_BYTES).hex()}")


def make_entry(
    name: str,
    key: Secret,
    *,
    random_bytes: Callable[[int], bytes],
    now: datetime,
    servers: frozenset[str] | None = None,
) -> KeyEntry:
    """
    Make the line of a key.

    :raises KeyFileError: name, servers or an imported key are not acceptable.
    """
    text = key.reveal()
    if not IMPORTED_MIN <= len(text) <= IMPORTED_MAX or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise KeyFileError(
            f"a key must have {IMPORTED_MIN} to {IMPORTED_MAX} visible ASCII characters, no blanks"
        )
    salt = random_bytes(_SALT_BYTES).hex()
    entry = KeyEntry(
        name=name,
        key_id=made_id(key) or _OWN + random_bytes(4).hex(),
        salt=salt,
        hashed=_hash(key, salt),
        created=now.astimezone(UTC).strftime(_CREATED),
        servers=servers,
    )
    parse_line(entry.line())
    return entry


def parse_line(line: str) -> KeyEntry:
    """
    Read one line.

    :raises KeyFileError: what is wrong, without file and line number.
    """
    parts = line.split(":")
    if len(parts) != _PARTS:
        raise KeyFileError(f"has {len(parts)} parts where a key has {_PARTS}")
    name, key_id, algorithm, salt, hashed, created, servers = parts
    if not _NAME(name):
        raise KeyFileError(
            "the name must have 1 to 64 letters, digits or . _ @ + - and begin with one of the "
            "first two"
        )
    if not _ID(key_id):
        raise KeyFileError("the id must be 8 hex digits, with 'own-' before an imported one's")
    if algorithm != ALGORITHM:
        raise KeyFileError(f"the algorithm must be {ALGORITHM}")
    if not _SALT(salt) or not _HASH(hashed):
        raise KeyFileError("salt and hash must be 32 and 64 hex digits")
    try:
        datetime.strptime(created, _CREATED).replace(tzinfo=UTC)
    except ValueError:
        raise KeyFileError("the time of making must look like 20261120T123000Z") from None
    allowed: frozenset[str] | None = None
    if servers != "*":
        allowed = frozenset(servers.split(","))
        if not all(map(_SERVER, allowed)):
            raise KeyFileError("servers must be names joined by commas, or * for all")
    return KeyEntry(
        name=name, key_id=key_id, salt=salt, hashed=hashed, created=created, servers=allowed
    )


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The lines of a file: entries, and texts kept as they are."""

    lines: tuple[KeyEntry | str, ...] = ()

    @property
    def entries(self) -> tuple[KeyEntry, ...]:
        """Give the keys in the file's order."""
        return tuple(line for line in self.lines if isinstance(line, KeyEntry))

    def find(self, name_or_id: str) -> tuple[KeyEntry, ...]:
        """Give the keys of that name, or the one of that id."""
        return tuple(e for e in self.entries if name_or_id in (e.name, e.key_id))

    def with_key(self, entry: KeyEntry) -> KeyFile:
        """
        Add a key at the end.

        :raises KeyFileError: the id is taken, or a bound is reached.
        """
        return KeyFile(_checked((*self.lines, entry)))

    def without(self, entries: Sequence[KeyEntry]) -> KeyFile:
        """Leave keys out."""
        return KeyFile(tuple(line for line in self.lines if line not in entries))

    def text(self) -> str:
        """Write the whole file."""
        return "".join(
            (line.line() if isinstance(line, KeyEntry) else line) + "\n" for line in self.lines
        )


def parse_keys(text: str, path: Path) -> KeyFile:
    """
    Read the text of a file.

    :raises KeyFileError: with ``path:line``.
    """
    lines: list[KeyEntry | str] = []
    for number, line in enumerate(text.splitlines(), 1):
        kept = line.strip()
        if not kept or kept.startswith("#"):
            lines.append(kept)
            continue
        try:
            lines.append(parse_line(kept))
        except KeyFileError as error:
            raise KeyFileError(f"{path}:{number}: {error}") from None
    try:
        return KeyFile(_checked(tuple(lines)))
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None


def read_keys(path: Path) -> KeyFile:
    """
    Read a file.

    :raises FileNotFoundError: there is none.
    :raises KeyFileError: it can not be read, is open to others, too large or malformed.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path}: can not be read: {error.strerror}") from None
    if mode & 0o022:
        raise KeyFileError(
            f"{path}: other users may write to it (mode {mode:04o}): anybody could add a key; "
            f"chmod 600 it"
        )
    if len(raw) > FILE_LIMIT:
        raise KeyFileError(f"{path}: is larger than {FILE_LIMIT} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise KeyFileError(f"{path}:{line}: is not UTF-8") from None
    return parse_keys(text, path)


@contextmanager
def changing(path: Path) -> Iterator[tuple[KeyFile, Callable[[KeyFile], None]]]:
    """
    Read a file (perhaps not there yet) and hold it until the change is written.

    Gives the keys and a function that replaces the file: complete or not at all, mode 0600,
    synced to disk.  Others who change it wait; who only reads is not held up.

    :raises KeyFileError: it can not be read or written.
    """
    # Through a symbolic link, the file is replaced and not the link.
    path = path.resolve()
    try:
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise KeyFileError(f"{path.parent}: can not be written to: {error.strerror}") from None
    try:
        _give_away(lock, path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            keys = read_keys(path)
        except FileNotFoundError:
            keys = KeyFile()
        yield keys, lambda changed: _replace(path, changed.text())
    finally:
        os.close(lock)


def _replace(path: Path, text: str) -> None:
    raw = text.encode("utf-8")
    if len(raw) > FILE_LIMIT:
        raise KeyFileError(f"{path}: would be larger than {FILE_LIMIT} bytes")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            _give_away(file.fileno(), path)
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise KeyFileError(f"{path}: can not be written: {error.strerror}") from None


def _give_away(descriptor: int, path: Path) -> None:
    """
    Give a new file to the owner of the old one, or of the directory.

    Root may run this for a gate that runs as somebody else, who must go on reading the file.
    """
    with suppress(PermissionError):
        model = (path if path.exists() else path.parent).stat()
        os.fchown(descriptor, model.st_uid, model.st_gid)


def _hash(key: Secret, salt: str) -> str:
    return blake2b(
        key.reveal().encode("utf-8", "surrogatepass"),
        salt=bytes.fromhex(salt),
        person=b"mcpgate static",
        digest_size=32,
    ).hexdigest()


def _checked(lines: tuple[KeyEntry | str, ...]) -> tuple[KeyEntry | str, ...]:
    entries = [line for line in lines if isinstance(line, KeyEntry)]
    if len(entries) > KEYS_LIMIT:
        raise KeyFileError(f"holds more than {KEYS_LIMIT} keys")
    if sum(entry.imported for entry in entries) > IMPORTED_LIMIT:
        raise KeyFileError(f"holds more than {IMPORTED_LIMIT} imported keys")
    seen: set[str] = set()
    for entry in entries:
        if entry.key_id in seen:
            raise KeyFileError(f"the id {entry.key_id} stands there twice")
        seen.add(entry.key_id)
    return lines
