"""
The file that keeps sessions: SQLite, blocking, used by one thread only.

`mcpgate.stores.sqlite` decides when to write; this module opens, reads and writes.  The file is
never thrown away: one that is damaged, not ours or of a newer gate is moved aside.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from json import dumps, loads
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from mcpgate.model import Principal, SessionKey, SessionRecord

log = Logger()

#: Marks the file as ours in SQLite's header: "mcpg".
APPLICATION_ID: Final = 0x6D637067
SCHEMA_VERSION: Final = 1

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE schema (version INTEGER NOT NULL);
INSERT INTO schema VALUES ({SCHEMA_VERSION});
CREATE TABLE sessions (
    issuer TEXT NOT NULL, subject TEXT NOT NULL, key_digest TEXT NOT NULL,
    session_id TEXT NOT NULL,
    server TEXT NOT NULL, initialize_params BLOB NOT NULL, revision TEXT NOT NULL,
    created_at REAL NOT NULL, last_used_at REAL NOT NULL,
    upstream_session TEXT NOT NULL, upstream_instance TEXT NOT NULL,
    initialized INTEGER NOT NULL, id_returned INTEGER NOT NULL,
    log_level TEXT NOT NULL, subscriptions TEXT NOT NULL,
    PRIMARY KEY (issuer, subject, key_digest, session_id)
);
COMMIT;
"""  # noqa: S608 - constants of this module
_PUT: Final = f"INSERT OR REPLACE INTO sessions VALUES ({', '.join('?' * 15)})"  # noqa: S608 - no input
_DELETE: Final = (
    "DELETE FROM sessions WHERE issuer = ? AND subject = ? AND key_digest = ? AND session_id = ?"
)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)

Row = tuple[str | bytes | float | int, ...]


class _NotOursError(Exception):
    """The file is something else than a session file this gate can read."""


def _principal_of(key: SessionKey) -> tuple[str, str, str]:
    principal = key.principal
    return principal.issuer, principal.subject, principal.key_digest


def row_of(record: SessionRecord) -> Row:
    """
    Freeze a record as a row.

    :raises UnicodeEncodeError: a text holds what UTF-8 can not say.
    """
    row = (
        *_principal_of(record.key),
        record.key.session_id,
        *(record.server, record.initialize_params, record.revision),
        *(record.created_at, record.last_used_at),
        *(record.upstream_session, record.upstream_instance),
        *(int(record.initialized), int(record.id_returned)),
        *(record.log_level, dumps(record.subscriptions)),
    )
    for value in row:
        if isinstance(value, str):
            value.encode()
    return row


def record_of(row: Row) -> SessionRecord:
    """
    Read a row back.

    :raises ValueError: a column holds what no gate of ours wrote.
    """
    kinds = (str, str, str, str, str, bytes, str, float, float, str, str, int, int, str, str)
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)):
        raise ValueError("a column has the wrong type")
    subscriptions = loads(str(row[14]))
    if not isinstance(subscriptions, list):
        raise ValueError("subscriptions are not a list")
    params = row[5]
    assert isinstance(params, bytes)
    return SessionRecord(
        key=SessionKey(Principal(str(row[0]), str(row[1]), str(row[2])), str(row[3])),
        server=str(row[4]),
        initialize_params=params,
        revision=str(row[6]),
        created_at=float(row[7]),
        last_used_at=float(row[8]),
        upstream_session=str(row[9]),
        upstream_instance=str(row[10]),
        initialized=bool(row[11]),
        id_returned=bool(row[12]),
        log_level=str(row[13]),
        subscriptions=tuple(str(uri) for uri in subscriptions),
    )


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether the file itself is bad, rather than the disk full or the file locked."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _DAMAGED


class SessionFile:
    """
    One open session file.  Every method blocks and belongs on the store's thread.

    :param path: made with mode 0600; a wider mode is narrowed.  WAL files beside it inherit that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def load(self) -> list[SessionRecord]:
        """
        Read everything, that which was used last at the end; a bad file is moved aside.

        :raises sqlite3.Error, OSError: the file can neither be read nor be replaced.
        """
        try:
            rows = self._open().execute("SELECT * FROM sessions ORDER BY last_used_at").fetchall()
        except (sqlite3.DatabaseError, _NotOursError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not is_damage(error):
                raise
            self.move_aside(str(error))
            self._open()
            return []
        records = []
        for row in rows:
            try:
                records.append(record_of(row))
            except (ValueError, RecursionError) as error:
                log.warn("A stored session is unreadable: {reason}", reason=str(error))
        return records

    def write(self, puts: Iterable[Row], deletes: Iterable[SessionKey]) -> None:
        """
        Write one batch, whole or not at all.

        :raises sqlite3.Error, OSError: nothing was written.
        """
        try:
            connection = self._open()
        except _NotOursError as error:
            self.move_aside(str(error))
            connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                _DELETE,
                [(*_principal_of(key), key.session_id) for key in deletes],
            )
            connection.executemany(_PUT, list(puts))
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Let go of the file.  Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def move_aside(self, reason: str) -> None:
        """Rename the file (and its WAL) so that a fresh one can be made."""
        self.close()
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.aside-{number}")).exists():
            number += 1
        for ending in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        log.error(
            "The session file was moved aside to {aside}: {reason}", aside=str(aside), reason=reason
        )

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(self._path, timeout=2.0, isolation_level=None)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and tables:
            raise _NotOursError("it is a database of another program")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # Ids are credentials: what is deleted shall not linger in free pages.
        connection.execute("PRAGMA secure_delete = ON")
        if not tables:
            connection.executescript(_SCHEMA)
            return
        try:
            row = connection.execute("SELECT version FROM schema").fetchone()
        except sqlite3.OperationalError as error:
            raise _NotOursError("it has no schema version") from error
        if row is None or row[0] != SCHEMA_VERSION:
            raise _NotOursError(f"its schema version is {row and row[0]!r}, not {SCHEMA_VERSION}")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _NotOursError(f"it is damaged: {verdict}")
