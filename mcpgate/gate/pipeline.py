"""
The steps every request passes, in the one order: authenticate, rate, slots.

Session, route and what the message means come after, in the front door.  A warm request costs
look-ups; only an unknown key makes anybody wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from mcpgate.errors import GateError, Overloaded, RateLimited, Unauthenticated
from mcpgate.gate.access.challenge import unauthenticated_fields
from mcpgate.gate.access.credentials import extract
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.admission import Admission
from mcpgate.gate.tolls import Tolls
from mcpgate.http.fields import Fields
from mcpgate.interfaces import IAuthenticator, ISlots
from mcpgate.model import Caller, Secret
from mcpgate.telemetry.meters import Meters

_NOBODY = Secret("")


class Gate(Tolls):
    """
    Decides whether a request goes on.

    :param anonymous: requests without a key are shown to the authenticator too.
    :param headers: lower-case names of fields that may carry a key, beside the usual ones.
    """

    def __init__(
        self,
        *,
        authenticator: IAuthenticator,
        lockout: Lockout,
        admission: Admission,
        slots: ISlots,
        revocations: Revocations,
        meters: Meters,
        realm: str,
        headers: tuple[bytes, ...],
        anonymous: bool,
    ) -> None:
        super().__init__(admission, meters)
        self._authenticator = authenticator
        self._lockout = lockout
        self._slots = slots
        self._revocations = revocations
        self._realm = realm
        self._headers = headers
        self._anonymous = anonymous

    def identify(
        self,
        fields: Fields,
        query: bytes | None,
        address: str,
        memo: dict[str, Any] | None = None,
    ) -> Caller | Deferred[Caller]:
        """
        Tell who calls: at once for a key that is remembered.

        Limits by address hold only for keys that are not: neighbours behind one address do not
        shut out whoever has a good key.

        :param memo: of the head these are of; see `RequestHead`.
        :raises GateError: or the Deferred fails with one: no key, a bad one, too many tries.
        """
        credential = None if memo is None else memo.get("credential")
        if credential is not None:
            caller = self._authenticator.remembered(credential)
            if caller is not None:
                return caller
        try:
            credential = extract(fields, query, self._headers)
        except GateError as error:
            self._knock(address)
            if isinstance(error, Unauthenticated):
                self._challenge(error)
            raise
        if credential is None:
            if not self._anonymous:
                self._knock(address)
                unknown = Unauthenticated()
                self._challenge(unknown)
                raise unknown
            credential = _NOBODY
        caller = self._authenticator.remembered(credential)
        if caller is not None:
            if memo is not None:
                memo["credential"] = credential
            return caller
        self._knock(address)
        asking = self._lockout.authenticate(self._authenticator, credential, address)
        return asking.addErrback(self._refused)

    def _refused(self, failure: Failure) -> Failure:
        if isinstance(failure.value, Unauthenticated):
            self._meters.events["auth_refused"] += 1
            self._challenge(failure.value)
        return failure

    def _challenge(self, error: Unauthenticated) -> None:
        error.fields = unauthenticated_fields(self._realm, error)

    def _knock(self, address: str) -> None:
        try:
            self._admission.knock(address)
        except RateLimited:
            self._meters.events["rate_limited"] += 1
            raise

    def vouch(self, credential: Secret) -> Deferred[Caller]:
        """
        Tell whose a key is that the operator of this gate showed: no address, no lockout.

        Fails as `IAuthenticator.authenticate` does.
        """
        caller = self._authenticator.remembered(credential)
        if caller is not None:
            return succeed(caller)
        return self._authenticator.authenticate(credential)

    def open_stream(self, caller: Caller, limit: int) -> Callable[[], None]:
        """
        Take a place for a long stream, and keep its key checked while it is open (R58).

        :return: to be called when the stream has ended; further calls do nothing.
        :raises Overloaded: the key has too many open.
        """
        key = ("stream", caller.principal)
        if not self._slots.acquire(key, limit):
            self._meters.events["overloaded"] += 1
            raise Overloaded(
                f"This key has {limit} streams open; close one first.", retry_after_s=5.0
            )
        unwatch = self._revocations.watch(caller)
        self._meters.streams += 1
        open_ = True

        def over() -> None:
            nonlocal open_
            if not open_:
                return
            open_ = False
            self._meters.streams -= 1
            unwatch()
            self._slots.release(key)

        return over
