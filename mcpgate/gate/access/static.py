"""Keys listed in a file, which is read again when it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import InvalidCredential, Unauthenticated
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.access.keyfile import KeyEntry, KeyFile, KeyFileError, made_id, read_keys
from mcpgate.gate.access.revocation import Revocations
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Principal, Secret
from mcpgate.timing.deferreds import deferred

log = Logger()

Apart = Callable[[Callable[[], KeyFile]], Deferred[KeyFile]]


def _here(read: Callable[[], KeyFile]) -> Deferred[KeyFile]:
    return maybeDeferred(read)


@implementer(IAuthenticator)
class StaticAuthenticator:
    """
    The keys of one file (`mcpgate.gate.access.keyfile`).

    The file is read when this is made; a file that is not there yet holds no keys.  Later a file
    that is bad or has gone changes nothing: the keys read last stay good, and the log says what
    is wrong (R62).  No cache is needed on top: who was vouched for once is found by a look-up.

    :param issuer: name of the ``[auth:NAME]`` section.
    :param servers: the section's own restriction; a key opens only what both allow.
    :param apart: reads the file again on another thread: many keys take long.
    :raises KeyFileError: the file is there and can not be used.
    """

    def __init__(
        self,
        issuer: str,
        path: Path,
        digest: KeyDigest,
        revocations: Revocations,
        *,
        servers: frozenset[str] | None = None,
        apart: Apart = _here,
    ) -> None:
        self._issuer = issuer
        self._apart = apart
        self._path = path
        self._digest = digest
        self._revocations = revocations
        self._servers = servers
        self._by_id: dict[str, KeyEntry] = {}
        self._imported: tuple[KeyEntry, ...] = ()
        self._vouched: dict[str, tuple[Caller, KeyEntry]] = {}
        self._signature = self._look()
        try:
            self._use(read_keys(path))
        except FileNotFoundError:
            log.warn("There is no key file {path} yet: nobody can call", path=str(path))

    def __len__(self) -> int:
        """Tell how many keys there are."""
        return len(self._by_id)

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`.  Keys made by a gate are known at first sight."""
        key_digest = self._digest(credential)
        vouched = self._vouched.get(key_digest)
        if vouched is not None:
            return vouched[0]
        key_id = made_id(credential)
        entry = self._by_id.get(key_id) if key_id else None
        if entry is None or not entry.matches(credential):
            return None
        return self._vouch(entry, credential, key_digest)

    def authenticate(self, credential: Secret) -> Deferred[Caller]:
        """See `IAuthenticator.authenticate`.  Never waits, never fails `AuthUnavailable`."""
        if not credential:
            return fail(Unauthenticated())
        caller = self.remembered(credential)
        if caller is not None:
            return succeed(caller)
        for entry in self._imported:
            if entry.matches(credential):
                return succeed(self._vouch(entry, credential, self._digest(credential)))
        return fail(InvalidCredential())

    @deferred
    async def reload_if_changed(self) -> None:
        """Read the file again if it is another one than last time; for a `Ticker`."""
        if self._look() != self._signature:
            await self.reload()

    @deferred
    async def reload(self) -> bool:
        """
        Read the file again; gives False when it can not be used and the keys stay as they are.

        Keys that are gone or were changed are announced to `Revocations`.
        """
        # Looked at first: a change while we read is seen next time.
        self._signature = self._look()
        try:
            keys = await self._apart(lambda: read_keys(self._path))
        except FileNotFoundError:
            log.error("Key file {path} has gone: its last keys stay good", path=str(self._path))
            return False
        except KeyFileError as error:
            log.error("Key file not read again: {problem}", problem=str(error))
            return False
        self._use(keys)
        log.info("Key file {path} read: {count} keys", path=str(self._path), count=len(self))
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _use(self, keys: KeyFile) -> None:
        entries = keys.entries
        self._by_id = {entry.key_id: entry for entry in entries}
        self._imported = tuple(entry for entry in entries if entry.imported)
        gone = [
            (key_digest, caller.principal)
            for key_digest, (caller, entry) in self._vouched.items()
            if self._by_id.get(entry.key_id) != entry
        ]
        for key_digest, _ in gone:
            del self._vouched[key_digest]
        for _, principal in gone:
            self._revocations.announce(principal)

    def _vouch(self, entry: KeyEntry, credential: Secret, key_digest: str) -> Caller:
        servers = entry.servers
        if servers is None:
            servers = self._servers
        elif self._servers is not None:
            servers &= self._servers
        caller = Caller(Principal(self._issuer, entry.name, key_digest), credential, servers)
        # At most one per key of the file: the bound of the file is the bound of this map.
        self._vouched[key_digest] = caller, entry
        return caller
