"""Several sources of keys, asked in order; and the source that takes everybody."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mcpgate.errors import AuthUnavailable, InvalidCredential, Unauthenticated
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Principal, Secret
from mcpgate.timing.deferreds import deferred


@implementer(IAuthenticator)
class AnyOf:
    """
    The first source that knows the key vouches for it.

    A key that nobody knows is refused only if every source could be asked: one that can not
    answer might be the one that knows it (R57).
    """

    def __init__(self, sources: Sequence[IAuthenticator]) -> None:
        self._sources = tuple(sources)

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        for source in self._sources:
            caller = source.remembered(credential)
            if caller is not None:
                return caller
        return None

    @deferred
    async def authenticate(self, credential: Secret) -> Caller:
        """See `IAuthenticator.authenticate`."""
        unavailable: AuthUnavailable | None = None
        refused: Unauthenticated | None = None
        for source in self._sources:
            try:
                return await source.authenticate(credential)
            except AuthUnavailable as error:
                unavailable = unavailable or error
            except Unauthenticated as error:
                refused = refused or error
        raise unavailable or refused or Unauthenticated()


@implementer(IAuthenticator)
class AnonymousAuthenticator:
    """
    Everybody is the same anonymous principal (``type = none``).

    :param issuer: name of the ``[auth:NAME]`` section.
    :param only_without_key: refuse requests that do carry a key.  For use beside other sources:
        a mistyped key must not turn into somebody anonymous.
    """

    def __init__(
        self,
        issuer: str,
        digest: KeyDigest,
        *,
        servers: frozenset[str] | None = None,
        only_without_key: bool = False,
    ) -> None:
        nobody = Secret("")
        self._caller = Caller(Principal(issuer, "anonymous", digest(nobody)), nobody, servers)
        self._only_without_key = only_without_key

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`.  A request without a key has the credential ``""``."""
        return None if self._only_without_key and credential else self._caller

    def authenticate(self, credential: Secret) -> Deferred[Caller]:
        """See `IAuthenticator.authenticate`."""
        caller = self.remembered(credential)
        return fail(InvalidCredential()) if caller is None else succeed(caller)
